"""Shows faults on the wire: what comes instead of an answer, and how a true answer is spoilt."""

import asyncio
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from switchboard.emulator.options import Faults
from switchboard.emulator.refusal import Refusal

_CHUNK: Final = b" " * 65536
_PAGE: Final = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
_TOO_MANY: Final = 429
_SERVER: Final = 500

Headers = list[tuple[bytes, bytes]]


class Spoiler:
    """Runs the app under the faults of one request."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        faults = self._faults
        await asyncio.sleep(faults.delay_seconds)
        if faults.reset:
            await _drop(receive, send)
        elif faults.redirect is not None:
            await Response(status_code=307, headers={"location": faults.redirect})(scope, receive, send)
        elif faults.status is not None:
            await _refused(faults, faults.status).response()(scope, receive, send)
        else:
            start, body = await self._answer(scope, receive)
            await self._send(start, body, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[Message, bytes]:
        messages: list[Message] = []

        async def keep(message: Message) -> None:
            messages.append(message)

        await self._app(scope, receive, keep)
        return messages[0], b"".join(message.get("body", b"") for message in messages[1:])

    async def _send(self, start: Message, body: bytes, receive: Receive, send: Send) -> None:
        faults = self._faults
        if faults.half_answer:
            await send(start)
            await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
            await _drop(receive, send)
        elif faults.drip:
            await send(start)
            for byte in body:
                await send({"type": "http.response.body", "body": bytes([byte]), "more_body": True})
                await asyncio.sleep(faults.drip)
            await send({"type": "http.response.body"})
        elif faults.huge:
            await send({**start, "headers": _without(start["headers"], b"content-length")})
            for sent in range(0, faults.huge, len(_CHUNK)):
                piece = _CHUNK[: faults.huge - sent]
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                await asyncio.sleep(0)  # a client that is gone takes everything at once: let others run
            await send({"type": "http.response.body"})
        else:
            await send({**start, "headers": self._headers(start["headers"])})
            await send({"type": "http.response.body", "body": _PAGE if faults.not_json else body})

    def _headers(self, headers: Headers) -> Headers:
        faults = self._faults
        if faults.not_json:
            headers = [*_without(headers, b"content-length"), (b"content-length", str(len(_PAGE)).encode())]
        if faults.wrong_type is not None:
            headers = [*_without(headers, b"content-type"), (b"content-type", faults.wrong_type.encode())]
        return headers


def _refused(faults: Faults, status: int) -> Refusal:
    headers = {} if faults.retry_after is None else {"retry-after": str(faults.retry_after)}
    if status == _TOO_MANY:
        code = faults.code or "rate_limit_exceeded"
        message = "You exceeded your current quota." if code == "insufficient_quota" else "Rate limit reached."
        return Refusal(status, message, code=code, kind=code, headers=headers)
    kind = "server_error" if status >= _SERVER else "invalid_request_error"
    return Refusal(status, "The server had an error.", code=faults.code, kind=kind, headers=headers)


def _without(headers: Headers, name: bytes) -> Headers:
    return [(key, value) for key, value in headers if key.lower() != name]


async def _drop(receive: Receive, send: Send) -> None:
    """Closes the connection; ASGI has no word for that, so the server's own transport is asked.

    Raises:
        ConnectionResetError: no transport, as under httpx's ASGITransport: its client sees this.
    """
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None:
        raise ConnectionResetError("the emulator closed the connection")
    transport.close()
    while (await receive())["type"] != "http.disconnect":
        pass
