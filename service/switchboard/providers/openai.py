"""OpenAI Realtime: POST /v1/realtime/client_secrets, /v1/realtime/calls and /v1/realtime/calls/{id}/hangup.

Sources: the OpenAI OpenAPI description and openai-python 3.51.0, `resources/realtime/{client_secrets,calls}.py`.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson

from switchboard import __version__
from switchboard.calls import is_call_id
from switchboard.errors import (
    InvalidOffer,
    ProviderBusy,
    ProviderError,
    ProviderRefused,
    ProviderTimeout,
    ProviderUnavailable,
)
from switchboard.providers import Minted, Opened
from switchboard.providers.transport import Part, Reply, TimedOut, Transport, TransportError, Unreachable
from switchboard.sdp import MAX_BYTES, MEDIA_TYPE, looks_like_answer
from switchboard.sessions import is_known

MAX_JSON_BYTES = 512 * 1024  # a session with many tools, echoed
MAX_SECRET_LENGTH = 4096
HANGUP_SECONDS = 5.0
MAX_RETRY_AFTER = 3600


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """A standard key. Its name (`env:OPENAI_API_KEY`) may be written down; its value goes to the provider only."""

    name: str
    value: str

    def __repr__(self) -> str:
        return f"ProviderKey({self.name})"


class OpenAI:
    """The three operations at OpenAI, or at anything that speaks like it.

    Args:
        base_url: ends in `/v1`.
        keys: standard keys of one project; the first one opens calls.
        transport: posts, bounded.
        timeout: seconds for one whole answer.
    """

    def __init__(self, *, base_url: str, keys: Sequence[ProviderKey], transport: Transport, timeout: float) -> None:
        self._base_url = base_url.rstrip("/")
        self._keys = keys
        self._transport = transport
        self._timeout = timeout

    @property
    def calls_url(self) -> str:
        """See `Provider.calls_url`."""
        return f"{self._base_url}/realtime/calls"

    async def mint(
        self, session: Mapping[str, Any], *, seconds: int, safety_identifier: str, request_id: str
    ) -> Minted:
        """See `Provider.mint`."""
        body = {"expires_after": {"anchor": "created_at", "seconds": seconds}, "session": session}
        reply = await self._post(
            "/realtime/client_secrets",
            operation="mint",
            key=self._keys[0],
            headers={
                "content-type": "application/json",
                "openai-safety-identifier": safety_identifier,
                "x-client-request-id": request_id,
            },
            body=orjson.dumps(body),
        )
        if reply.status != 200:
            _refuse(reply)
        return _minted(reply)

    async def open_call(
        self, offer: bytes, session: Mapping[str, Any], *, safety_identifier: str, dcid: int | None, request_id: str
    ) -> Opened:
        """See `Provider.open_call`. Always multipart: with a standard key, raw SDP would carry no session.

        A call whose answer is of no use is hung up here, as soon as its id is known.
        """
        key = self._keys[0]
        try:
            reply = await self._send(
                "/realtime/calls" + ("" if dcid is None else f"?dcid={dcid}"),
                operation="call",
                key=key,
                headers={
                    "accept": MEDIA_TYPE,
                    "openai-safety-identifier": safety_identifier,
                    "x-client-request-id": request_id,
                },
                body=(Part("sdp", MEDIA_TYPE, offer), Part("session", "application/json", orjson.dumps(session))),
                max_bytes=MAX_BYTES,
                head_first=True,
            )
        except TransportError as error:
            refusal = _failed(error)
            await self._end_unheard(refusal, error.head, key, request_id)
            raise refusal from None
        if reply.status == 400 and _error_of(reply).get("code") == "invalid_offer":
            raise InvalidOffer("The voice provider cannot use this SDP offer; send the browser's `sdp` unchanged.")
        if not _is_success(reply):
            _refuse(reply)
        call_id = _call_id(reply)
        if call_id is None or not looks_like_answer(reply.body):
            refusal = _with_id(ProviderUnavailable(), reply)
            await self._end_unheard(refusal, reply, key, request_id)
            raise refusal
        return Opened(call_id, reply.body, key.name, _request_id(reply))

    async def hang_up(self, call_id: str, *, key_name: str, request_id: str) -> bool:
        """See `Provider.hang_up`. 404 means over, or opened with another key: `key_name` rules the latter out."""
        key = next((key for key in self._keys if key.name == key_name), self._keys[0])
        reply = await self._post(
            f"/realtime/calls/{call_id}/hangup",
            operation="hangup",
            key=key,
            headers={"x-client-request-id": request_id},
            body=b"",
            timeout=HANGUP_SECONDS,
        )
        if reply.status == 404 and key.name == key_name:
            return False
        if not _is_success(reply):
            _refuse(reply)
        return True

    async def _end_unheard(self, refusal: ProviderError, head: Reply | None, key: ProviderKey, request_id: str) -> None:
        """Hang up a call that exists but whose answer nobody will hear."""
        if head is None:
            return
        refusal.provider_request_id = _request_id(head)
        refusal.call_id = _call_id(head)
        if refusal.call_id is not None and _is_success(head):
            with contextlib.suppress(ProviderError):
                await self.hang_up(refusal.call_id, key_name=key.name, request_id=request_id)

    async def _post(self, path: str, **request: Any) -> Reply:
        try:
            return await self._send(path, **request)
        except TransportError as error:
            raise _failed(error) from None

    async def _send(
        self,
        path: str,
        *,
        operation: str,
        key: ProviderKey,
        headers: Mapping[str, str],
        body: bytes | Sequence[Part],
        timeout: float | None = None,
        max_bytes: int = MAX_JSON_BYTES,
        head_first: bool = False,
    ) -> Reply:
        return await self._transport.post(
            self._base_url + path,
            operation=operation,
            headers={
                **headers,
                "authorization": f"Bearer {key.value}",
                "user-agent": f"switchboard/{__version__}",
            },
            body=body,
            timeout=timeout or self._timeout,
            max_bytes=max_bytes,
            head_first=head_first,
        )


def _failed(error: TransportError) -> ProviderError:
    refusal: ProviderError = ProviderTimeout() if isinstance(error, TimedOut) else ProviderUnavailable()
    refusal.untried = isinstance(error, Unreachable)
    return refusal


def _is_success(reply: Reply) -> bool:
    """201 by its description; SDKs take any success."""
    return 200 <= reply.status < 300


def _call_id(reply: Reply) -> str | None:
    """`Location: /v1/realtime/calls/rtc_…`: the id is opaque, and the last segment."""
    call_id = reply.headers.get("location", "").rpartition("/")[2]
    return call_id if is_call_id(call_id) else None


def _minted(reply: Reply) -> Minted:
    try:
        match orjson.loads(reply.body):
            case {"value": str(value), "expires_at": int(expires_at), "session": dict(session)} if 0 < len(
                value
            ) <= MAX_SECRET_LENGTH and not isinstance(expires_at, bool):
                return Minted(value, expires_at, session, _request_id(reply))
    except orjson.JSONDecodeError:
        pass
    raise _with_id(ProviderUnavailable(), reply)


def _refuse(reply: Reply) -> NoReturn:
    """The provider's "no" in our words; of its own only the path of a field that our schema knows gets through."""
    error = _error_of(reply)
    if reply.status == 429:
        if error.get("code") == "insufficient_quota":
            raise _with_id(ProviderUnavailable(), reply)
        busy = _with_id(ProviderBusy(retry_after=_retry_after(reply)), reply)
        busy.untried = True
        raise busy
    if 400 <= reply.status < 500:
        raise _with_id(ProviderRefused(param=_known_param(error.get("param"))), reply)
    raise _with_id(ProviderUnavailable(), reply)


def _error_of(reply: Reply) -> Mapping[str, Any]:
    try:
        document = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return {}
    error = document.get("error") if isinstance(document, dict) else None
    return error if isinstance(error, dict) else {}


def _known_param(param: object) -> str | None:
    return param if isinstance(param, str) and param.startswith("session.") and is_known(param) else None


def _retry_after(reply: Reply) -> int:
    given = reply.headers.get("retry-after", "")
    return min(int(given), MAX_RETRY_AFTER) if given.isascii() and given.isdigit() and len(given) < 6 else 1


def _request_id(reply: Reply) -> str | None:
    return reply.headers.get("x-request-id")


def _with_id(error: ProviderError, reply: Reply) -> ProviderError:
    error.provider_request_id = _request_id(reply)
    return error
