"""The ways in, with real keys; and a table of attacks, each refused."""

import base64
import json
import time

import anyio
import jwt
import pytest

from switchboard.errors import ExpiredToken, InvalidToken, Refusal, UnknownIssuer, UnknownTenant
from switchboard.identity import Principal, UserKeys
from switchboard.identity.keys import StaticKey
from switchboard.identity.verifier import Issuer, TenantRule, Verifier
from tests.support import keys
from tests.support.keys import claims, private_key, public_pem, sign

pytestmark = pytest.mark.anyio

SECRET = b"0123456789abcdef0123456789abcdef"
NAME = "https://login.acme.example/"


def verifier(*algorithms, key=None, tenant=None, **changes) -> Verifier:
    issuer = Issuer(
        name=NAME,
        audience="switchboard",
        algorithms=algorithms or ("RS256",),
        keys=StaticKey(key if key is not None else private_key("RSA").public_key()),
        tenant=tenant or TenantRule(claim="org_id", allowed=frozenset({"acme"})),
        **changes,
    )
    return Verifier({NAME: issuer})


@pytest.mark.parametrize(("algorithm", "kind"), [("RS256", "RSA"), ("PS256", "RSA"), ("ES256", "EC"), ("EdDSA", "Ed")])
async def test_public_key_algorithms(algorithm, kind):
    token = sign(claims(), private_key(kind), algorithm)
    principal = await verifier(algorithm, key=private_key(kind).public_key()).verify(token)
    unverified = jwt.decode(token, options={"verify_signature": False})
    assert principal == Principal(NAME, "user-alice-1f8e", "acme", unverified)


async def test_shared_secret():
    principal = await verifier("HS256", key=SECRET).verify(sign(claims(), SECRET, "HS256"))
    assert principal.subject == "user-alice-1f8e"


async def test_an_audience_list_with_ours_is_right():
    principal = await verifier().verify(sign(claims(aud=["other", "switchboard"]), private_key("RSA")))
    assert principal.tenant == "acme"


async def test_clocks_may_differ_a_little():
    now = int(time.time())
    await verifier().verify(sign(claims(exp=now - 20, iat=now - 60, nbf=now + 20), private_key("RSA")))


@pytest.mark.parametrize("name", ["\ud800acme", "ac\0me", "acme\n", 7, ["acme"], {"acme": 1}, True])
async def test_a_tenant_that_is_no_text_is_none_even_where_any_will_do(name):
    with pytest.raises(UnknownTenant):
        await verifier(tenant=TenantRule(claim="org_id", allowed=None)).verify(
            sign(claims(org_id=name), private_key("RSA"))
        )


async def test_tenant_by_dotted_path_and_by_name_with_dots():
    rule = TenantRule(claim="org.id", allowed=None)
    nested = await verifier(tenant=rule).verify(sign(claims(org={"id": "north"}), private_key("RSA")))
    assert nested.tenant == "north"
    namespaced = TenantRule(claim="https://acme.example/org", allowed=None)
    named = await verifier(tenant=namespaced).verify(
        sign(claims(**{"https://acme.example/org": "south"}), private_key("RSA"))
    )
    assert named.tenant == "south"


async def test_a_fixed_tenant_ignores_claims():
    principal = await verifier(tenant=TenantRule(fixed="acme")).verify(sign(claims(org_id="other"), private_key("RSA")))
    assert principal.tenant == "acme"


async def test_the_same_subject_at_two_issuers_is_two_users():
    user_keys = UserKeys(SECRET)
    principals = [
        Principal("https://a.example", "sam", "acme", {}),
        Principal("https://b.example", "sam", "acme", {}),
        Principal("https://a.example", "sam", "widgets", {}),
        Principal("https://a.example", "sa", "macme", {}),
    ]
    assert len({user_keys.of(one) for one in principals}) == 4
    assert all(len(user_keys.of(one)) == 64 for one in principals)


class TurningKeys:
    """An issuer that changes its key."""

    def __init__(self, key):
        self.key = key

    async def key_for(self, kid, algorithm):
        if self.key is None:
            raise InvalidToken
        return self.key


async def test_a_token_that_was_verified_is_known():
    one = verifier()
    token = sign(claims(), private_key("RSA"))
    assert await one.verify(token) is await one.verify(token)


