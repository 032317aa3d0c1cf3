"""Requests of the probe, and what comes back, bounded in size. Bounds of time are the caller's."""

import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeGuard

import httpx
import orjson

from switchboard import __version__

MAX_BYTES = 256 * 1024  # of an answer: an SDP answer is a few kilobytes
MAX_SAID = 200  # characters of what a library says of a failure
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_CODE = re.compile(r"[a-z_]{1,40}")


def is_call_id(text: object) -> TypeGuard[str]:
    """Whether this can be the id of a call, so that nothing else gets into a path or onto a terminal."""
    return isinstance(text, str) and _ID.fullmatch(text) is not None


class Unanswered(Exception):
    """There was no whole answer; the message says why.

    Args:
        why: in words.
        sent: whether the request may have arrived all the same.
    """

    def __init__(self, why: str, *, sent: bool) -> None:
        self.sent = sent
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class Ask:
    """A request. `offer` is SDP; `origin` is what a browser would send of its page."""

    method: str
    path: str
    bearer: str | None = field(default=None, repr=False)
    origin: str | None = None
    offer: bytes | None = field(default=None, repr=False)
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Only what cannot hold a credential is ever shown: see `__str__`."""

    status: int
    request_id: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def content(self) -> Mapping[str, Any]:
        """The JSON object in it; empty if there is none."""
        try:
            parsed = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return {}
        return parsed if isinstance(parsed, dict) else {}

    @property
    def code(self) -> str | None:
        """Of a refusal."""
        code = self.content.get("code") if self.status >= 400 else None
        return code if isinstance(code, str) and _CODE.fullmatch(code) else None

    @property
    def call_id(self) -> str | None:
        """Of the call that was opened."""
        last = self.headers.get("location", "").rpartition("/")[2]
        return last if is_call_id(last) else None

    def __str__(self) -> str:
        return f"{self.status} {self.code}" if self.code else f"{self.status}"


class Service:
    """The service that is probed.

    Args:
        url: of its public port; it may have a path.
        client: sends each request once, and follows no redirect.
    """

    def __init__(self, url: str, client: httpx.AsyncClient) -> None:
        self._url = url.rstrip("/")
        self._client = client
        self._run = secrets.token_hex(4)
        self._numbers = count(1)

    def next_id(self, step: str) -> str:
        """The id that a request of a step is to have, in the service's log and audit as well."""
        return f"probe-{self._run}-{step}-{next(self._numbers)}"

    async def ask(self, ask: Ask, request_id: str) -> Answer:
        """The answer to one request.

        Raises:
            Unanswered: there is none.
        """
        headers = {"x-request-id": request_id, "user-agent": f"switchboard-probe/{__version__}"}
        if ask.bearer is not None:
            headers["authorization"] = f"Bearer {ask.bearer}"
        if ask.origin is not None:
            headers["origin"] = ask.origin
        if ask.offer is not None:
            headers["content-type"] = "application/sdp"
        url = self._url + ask.path
        try:
            async with self._client.stream(
                ask.method, url, params=dict(ask.query), headers=headers, content=ask.offer
            ) as response:
                body = await _bounded(response)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.InvalidURL) as error:
            raise Unanswered(f"cannot be reached ({_printable(error)})", sent=False) from None
        except httpx.HTTPError as error:
            raise Unanswered(f"broke off ({type(error).__name__})", sent=True) from None
        given = response.headers.get("x-request-id", "")
        # A proxy may have given it another one: then that is what the log knows.
        its_own = given if _REQUEST_ID.fullmatch(given) else request_id
        return Answer(response.status_code, its_own, response.headers, body)


@asynccontextmanager
async def service_at(url: str) -> AsyncIterator[Service]:
    """The service behind a URL. Tokens go there and nowhere else: no redirect is followed, no proxy used."""
    # A transport of its own takes SSL_CERT_FILE from the environment, and nothing else.
    transport = httpx.AsyncHTTPTransport()
    async with httpx.AsyncClient(transport=transport, trust_env=False, timeout=None) as client:  # noqa: S113 - bounded by steps
        yield Service(url, client)


async def _bounded(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_BYTES:
            raise Unanswered(f"answered more than {MAX_BYTES} bytes", sent=True)
    return bytes(body)


def _printable(error: Exception) -> str:
    return "".join(char for char in str(error) if char.isprintable())[:MAX_SAID]
