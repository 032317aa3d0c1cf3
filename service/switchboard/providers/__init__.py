"""Providers: upstreams with three operations: mint a client secret, open a call, hang up."""

from collections.abc import Mapping
from typing import Any, Protocol

from switchboard.values import light_dataclass

__all__ = ["Minted", "Opened", "Provider"]


@light_dataclass(frozen=True, slots=True)
class Minted:
    """A client secret (`ek_…`), what the provider said about it, and where a browser posts its offer with it.

    `expires_at` is in unix seconds.
    """

    value: str
    expires_at: int
    session: Mapping[str, Any]
    calls_url: str
    provider_request_id: str | None


@light_dataclass(frozen=True, slots=True)
class Opened:
    """A call that the provider has opened: its id, its SDP answer, and the name of the key it belongs to.

    Without an id it cannot be ended, and nobody learns of its end.
    """

    call_id: str | None
    answer: bytes
    key_name: str
    provider_request_id: str | None


class Provider(Protocol):
    """One upstream account.

    Failure policy: each method raises `ProviderRefused`, `ProviderUnavailable`, `ProviderTimeout` or `ProviderBusy`;
    none of them carries a text, key or id of the provider's towards the caller. With all its tries a method takes no
    longer than the time that the account was given.
    """

    def has_key(self, name: str) -> bool:
        """Whether calls that were opened with the key of this name can be ended."""

    def check_available(self) -> None:
        """Whether it makes sense to ask, as far as is known; waits for nothing, and charges nobody.

        Raises:
            ProviderBusy: the provider is down.
            ProviderUnavailable: it takes none of the keys.
        """

    async def mint(
        self, session: Mapping[str, Any], *, seconds: int, safety_identifier: str, request_id: str
    ) -> Minted:
        """A client secret for a session, valid for so many seconds."""

    async def open_call(
        self,
        offer: bytes,
        session: Mapping[str, Any],
        *,
        safety_identifier: str,
        dcid: int | None,
        hide_instructions: bool,
        request_id: str,
    ) -> Opened:
        """Start a call with a browser's SDP offer, which travels byte for byte, once.

        Args:
            offer: the browser's.
            session: what the call is to be.
            safety_identifier: stands for the user, at most 64 characters.
            dcid: the id of a data channel that both sides take for granted.
            hide_instructions: keep the session from the browser; only where the provider can.
            request_id: ours, for its log.

        Raises:
            InvalidOffer: the provider could not use the offer.
            ProviderError: any other reason; if a call came of it all the same, it carries `call_id` and `key_name`, and
                whoever asked has to hang up.
        """

    async def hang_up(self, call_id: str, *, key_name: str, request_id: str) -> bool:
        """End a call with the key that opened it. False if the provider says that it was over already."""
