"""From an unverified token to a principal: JWT by RFC 7519, with the advice of RFC 8725."""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import jwt
from jwt.types import Options
from jwt.utils import base64url_decode

from switchboard.errors import ExpiredToken, InvalidToken, UnknownIssuer, UnknownTenant
from switchboard.identity import Principal, claim_at
from switchboard.identity.keys import KeySource
from switchboard.identity.known import Known, KnownTokens

MAX_TOKEN_BYTES = 8 * 1024  # larger than any sane access token, small enough to parse on the loop
MAX_SUBJECT_BYTES = 255  # OpenID Connect Core, section 2
REQUIRED_CLAIMS = ["iss", "sub", "aud", "exp"]


@dataclass(frozen=True, slots=True)
class TenantRule:
    """How a token of an issuer leads to a tenant: a fixed one, or a claim within what the issuer may speak for."""

    fixed: str | None = None
    claim: str | None = None
    allowed: frozenset[str] | None = frozenset()
    """None means any tenant, which an operator has to write out."""

    def tenant_of(self, claims: Mapping[str, Any]) -> str:
        """The tenant's name.

        Raises:
            UnknownTenant: the claim is missing, no text, or names a tenant beyond this issuer's reach.
        """
        if self.fixed is not None:
            return self.fixed
        name = claim_at(claims, self.claim or "")
        # A lone surrogate is a string, and no text that could be written down anywhere.
        if not isinstance(name, str) or not name.isprintable():
            raise UnknownTenant
        if self.allowed is not None and name not in self.allowed:
            raise UnknownTenant
        return name


@dataclass(frozen=True, slots=True)
class Issuer:
    """One issuer whose tokens are accepted.

    `leeway` and `max_lifetime` are seconds: how far clocks may differ, and how long a token may live at most.
    """

    name: str
    audience: str
    algorithms: tuple[str, ...]
    keys: KeySource
    tenant: TenantRule
    leeway: int = 30
    max_lifetime: int = 24 * 3600


class Verifier:
    """Checks tokens of the configured issuers.

    What it has verified it remembers; so there is a new verifier for each configuration.
    """

    def __init__(self, issuers: Mapping[str, Issuer], *, clock: Callable[[], float] = time.time) -> None:
        self._issuers = issuers
        self._clock = clock
        self._known = KnownTokens()

    async def verify(self, unverified_token: str) -> Principal:
        """The user that a token speaks for.

        Raises:
            InvalidToken, ExpiredToken, UnknownIssuer, UnknownTenant: why not.
            Degraded: the issuer's keys cannot be had.
        """
        known = self._known.get(unverified_token)
        if known is None or not await known.holds(self._clock()):
            known = await self._verify(unverified_token)
            self._known.put(unverified_token, known)
        return known.principal

    async def _verify(self, unverified_token: str) -> Known:
        header, unverified_claims = _read(unverified_token)
        issuer = self._issuer_of(unverified_claims)
        algorithm = header.get("alg")
        if algorithm not in issuer.algorithms:
            raise InvalidToken("The token's `alg` is not one that its issuer uses here.")
        kid = header["kid"] if isinstance(header.get("kid"), str) else None
        key = await issuer.keys.key_for(kid, algorithm)
        claims = _verified(unverified_token, key, algorithm, issuer)
        self._check_lifetime(claims, issuer)
        principal = Principal(
            issuer=issuer.name,
            subject=_subject(claims),
            tenant=issuer.tenant.tenant_of(claims),
            claims=claims,
        )
        begins = max((int(claims[name]) for name in ("nbf", "iat") if name in claims), default=-math.inf)
        return Known(
            principal,
            issuer.keys,
            kid,
            algorithm,
            key,
            begins=begins - issuer.leeway,
            ends=int(claims["exp"]) + issuer.leeway,
        )

    def _issuer_of(self, unverified_claims: Mapping[str, Any]) -> Issuer:
        name = unverified_claims.get("iss")
        if not isinstance(name, str):
            raise InvalidToken("The token needs the claim `iss`, a string.")
        issuer = self._issuers.get(name)
        if issuer is None:
            raise UnknownIssuer
        return issuer

    def _check_lifetime(self, claims: Mapping[str, Any], issuer: Issuer) -> None:
        begin, end = claims.get("iat", self._clock()), claims["exp"]
        if not (isinstance(begin, int | float) and isinstance(end, int | float)):
            raise InvalidToken("The token's `exp` and `iat` have to be numbers: seconds since 1970 (RFC 7519).")
        # The sum is on this side: whole numbers of JSON have no bound, and one of them minus a float overflows.
        if end > min(begin, self._clock()) + issuer.max_lifetime + issuer.leeway:
            raise InvalidToken(f"The token lives longer than the {issuer.max_lifetime} seconds that are accepted.")


def _read(unverified_token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    if len(unverified_token) > MAX_TOKEN_BYTES:
        raise InvalidToken(f"The token is larger than {MAX_TOKEN_BYTES} bytes.")
    try:
        # What is needed to find the key, and no more: PyJWT reads it all anew, and strictly, when it verifies.
        header, claims = (json.loads(base64url_decode(part)) for part in unverified_token.split(".")[:2])
    except (ValueError, RecursionError):  # no two parts, no base64, no UTF-8, no JSON; or nested too deeply
        header = claims = None
    if not (isinstance(header, dict) and isinstance(claims, dict)):
        raise InvalidToken("The token is not a signed JWT.")
    return header, claims


def _verified(unverified_token: str, key: Any, algorithm: str, issuer: Issuer) -> Mapping[str, Any]:
    """The claims. Every option is spelled out even where it is the default, so that the intended checks stand here."""
    options: Options = {
        "require": REQUIRED_CLAIMS,
        "verify_signature": True,
        "verify_exp": True,
        "verify_nbf": True,
        "verify_iat": True,
        "verify_aud": True,
        "verify_iss": True,
        "verify_sub": True,
        "enforce_minimum_key_length": True,
        "strict_aud": False,  # `aud` may be a list, as RFC 7519 allows; ours has to be in it
    }
    try:
        return jwt.decode(
            unverified_token,
            key,
            algorithms=[algorithm],
            audience=issuer.audience,
            issuer=issuer.name,
            leeway=issuer.leeway,
            options=options,
        )
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
        _refuse(error)


def _refuse(error: Exception) -> NoReturn:
    """PyJWT's verdict in our words: its own texts may quote the token."""
    match error:
        case jwt.ExpiredSignatureError():
            raise ExpiredToken from None
        case jwt.ImmatureSignatureError():
            raise InvalidToken("The token is not valid yet (`nbf` or `iat` lies ahead).") from None
        case jwt.InvalidAudienceError():
            raise InvalidToken("The token's `aud` does not name this service.") from None
        case jwt.MissingRequiredClaimError():
            raise InvalidToken("The token needs the claims `iss`, `sub`, `aud` and `exp`.") from None
        case jwt.InvalidSignatureError():
            raise InvalidToken("The token's signature does not verify.") from None
        case _:
            raise InvalidToken("The token is not acceptable.") from None


def _subject(claims: Mapping[str, Any]) -> str:
    subject = claims["sub"]
    try:
        size = len(subject.encode()) if isinstance(subject, str) else 0
    except UnicodeEncodeError:  # a lone surrogate: JSON can write it, Unicode has no such text
        size = 0
    if not 0 < size <= MAX_SUBJECT_BYTES:
        raise InvalidToken(f"The token's `sub` has to be a text of 1 to {MAX_SUBJECT_BYTES} bytes.")
    return str(subject)
