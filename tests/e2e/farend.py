"""A peer connection of ours for clients that bring none: it offers, takes the answer, listens and reads events."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiortc import AudioStreamTrack, MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from av import AudioFrame

PATIENCE_SECONDS = 10
LOUD = 300  # of 32767: far from silence, far below the emulator's chime


class FarEnd:
    """The connection; `event` waits for what it was told, `heard` for a sound."""

    def __init__(self, peer: RTCPeerConnection) -> None:
        self.peer = peer
        self.events: list[dict[str, Any]] = []
        self._news = asyncio.Event()

    def told(self, message: str) -> None:
        """Something came through the data channel."""
        self.events.append(json.loads(message))
        self._news.set()

    async def offer(self) -> str:
        self.peer.addTrack(AudioStreamTrack())  # silence, which is enough for a microphone
        self.peer.createDataChannel("oai-events").on("message", self.told)
        await self.peer.setLocalDescription(await self.peer.createOffer())
        return str(self.peer.localDescription.sdp)

    async def connect(self, answer: str) -> None:
        await self.peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        await self.event("session.created")
        assert self.peer.connectionState == "connected"

    async def event(self, kind: str) -> dict[str, Any]:
        """The first event of a kind, as soon as it is there."""

        def look() -> dict[str, Any] | None:
            return next((event for event in self.events if event["type"] == kind), None)

        async with asyncio.timeout(PATIENCE_SECONDS):
            while (found := look()) is None:
                self._news.clear()
                await self._news.wait()
        return found

    async def heard(self) -> None:
        """Waits for a sound from the other side."""
        (receiver,) = self.peer.getReceivers()
        await _until_loud(receiver.track)


async def _until_loud(track: MediaStreamTrack) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            frame = await track.recv()
            assert isinstance(frame, AudioFrame)
            samples = memoryview(bytes(frame.planes[0])).cast("h")
            if max(samples) > LOUD:
                return


@asynccontextmanager
async def far_end(peer: Callable[[], RTCPeerConnection] | None = None) -> AsyncIterator[FarEnd]:
    """One, closed in the end."""
    made = FarEnd(peer() if peer else RTCPeerConnection(RTCConfiguration(iceServers=[])))
    try:
        yield made
    finally:
        await made.peer.close()
