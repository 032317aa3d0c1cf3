"""How one kind of provider is spoken to. Data, so that the same code asks all of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Route:
    """Where sessions of one type are minted and opened; the paths are below the base URL."""

    mint: str = "/realtime/client_secrets"
    calls: str = "/realtime/calls"
    by_secret: bool = False
    """Whether an offer is taken with a client secret alone, so that one has to be minted first."""
    typed: bool = True
    """Whether the session says its type; else the path does."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs from provider to provider.

    Args:
        routes: by the type of a session.
        key_header: in which a key stands; a client secret is always a bearer.
        key_prefix: what stands before it there.
        hiding: of the query, what has the provider keep instructions and tools from the browser; "": it cannot.
    """

    routes: Mapping[str, Route]
    key_header: str = "authorization"
    key_prefix: str = "Bearer "
    hiding: str = ""


TRANSLATION = Route(
    "/realtime/translations/client_secrets", "/realtime/translations/calls", by_secret=True, typed=False
)

OPENAI = Dialect(
    # The unified call, a standard key and the session beside the offer, takes no other type.
    MappingProxyType({"realtime": Route(), "transcription": Route(by_secret=True), "translation": TRANSLATION})
)