async def test_a_known_token_ends_with_its_time():
    one = verifier(leeway=0)
    token = sign(claims(exp=in_seconds(2)), private_key("RSA"))
    await one.verify(token)
    await anyio.sleep(2.1)
    with pytest.raises(ExpiredToken):
        await one.verify(token)


async def test_a_known_token_is_verified_anew_where_a_clock_was_set_back():
    now = [time.time()]
    issuer = Issuer(
        name=NAME,
        audience="switchboard",
        algorithms=("HS256",),
        keys=StaticKey(SECRET),
        tenant=TenantRule(fixed="acme"),
        leeway=0,
    )
    one = Verifier({NAME: issuer}, clock=lambda: now[0])
    token = sign(claims(nbf=int(now[0])), SECRET, "HS256")
    known = await one.verify(token)
    now[0] -= 5
    assert (again := await one.verify(token)) == known
    assert again is not known


async def test_a_known_token_ends_with_its_key():
    turning = TurningKeys(private_key("RSA").public_key())
    issuer = Issuer(
        name=NAME, audience="switchboard", algorithms=("RS256",), keys=turning, tenant=TenantRule(fixed="acme")
    )
    one = Verifier({NAME: issuer})
    token = sign(claims(), private_key("RSA"))
    await one.verify(token)
    for key in (private_key("RSA", "attacker").public_key(), None):
        turning.key = key
        with pytest.raises(InvalidToken):
            await one.verify(token)


async def test_refused_tokens_are_not_known_and_not_refused_for_ever():
    turning = TurningKeys(private_key("RSA", "attacker").public_key())
    issuer = Issuer(
        name=NAME, audience="switchboard", algorithms=("RS256",), keys=turning, tenant=TenantRule(fixed="acme")
    )
    one = Verifier({NAME: issuer})
    token = sign(claims(), private_key("RSA"))
    with pytest.raises(InvalidToken):
        await one.verify(token)
    turning.key = private_key("RSA").public_key()
    assert (await one.verify(token)).tenant == "acme"


@pytest.mark.timing
async def test_what_is_known_costs_little():
    one = verifier("ES256", key=private_key("EC").public_key())
    tokens = [sign(claims(sub=f"user-alice-{number:04}"), private_key("EC"), "ES256") for number in range(100)]

    async def seconds() -> float:
        begin = time.perf_counter()
        for token in tokens:
            await one.verify(token)
        return time.perf_counter() - begin

    assert await seconds() > 4 * min([await seconds() for _ in range(3)])


def unsigned(content=None) -> str:
    return jwt.encode(content or claims(), "", algorithm="none")


