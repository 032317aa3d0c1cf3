"""The emulator's voice: a soft chime of four notes when a call starts and whenever a response does."""

import asyncio
import math
import time
from array import array
from fractions import Fraction
from functools import cache
from typing import Final

from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame

RATE: Final = 48_000
FRAME_SAMPLES: Final = 960  # 20 ms, what Opus sends in one packet
NOTES: Final = (523.25, 659.25, 783.99, 1046.5)  # C5 E5 G5 C6
NOTE_SECONDS: Final = 0.7
SECONDS: Final = 4.0
LOUDNESS: Final = 0.2  # of full scale for one note: pleasant, and far above silence


@cache
def chime_frames() -> tuple[bytes, ...]:
    """The whole chime as 20 ms frames of 16-bit samples; the same for every call, so made once."""
    samples = [0.0] * int(RATE * SECONDS)
    for index, note in enumerate(NOTES):
        start = int(index * NOTE_SECONDS * RATE)
        for n in range(start, len(samples)):
            t = (n - start) / RATE
            # 10 ms of rise avoid a click; the fall is that of a bell.
            level = LOUDNESS * min(1.0, t / 0.01) * math.exp(-2.0 * t)
            samples[n] += level * math.sin(2 * math.pi * note * t)
    pcm = array("h", (int(32767 * max(-1.0, min(1.0, sample))) for sample in samples)).tobytes()
    size = FRAME_SAMPLES * 2
    return tuple(pcm[at : at + size] for at in range(0, len(pcm) - size + 1, size))


class Chime(MediaStreamTrack):
    """An audio track that chimes from its first frame on and again when asked; silent otherwise."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._frames = chime_frames()
        self._next = 0
        self._sent = 0
        self._started: float | None = None

    def ring(self) -> None:
        self._next = 0

    def hush(self) -> None:
        self._next = len(self._frames)

    async def recv(self) -> AudioFrame:
        """The next 20 ms, at the pace at which they are heard."""
        if self.readyState != "live":
            raise MediaStreamError
        if self._started is None:
            self._started = time.monotonic()
        due = self._started + self._sent * FRAME_SAMPLES / RATE
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        frame = AudioFrame(format="s16", layout="mono", samples=FRAME_SAMPLES)
        frame.planes[0].update(self._sound())
        frame.sample_rate = RATE
        frame.pts = self._sent * FRAME_SAMPLES
        frame.time_base = Fraction(1, RATE)
        self._sent += 1
        return frame

    def _sound(self) -> bytes:
        if self._next >= len(self._frames):
            return bytes(FRAME_SAMPLES * 2)
        self._next += 1
        return self._frames[self._next - 1]
