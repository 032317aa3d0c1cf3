"""Where the probe's tokens come from: an operator's ready ones, or a key of an issuer that the policy lists."""

import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.types import Options

TOKEN_SECONDS = 120  # one is made for each request; policies may bound how long they live
EXPIRED_SECONDS = 3600  # far beyond any leeway for clocks that differ
BEHIND_SECONDS = 5  # `iat` lies so far back, for a service whose clock is a little behind
MIN_SECRET_BYTES = 32
NOT_CHECKED: Options = {"verify_signature": False}


class UnusableCredential(Exception):
    """It cannot be used; the message says why, and quotes nothing of it."""


class Credentials(Protocol):
    """Tokens for the steps; None where what was given does not allow one."""

    def user(self) -> str | None:
        """A good token."""

    def other_user(self) -> str | None:
        """A good token of somebody else, of the same tenant."""

    def expired(self) -> str | None:
        """A token that was good an hour ago."""

    def like_user(self) -> Mapping[str, Any]:
        """Claims that would be good under a good signature."""


@dataclass(frozen=True, slots=True)
class NoCredentials:
    """Nobody. Only what needs no user is tried."""

    def user(self) -> None:
        return None

    def other_user(self) -> None:
        return None

    def expired(self) -> None:
        return None

    def like_user(self) -> Mapping[str, Any]:
        return _registered("switchboard-probe", "switchboard", TOKEN_SECONDS)


@dataclass(frozen=True, slots=True)
class ReadyTokens:
    """Tokens that the policy's issuer made.

    Raises:
        UnusableCredential: one of them is no JWT.
    """

    token: str = field(repr=False)
    other: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for token in filter(None, (self.token, self.other)):
            _claims_of(token)
        if self.other is not None and _claims_of(self.token).get("sub") == _claims_of(self.other).get("sub"):
            raise UnusableCredential("the other user's token has the same `sub`: another user's is needed")

    def user(self) -> str:
        return self.token

    def other_user(self) -> str | None:
        return self.other

    def expired(self) -> None:
        return None

    def like_user(self) -> Mapping[str, Any]:
        return _claims_of(self.token)


@dataclass(frozen=True, slots=True)
class OwnIssuer:
    """A key whose issuer the policy lists: it can sign whatever is to be tried.

    Args:
        issuer: the claim `iss`, as the policy has it.
        audience: the claim `aud`, likewise.
        subject: the claim `sub` of the probe's user.
        claims: further ones, such as the one that names the tenant.
        key: a private key in PEM, or the shared secret of HS256.
        key_id: the header `kid`, for issuers with a key set.
    """

    issuer: str
    audience: str
    subject: str
    claims: Mapping[str, Any]
    key: "SigningKey" = field(repr=False)
    key_id: str | None = None

    def user(self) -> str:
        return self._signed(self.like_user())

    def other_user(self) -> str:
        return self._signed(self._claims(f"{self.subject}-other", TOKEN_SECONDS))

    def expired(self) -> str:
        return self._signed(self._claims(self.subject, -EXPIRED_SECONDS))

    def like_user(self) -> Mapping[str, Any]:
        return self._claims(self.subject, TOKEN_SECONDS)

    def _claims(self, subject: str, seconds: int) -> dict[str, Any]:
        return {**self.claims, "iss": self.issuer, **_registered(subject, self.audience, seconds)}

    def _signed(self, claims: Mapping[str, Any]) -> str:
        headers = None if self.key_id is None else {"kid": self.key_id}
        return jwt.encode(dict(claims), self.key.key, self.key.algorithm, headers=headers)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key, and the algorithm that goes with it."""

    key: Any = field(repr=False)
    algorithm: str

    @classmethod
    def read(cls, content: bytes) -> "SigningKey":
        """A private key in PEM, or anything else as a shared secret.

        Raises:
            UnusableCredential: it is neither.
        """
        content = content.strip()
        if not content.startswith(b"-----BEGIN"):
            if len(content) < MIN_SECRET_BYTES:
                raise UnusableCredential(f"a shared secret has {MIN_SECRET_BYTES} bytes or more (RFC 7518)")
            return cls(content, "HS256")
        try:
            key = load_pem_private_key(content, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise UnusableCredential("no private key in PEM that can be read without a password") from None
        if isinstance(key, RSAPrivateKey):
            return cls(key, "RS256")
        if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
            return cls(key, "ES256")
        if isinstance(key, Ed25519PrivateKey):
            return cls(key, "EdDSA")
        raise UnusableCredential("a private key is needed that is RSA, P-256 or Ed25519")


def of_nobodys_issuer(claims: Mapping[str, Any]) -> str:
    """The same claims by an issuer that no policy lists."""
    issuer = f"urn:switchboard:probe:{secrets.token_hex(8)}"
    return jwt.encode({**claims, "iss": issuer}, secrets.token_bytes(MIN_SECRET_BYTES), "HS256")


def forged(token: str) -> str:
    """The same token with another signature of the same length."""
    signed, _, signature = token.rpartition(".")
    size = len(signature) * 3 // 4
    return f"{signed}.{urlsafe_b64encode(secrets.token_bytes(size)).decode().rstrip('=')}"


def _registered(subject: str, audience: str, seconds: int) -> dict[str, Any]:
    """The claims of RFC 7519, expiring in so many seconds."""
    end = int(time.time()) + seconds
    begin = end - abs(seconds) - BEHIND_SECONDS
    return {"sub": subject, "aud": audience, "iat": begin, "exp": end}


def _claims_of(token: str) -> Mapping[str, Any]:
    try:
        claims: Mapping[str, Any] = jwt.decode(token, options=NOT_CHECKED)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise UnusableCredential("a token is no JWT") from None
    return claims