def confused() -> str:
    """HS256 with the public key as its secret; PyJWT refuses to make one, so it is made by hand."""
    import hashlib
    import hmac

    def encoded(part: object) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")

    signing_input = encoded({"alg": "HS256", "typ": "JWT"}) + b"." + encoded(claims())
    mac = hmac.new(public_pem(private_key("RSA")), signing_input, hashlib.sha256).digest()
    return (signing_input + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()


def forged(**header) -> str:
    return sign(claims(), private_key("RSA", "attacker"), **header)


def attacker_jwk():
    return keys.jwk(private_key("RSA", "attacker"), "rsa-1")


def tampered() -> str:
    head, _, signature = sign(claims(), private_key("RSA")).split(".")
    body = base64.urlsafe_b64encode(json.dumps(claims(sub="user-root-0001")).encode()).rstrip(b"=").decode()
    return f"{head}.{body}.{signature}"


def in_seconds(seconds: int) -> int:
    """From when the test runs, which may be long after it was collected."""
    return int(time.time()) + seconds


GOOD = private_key("RSA")
ATTACKS = {
    "alg none": (unsigned, InvalidToken),
    "alg none with a good-looking signature": (lambda: unsigned() + "AAAA", InvalidToken),
    "HS256 with the public key as secret": (confused, InvalidToken),
    "another algorithm of the same key": (lambda: sign(claims(), GOOD, "PS256"), InvalidToken),
    "an attacker's key": (forged, InvalidToken),
    "an attacker's key in `jwk`": (lambda: forged(jwk=attacker_jwk()), InvalidToken),
    "an attacker's key set in `jku`": (lambda: forged(jku="https://evil.example/jwks.json"), InvalidToken),
    "an attacker's certificate in `x5u`": (lambda: forged(x5u="https://evil.example/cert.pem"), InvalidToken),
    "an unknown `crit`": (lambda: sign(claims(), GOOD, crit=["x-new"], xnew=1), InvalidToken),
    "changed claims under an old signature": (tampered, InvalidToken),
    "no signature": (lambda: sign(claims(), GOOD).rpartition(".")[0] + ".", InvalidToken),
    "a wrong audience": (lambda: sign(claims(aud="other"), GOOD), InvalidToken),
    "a list of wrong audiences": (lambda: sign(claims(aud=["other", "switchboard2"]), GOOD), InvalidToken),
    "an empty list of audiences": (lambda: sign(claims(aud=[]), GOOD), InvalidToken),
    "expired": (lambda: sign(claims(iat=in_seconds(-900), exp=in_seconds(-60)), GOOD), ExpiredToken),
    "not yet valid": (lambda: sign(claims(nbf=in_seconds(120)), GOOD), InvalidToken),
    "issued in the future": (lambda: sign(claims(iat=in_seconds(120)), GOOD), InvalidToken),
    "living too long": (lambda: sign(claims(exp=in_seconds(40 * 86400)), GOOD), InvalidToken),
    "living too long, without iat": (lambda: sign(claims(iat=None, exp=in_seconds(40 * 86400)), GOOD), InvalidToken),
    "an expiry that is text": (lambda: sign(claims(exp=str(in_seconds(60))), GOOD), InvalidToken),
    "an expiry beyond time": (lambda: sign(claims(exp=1e308), GOOD), InvalidToken),
    "an expiry beyond floats, without iat": (lambda: sign(claims(iat=None, exp=10**400), GOOD), InvalidToken),
    "no iss": (lambda: sign(claims(iss=None), GOOD), InvalidToken),
    "no sub": (lambda: sign(claims(sub=None), GOOD), InvalidToken),
    "no aud": (lambda: sign(claims(aud=None), GOOD), InvalidToken),
    "no exp": (lambda: sign(claims(exp=None), GOOD), InvalidToken),
    "an empty sub": (lambda: sign(claims(sub=""), GOOD), InvalidToken),
    "a huge sub": (lambda: sign(claims(sub="x" * 256), GOOD), InvalidToken),
    "a sub that is no text": (lambda: sign(claims(sub="\ud800"), GOOD), InvalidToken),
    "a sub that is a number": (lambda: sign(claims(sub=7), GOOD), InvalidToken),
    "an unknown issuer": (lambda: sign(claims(iss="https://evil.example/"), GOOD), UnknownIssuer),
    "an issuer that differs by a slash": (lambda: sign(claims(iss=NAME.rstrip("/")), GOOD), UnknownIssuer),
    "a tenant that the issuer may not speak for": (lambda: sign(claims(org_id="widgets"), GOOD), UnknownTenant),
    "a tenant that does not exist": (lambda: sign(claims(org_id="nowhere"), GOOD), UnknownTenant),
    "no tenant": (lambda: sign(claims(org_id=None), GOOD), UnknownTenant),
    "a tenant that is a list": (lambda: sign(claims(org_id=["acme"]), GOOD), UnknownTenant),
    "100 kB": (lambda: sign(claims(padding="x" * 100_000), GOOD), InvalidToken),
    "deeply nested claims": (lambda: sign(claims(), GOOD).split(".")[0] + "." + nested() + ".AAAA", InvalidToken),
    "not a JWT": (lambda: "nonsense", InvalidToken),
    "two dots": (lambda: "..", InvalidToken),
    "not ASCII": (lambda: "é.é.é", InvalidToken),
    "not UTF-8 inside": (lambda: "eyJhbGciOiJSUzI1NiJ9." + "_" * 40 + ".AAAA", InvalidToken),
}


def nested() -> str:
    return base64.urlsafe_b64encode(b'{"a":' * 1200 + b"1" + b"}" * 1200).rstrip(b"=").decode()


@pytest.mark.parametrize("name", ATTACKS)
async def test_attacks(name):
    make, expected = ATTACKS[name]
    token = make()
    with pytest.raises(Refusal) as refused:
        await verifier().verify(token)
    assert type(refused.value) is expected
    # The refusal quotes nothing of the token.
    assert not any(part and part in str(refused.value) for part in token.split(".") if len(part) > 8)


async def test_a_static_public_key_is_no_hmac_secret():
    """Even an issuer that was configured wrongly, HS256 with a public key, takes no token signed with that key."""
    with pytest.raises(InvalidToken):
        await verifier("HS256", key=GOOD.public_key()).verify(confused())
