"""Who is asking: a verified end user, and the ways to find out."""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from switchboard.values import light_dataclass

__all__ = ["MISSING", "Principal", "UserKeys", "claim_at"]

MISSING: Any = object()


@light_dataclass(frozen=True, slots=True)
class Principal:
    """A verified end user. The subject never leaves the process; `UserKeys` makes what may."""

    issuer: str
    subject: str
    tenant: str
    claims: Mapping[str, Any]


def claim_at(claims: Mapping[str, Any], path: str) -> Any:
    """The claim at a dotted path, or `MISSING`. A claim whose own name holds the dots wins."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return MISSING
        value = value[name]
    return value


class UserKeys:
    """What stands for a user outside this process: stable, keyed, and not reversible without the secret."""

    def __init__(self, secret: bytes) -> None:
        self._keyed = hmac.new(secret, digestmod=hashlib.sha256)

    def of(self, principal: Principal) -> str:
        """64 hex characters: HMAC-SHA256 over length-prefixed issuer, tenant and subject.

        The length prefixes keep `("a", "bc")` and `("ab", "c")` apart; the same subject at two issuers is two users.
        """
        mac = self._keyed.copy()  # the secret is hashed once, not for each request
        for part in (principal.issuer, principal.tenant, principal.subject):
            encoded = part.encode()
            mac.update(len(encoded).to_bytes(4, "big"))
            mac.update(encoded)
        return mac.hexdigest()
