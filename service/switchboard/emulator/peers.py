"""The far end of calls: one aiortc peer connection each, with a voice, ears and the data channel."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Final

import orjson
from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from aiortc.exceptions import InvalidAccessError, InvalidStateError, OperationError
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from switchboard.emulator.chime import Chime, chime_frames
from switchboard.emulator.dialogue import Dialogue
from switchboard.emulator.echo import LIFETIME_SECONDS
from switchboard.emulator.offers import has_data_channel
from switchboard.emulator.speech import Event
from switchboard.emulator.state import Call, Emulator

CHANNEL: Final = "oai-events"
FAREWELL_SECONDS: Final = 0.1  # for the last event to arrive before the connection goes
# All that the browser hears of a call that was opened with Azure's `webrtcfilter=on`.
NARROWED: Final = frozenset(
    {
        "conversation.item.added",
        "conversation.item.created",
        "conversation.item.input_audio_transcription.completed",
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "output_audio_buffer.started",
        "output_audio_buffer.stopped",
        "response.output_audio_transcript.delta",
        "response.output_audio_transcript.done",
        "response.output_text.delta",
        "response.output_text.done",
    }
)
# What aiortc raises for an offer it cannot answer; its SDP parser lets index and key errors through.
_BAD_OFFER: Final = (
    ValueError, IndexError, KeyError, AttributeError, AssertionError,
    InvalidAccessError, InvalidStateError, OperationError,
)  # fmt: skip


class Peers:
    """All peers of one emulator; each ends by hang-up, by going away, or by never having come."""

    def __init__(self, emulator: Emulator) -> None:
        chime_frames()  # made now, so that the first caller does not wait for it
        self._emulator = emulator
        self._peers: dict[str, Peer] = {}

    async def answer(self, offer: str, call: Call, channel_id: int | None) -> str:
        """Opens a peer for the call.

        Raises:
            ValueError: the offer cannot be answered.
        """
        peer = Peer(
            call,
            on_connected=lambda: self._emulator.set_connected(call.id),
            on_ended=lambda: self._emulator.end(call.id),
            on_closed=lambda: self._peers.pop(call.id, None),
        )
        self._peers[call.id] = peer
        try:
            return await peer.answer(offer, channel_id, self._emulator.options.connect_seconds)
        except _BAD_OFFER as error:
            await peer.close()
            raise ValueError("an offer that cannot be answered") from error

    async def close(self, call_id: str) -> None:
        if call_id in self._peers:
            await self._peers[call_id].close()

    async def aclose(self) -> None:
        await asyncio.gather(*(peer.close() for peer in list(self._peers.values())))


class Peer:
    """One peer connection, from its offer to its end; the carrier of its session's events."""

    def __init__(
        self,
        call: Call,
        *,
        on_connected: Callable[[], None],
        on_ended: Callable[[], None],
        on_closed: Callable[[], object],
    ) -> None:
        self._on_connected = on_connected
        self._on_ended = on_ended
        self._on_closed = on_closed
        self._dialogue = Dialogue(call.session, self)
        self._is_narrowed = call.narrowed
        # No STUN: candidates of the host will do, and offline the default server costs 5 s per answer.
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._voice = Chime()
        self._channel: RTCDataChannel | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None

    async def answer(self, offer: str, channel_id: int | None, connect_seconds: float) -> str:
        connection = self._connection
        connection.on("connectionstatechange", self._changed)
        connection.on("track", self._hear)
        connection.on("datachannel", self._attach)
        await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        connection.addTrack(self._voice)
        if channel_id is not None and has_data_channel(offer):
            self._attach(connection.createDataChannel(CHANNEL, negotiated=True, id=channel_id))
        await connection.setLocalDescription(await connection.createAnswer())
        self._start(self._watch(connect_seconds))
        return connection.localDescription.sdp

    async def close(self) -> None:
        """Ends the call; whoever asks waits for the one closing, so that no socket outlives it."""
        if self._closing is None:
            self._on_ended()
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._dialogue.close()
        self._voice.stop()
        await self._connection.close()
        self._on_closed()

    async def _say_goodbye(self) -> None:
        await asyncio.sleep(FAREWELL_SECONDS)
        await self.close()

    async def _watch(self, connect_seconds: float) -> None:
        """Ends the call if nobody comes, and when its time is over."""
        await asyncio.sleep(connect_seconds)
        if self._connection.connectionState == "connected":
            await asyncio.sleep(LIFETIME_SECONDS - connect_seconds)
        await self.close()

    async def _changed(self) -> None:
        state = self._connection.connectionState
        if state == "connected":
            self._on_connected()
        elif state in ("failed", "closed"):
            await self.close()

    def _hear(self, track: MediaStreamTrack) -> None:
        self._start(_drain(track))

    def _attach(self, channel: RTCDataChannel) -> None:
        """The first channel is the one for events, whatever its label; later ones are left alone."""
        if self._channel is not None:
            return
        self._channel = channel
        channel.on("message", self._dialogue.receive)
        if channel.readyState == "open":
            self._dialogue.open()
        else:
            channel.on("open", self._dialogue.open)

    def send(self, event: Event) -> None:
        if self._is_narrowed and event["type"] not in NARROWED:
            return
        if self._channel is not None and self._channel.readyState == "open":
            self._channel.send(orjson.dumps(event).decode())

    def ring(self) -> None:
        self._voice.ring()

    def hush(self) -> None:
        self._voice.hush()

    def leave(self) -> None:
        self._start(self._say_goodbye())

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _drain(track: MediaStreamTrack) -> None:
    """Listens, so that what the caller says does not pile up."""
    with contextlib.suppress(MediaStreamError):
        while True:
            await track.recv()
