"""Real keys of every kind, made once, and JWTs signed with them."""

import functools
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.support.leaks import LEAKS

AUDIENCE = "switchboard"


@functools.cache
def private_key(kind: str, name: str = "main") -> Any:
    """A private key: `RSA`, `EC` or `Ed`; another name is another key."""
    return {
        "RSA": lambda: rsa.generate_private_key(65537, 2048),
        "EC": lambda: ec.generate_private_key(ec.SECP256R1()),
        "Ed": ed25519.Ed25519PrivateKey.generate,
    }[kind]()


def public_pem(key: Any) -> bytes:
    public: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return public


def jwk(key: Any, kid: str | None, **members: Any) -> dict[str, Any]:
    algorithm: Any = OKPAlgorithm
    if isinstance(key, rsa.RSAPrivateKey):
        algorithm = RSAAlgorithm
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        algorithm = ECAlgorithm
    document = json.loads(algorithm.to_jwk(key.public_key()))
    return {**document, **({} if kid is None else {"kid": kid}), **members}


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims for the example's first issuer; a change to None leaves a claim out."""
    now = int(time.time())
    good = {
        "iss": "https://login.acme.example/",
        "aud": AUDIENCE,
        "sub": "user-alice-1f8e",
        "org_id": "acme",
        "iat": now,
        "exp": now + 300,
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def sign(content: dict[str, Any], key: Any, algorithm: str = "RS256", **header: Any) -> str:
    token = jwt.encode(content, key, algorithm=algorithm, headers=header or None)
    if str(content.get("sub")).startswith("user-"):  # not the odd ones that attacks use
        LEAKS.plant("subject", content["sub"])
    # The part that matters: header and claims of one user are alike, the signature is not.
    LEAKS.plant("JWT", token[-40:])
    LEAKS.plant("JWT, cut short", token.split(".")[1][:40])
    return token
