"""The requests of a page as Chromium sent them, preflights included, which Playwright does not show."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Page

SETTLE_MS = 5000


@dataclass
class Exchange:
    """A request and, once it is here, the head of its answer. Names of headers are in lower case."""

    method: str
    path: str
    asked: Mapping[str, str]
    status: int = 0
    answered: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_preflight(self) -> bool:
        return "access-control-request-method" in self.asked


class Wire:
    """What went to one origin and came back."""

    def __init__(self, page: Page, origin: str) -> None:
        self._page = page
        self._origin = origin
        self._exchanges: dict[str, Exchange] = {}
        self._early: dict[str, tuple[int, Mapping[str, str]]] = {}
        session = page.context.new_cdp_session(page)
        session.on("Network.requestWillBeSent", self._sent)
        session.on("Network.responseReceivedExtraInfo", self._came)
        session.send("Network.enable")

    @property
    def preflights(self) -> list[Exchange]:
        return [exchange for exchange in self._all() if exchange.is_preflight]

    @property
    def requests(self) -> list[Exchange]:
        """In their order; all but preflights."""
        return [exchange for exchange in self._all() if not exchange.is_preflight]

    def _all(self) -> list[Exchange]:
        """Every exchange, once each has its answer: the events of one request come in no certain order."""
        for _ in range(0, SETTLE_MS, 20):
            if all(exchange.status for exchange in self._exchanges.values()):
                return list(self._exchanges.values())
            self._page.wait_for_timeout(20)
        raise AssertionError(f"without an answer: {[one for one in self._exchanges.values() if not one.status]}")

    def _sent(self, event: Mapping[str, Any]) -> None:
        request = event["request"]
        if not request["url"].startswith(self._origin):
            return
        exchange = Exchange(request["method"], urlsplit(request["url"]).path, _lower(request["headers"]))
        self._exchanges[event["requestId"]] = exchange
        if early := self._early.pop(event["requestId"], None):
            exchange.status, exchange.answered = early

    def _came(self, event: Mapping[str, Any]) -> None:
        head = event["statusCode"], _lower(event["headers"])
        if exchange := self._exchanges.get(event["requestId"]):
            exchange.status, exchange.answered = head
        else:
            self._early[event["requestId"]] = head


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
