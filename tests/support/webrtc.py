"""A browser's side of a call, by aiortc: sound both ways, and the data channel."""

import asyncio
import json
from contextlib import asynccontextmanager
from typing import Any

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, MediaStreamTrack
from av import AudioFrame

SECONDS = 5  # far more than loopback needs; a test that hangs fails instead


class Caller:
    """A browser's side of a call."""

    def __init__(self, channel_id=None):
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.connection.addTrack(AudioStreamTrack())
        negotiated = {} if channel_id is None else {"negotiated": True, "id": channel_id}
        self.channel = self.connection.createDataChannel("oai-events", **negotiated)
        self.tracks: list[MediaStreamTrack] = []
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._is_open = asyncio.Event()
        self.connection.on("track", self.tracks.append)
        self.channel.on("open", self._is_open.set)
        self.channel.on("message", lambda message: self.events.put_nowait(json.loads(message)))

    async def offer(self):
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return self.connection.localDescription.sdp

    async def accept(self, answer):
        await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    async def opened(self):
        """Wait for the data channel."""
        await asyncio.wait_for(self._is_open.wait(), SECONDS)

    def tell(self, **event):
        self.channel.send(json.dumps(event))

    async def hear(self, kind):
        """The next event of this kind, and the kinds that came before it."""
        kinds: list[str] = []
        while True:
            event = await asyncio.wait_for(self.events.get(), SECONDS)
            if event["type"] == kind:
                return event, kinds
            kinds.append(event["type"])

    async def loudness(self, frames=50):
        """The loudest sample of the next frames, of 32,767."""
        peak = 0
        for _ in range(frames):
            frame = await asyncio.wait_for(self.tracks[0].recv(), SECONDS)
            assert isinstance(frame, AudioFrame)
            peak = max(peak, *memoryview(bytes(frame.planes[0])).cast("h"))
        return peak


@asynccontextmanager
async def calling(channel_id=None):
    caller = Caller(channel_id)
    try:
        yield caller
    finally:
        await caller.connection.close()
