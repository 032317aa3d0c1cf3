"""Tokens that were verified before: a browser sends the same one several times, and its signature stays right."""

from collections import OrderedDict
from hashlib import sha256

from switchboard.identity import Principal
from switchboard.identity.keys import KeySource, VerificationKey
from switchboard.values import light_dataclass

MAX_TOKENS = 4096  # some kilobytes each, claims included


@light_dataclass(frozen=True, slots=True)
class Known:
    """What verifying a token has shown, and for how long it holds: unix seconds, the issuer's leeway included."""

    principal: Principal
    keys: KeySource
    kid: str | None
    algorithm: str
    key: VerificationKey
    begins: float
    ends: float

    async def holds(self, now: float) -> bool:
        """Whether verifying it again would show the same: it is its time, and its issuer still has this very key.

        Raises:
            InvalidToken, Degraded: the issuer has no such key any more, or its keys cannot be had.
        """
        return self.begins <= now < self.ends and await self.keys.key_for(self.kid, self.algorithm) is self.key


class KnownTokens:
    """Successes only, by the token's SHA-256, so that no token stays in memory; those used last, so that it is bounded.

    Args:
        most: how many.
    """

    def __init__(self, most: int = MAX_TOKENS) -> None:
        self._most = most
        self._known: OrderedDict[bytes, Known] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def get(self, token: str) -> Known | None:
        """What is known of a token."""
        digest = _digest(token)
        known = self._known.get(digest)
        if known is not None:
            self._known.move_to_end(digest)
        return known

    def put(self, token: str, known: Known) -> None:
        """Remember it; the one that was not used for longest makes room."""
        self._known[_digest(token)] = known
        if len(self._known) > self._most:
            self._known.popitem(last=False)


def _digest(token: str) -> bytes:
    return sha256(token.encode(errors="surrogatepass")).digest()
