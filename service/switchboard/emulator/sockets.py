"""The provider over WebSocket: `/v1/realtime?model=`, by a standard key or a client secret (upstream page, section 3).

What is refused is refused after the upgrade, by an `error` event and a close code, as the provider does. A response has
its transcript and no sound. There is no sideband: attaching to a call is 404.
"""

import asyncio
import contextlib
from types import MappingProxyType
from typing import Any, Final

import orjson
from starlette.responses import Response
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from switchboard.emulator import documents, refusal
from switchboard.emulator.conversation import new_id
from switchboard.emulator.dialogue import Dialogue
from switchboard.emulator.echo import LIFETIME_SECONDS, Session
from switchboard.emulator.refusal import Refusal
from switchboard.emulator.speech import Event
from switchboard.emulator.state import Emulator, SeenRequest

PROTOCOL: Final = "realtime"
KEY_PROTOCOL: Final = "openai-insecure-api-key."  # what a page has instead of a header
BETA_PROTOCOL: Final = "openai-beta.realtime-v1"
CLOSE_CODES: Final = MappingProxyType({401: 3000, 404: 4004})  # by the status that HTTP has for it; else 4000
MOST_WAITING: Final = 1000  # events for a client that does not read
# Of the voice, which a socket does not have.
UNHEARD: Final = frozenset({"output_audio_buffer.started", "output_audio_buffer.stopped"})


class Sockets:
    """The route over one emulator's memory."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    def routes(self) -> list[WebSocketRoute]:
        return [WebSocketRoute(f"{self._emulator.flavour.prefix}/realtime", self.talk)]

    async def talk(self, socket: WebSocket) -> None:
        url = socket.url
        self._emulator.requests.append(SeenRequest(self._emulator.now, "GET", url.path, url.query, socket.headers, b""))
        if "call_id" in socket.query_params:
            await socket.send_denial_response(Response(status_code=404))
            return
        await socket.accept(PROTOCOL if PROTOCOL in socket.scope["subprotocols"] else None)
        try:
            session = self._session(socket)
        except Refusal as refused:
            await socket.send_text(_text(_error(refused)))
            await socket.close(CLOSE_CODES.get(refused.status, 4000))
            return
        with contextlib.suppress(WebSocketDisconnect):
            await _Line(socket).talk(session)

    def _session(self, socket: WebSocket) -> Session:
        """What the client is let in to."""
        key = _key(socket)
        if key.startswith("ek_"):
            secret = self._emulator.secret(key)
            if secret is None:
                raise refusal.invalid_key(key)
            return self._emulator.session_of(secret)
        emulator = self._emulator
        emulator.flavour.owner_of(socket.headers, emulator.options.keys, emulator.now)
        model = socket.query_params.get("model")
        if not model:
            raise Refusal(400, "You must provide a model parameter.", code="missing_model", param="model")
        asked = documents.checked_session({"type": "realtime", "model": model})
        return self._emulator.session(asked)


class _Line:
    """One client's socket as a carrier."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._waiting: asyncio.Queue[Event | None] = asyncio.Queue(MOST_WAITING)

    async def talk(self, session: Session) -> None:
        """Until one of the two has enough, or the session's time is over."""
        dialogue = Dialogue(session, self)
        dialogue.open()
        hearing = asyncio.create_task(self._hear(dialogue))
        hearing.add_done_callback(lambda _: self.leave())
        try:
            async with asyncio.timeout(LIFETIME_SECONDS):
                await self._say()
        except TimeoutError:
            expired = Refusal(400, "Your session hit the maximum duration of 60 minutes.", code="session_expired")
            await self._socket.send_text(_text(_error(expired)))
        finally:
            dialogue.close()
            hearing.cancel()
        if hearing.done():
            hearing.result()  # a defect of ours, if any
        else:
            await self._socket.close()

    async def _hear(self, dialogue: Dialogue) -> None:
        while (message := await self._socket.receive())["type"] == "websocket.receive":
            dialogue.receive(message.get("text") or message.get("bytes") or b"")

    async def _say(self) -> None:
        while (event := await self._waiting.get()) is not None:
            await self._socket.send_text(_text(event))

    def send(self, event: Event) -> None:
        if event["type"] not in UNHEARD:
            self._put(event)

    def ring(self) -> None:
        """There is no voice."""

    def hush(self) -> None:
        """There is no voice."""

    def leave(self) -> None:
        self._put(None)

    def _put(self, event: Event | None) -> None:
        while self._waiting.full():  # a client that does not read loses what is oldest
            self._waiting.get_nowait()
        self._waiting.put_nowait(event)


def _key(socket: WebSocket) -> str:
    offered: list[str] = socket.scope["subprotocols"]
    if "openai-beta" in socket.headers or BETA_PROTOCOL in offered:
        raise refusal.beta_gone()
    scheme, _, key = socket.headers.get("authorization", "").partition(" ")
    by_protocol = (name.removeprefix(KEY_PROTOCOL) for name in offered if name.startswith(KEY_PROTOCOL))
    return key.strip() if scheme.lower() == "bearer" else next(by_protocol, "")


def _error(refused: Refusal) -> dict[str, Any]:
    return {"type": "error", "event_id": new_id("event"), "error": {**refused.error, "event_id": None}}


def _text(event: Event) -> str:
    return orjson.dumps(event).decode()
