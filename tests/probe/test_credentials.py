"""Where tokens come from: keys of each kind, what cannot be used, and nothing that says what they are."""

import time

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from switchboard.probe.credentials import (
    OwnIssuer,
    ReadyTokens,
    SigningKey,
    UnusableCredential,
    forged,
    of_nobodys_issuer,
)
from tests.support import keys

SECRET = b"a-secret-of-the-probing-issuer-0123456789"


def pem(key, password=None):
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def issuer(key, **changes):
    given = {"issuer": "https://probe.example/", "audience": "switchboard", "subject": "probe", "claims": {"org": "a"}}
    return OwnIssuer(**{**given, "key": key, **changes})


@pytest.mark.parametrize(("kind", "algorithm"), [("RSA", "RS256"), ("EC", "ES256"), ("Ed", "EdDSA")])
def test_private_keys(kind, algorithm):
    private = keys.private_key(kind)
    made = issuer(SigningKey.read(pem(private) + b"\n"), key_id="k-1")
    for token in (made.user(), made.other_user()):
        assert jwt.get_unverified_header(token) == {"alg": algorithm, "typ": "JWT", "kid": "k-1"}
        jwt.decode(token, private.public_key(), [algorithm], audience="switchboard", issuer="https://probe.example/")


def test_a_shared_secret():
    token = issuer(SigningKey.read(SECRET + b"\n")).user()
    claims = jwt.decode(token, SECRET, ["HS256"], audience="switchboard")
    now = time.time()
    assert claims == {
        "org": "a",
        "iss": "https://probe.example/",
        "sub": "probe",
        "aud": "switchboard",
        "iat": claims["iat"],
        "exp": claims["exp"],
    }
    assert now - 10 < claims["iat"] <= now < claims["exp"] < now + 130


def test_what_has_expired_was_good_once():
    made = issuer(SigningKey.read(SECRET))
    claims = jwt.decode(made.expired(), SECRET, ["HS256"], options={"verify_exp": False}, audience="switchboard")
    assert claims["iat"] < claims["exp"] < time.time() - 3000
    assert claims["sub"] == jwt.decode(made.user(), SECRET, ["HS256"], audience="switchboard")["sub"]


def test_another_user_is_another_one():
    made = issuer(SigningKey.read(SECRET))
    assert (
        len(
            {
                jwt.decode(one, SECRET, ["HS256"], audience="switchboard")["sub"]
                for one in (made.user(), made.other_user())
            }
        )
        == 2
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"short", "32 bytes or more"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "no private key in PEM"),
        (pem(keys.private_key("EC"), b"secret"), "without a password"),
        (pem(ec.generate_private_key(ec.SECP384R1())), "RSA, P-256 or Ed25519"),
        (keys.public_pem(keys.private_key("RSA")), "no private key in PEM"),
    ],
)
def test_what_is_no_key(content, why):
    with pytest.raises(UnusableCredential, match=why) as raised:
        SigningKey.read(content)
    assert content.decode()[:30] not in str(raised.value)


@pytest.mark.parametrize("tokens", [("let-me-in",), (keys.sign(keys.claims(), SECRET, "HS256"), "eyJ.x.y")])
def test_what_is_no_token(tokens):
    with pytest.raises(UnusableCredential, match="no JWT"):
        ReadyTokens(*tokens)


def test_another_user_has_to_be_another_one():
    token = keys.sign(keys.claims(), SECRET, "HS256")
    with pytest.raises(UnusableCredential, match="same `sub`"):
        ReadyTokens(token, token)


def test_a_forged_token_differs_in_its_signature_alone():
    token = keys.sign(keys.claims(), keys.private_key("RSA"))
    made = forged(token)
    assert made.rpartition(".")[0] == token.rpartition(".")[0]
    assert len(made) == len(token)
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(made, keys.private_key("RSA").public_key(), ["RS256"], audience="switchboard")


def test_nobodys_issuer_is_new_each_time():
    claims = keys.claims()
    one, other = (jwt.decode(of_nobodys_issuer(claims), options={"verify_signature": False}) for _ in range(2))
    assert one["iss"] != other["iss"]
    assert {**one, "iss": claims["iss"]} == claims


def test_no_repr_shows_a_credential():
    token = keys.sign(keys.claims(), SECRET, "HS256")
    shown = repr((ReadyTokens(token), issuer(SigningKey.read(SECRET)), SigningKey.read(SECRET)))
    assert token not in shown
    assert SECRET.decode() not in shown
