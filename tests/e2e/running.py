"""The running service as the tests of clients use it, however it was started."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import httpx

from tests.support.leaks import LEAKS

Found = TypeVar("Found")


class Running(ABC):
    """Where it listens, what it has said so far, and the requests that a person would send by hand.

    Args:
        name: of the command, for the scan for leaks.
        url: of the public port.
        ops_url: of the ops port.
    """

    def __init__(self, name: str, url: str, ops_url: str) -> None:
        self.url = url
        self.ops_url = ops_url
        self.client = httpx.Client(base_url=url, trust_env=False, timeout=10)
        self._name = name

    @property
    @abstractmethod
    def records(self) -> list[dict[str, Any]]:
        """The audit so far."""

    @property
    @abstractmethod
    def provider_url(self) -> str:
        """The provider of `acme` and `widgets`, without `/v1`."""

    @abstractmethod
    def _issued(self, tenant: str, subject: str, claims: dict[str, str]) -> str:
        """A token from an issuer that the service trusts."""

    def token(self, tenant: str, subject: str, **claims: str) -> str:
        """The user's own token."""
        return LEAKS.plant("user's token", self._issued(tenant, subject, claims))

    def record(self, timeout: float = 5.0, **wanted: Any) -> dict[str, Any]:
        """The first audit record with these values; waits for it, `timeout` seconds at most."""

        def look() -> dict[str, Any] | None:
            fits = (record for record in self.records if wanted.items() <= record.items())
            return next(fits, None)

        return until(look, timeout, f"an audit record with {wanted}")

    def provider_calls(self) -> dict[str, dict[str, Any]]:
        """Every call as the provider knows it, by its id."""
        rows = httpx.get(f"{self.provider_url}/_emulator/calls", trust_env=False).json()["calls"]
        return {row["id"]: row for row in rows}

    def call(self, call_id: str, token: str) -> dict[str, Any]:
        """`GET /sdp/{call_id}` as the user."""
        answer = self.client.get(f"/sdp/{call_id}", headers={"authorization": f"Bearer {token}"})
        LEAKS.saw(f"answer GET /sdp/{call_id}", f"{dict(answer.headers)} {answer.text}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def metrics(self) -> str:
        """What a scraper gets."""
        answer = httpx.get(f"{self.ops_url}/metrics", trust_env=False)
        assert answer.status_code == 200, answer.text
        LEAKS.saw(f"metrics of {self._name}", answer.text)
        return answer.text


def until(look: Callable[[], Found | None], timeout: float, what: str) -> Found:
    """What `look` finds, as soon as it does, `timeout` seconds from now at most."""
    end = time.monotonic() + timeout
    while (found := look()) is None:
        assert time.monotonic() < end, f"no {what} within {timeout} s"
        time.sleep(0.02)
    return found
