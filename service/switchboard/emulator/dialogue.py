"""One conversation over whichever carrier: what comes in is answered, and speech is said piece by piece."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from switchboard.emulator.conversation import conversation_of
from switchboard.emulator.speech import Event, Speech

WORD_SECONDS: Final = 0.03  # between two pieces of a transcript: quick, yet visibly a stream


class Carrier(Protocol):
    """A data channel with its call, or a socket. Nothing here waits."""

    def send(self, event: Event) -> None:
        """One event for the client, if it is still there."""

    def ring(self) -> None:
        """The voice begins."""

    def hush(self) -> None:
        """The voice stops."""

    def leave(self) -> None:
        """It is over, once what was sent has arrived."""


class Dialogue:
    """The provider's side of one session."""

    def __init__(self, session: Mapping[str, Any], carrier: Carrier) -> None:
        self._conversation = conversation_of(session)
        self._carrier = carrier
        self._speech: Speech | None = None
        self._speaking: asyncio.Task[None] | None = None

    def open(self) -> None:
        """The client can hear."""
        self._send([self._conversation.opening()])

    def receive(self, message: str | bytes) -> None:
        """Something came from the client."""
        reply = self._conversation.receive(message)
        self._send(reply.events)
        if reply.silences:
            self._silence()
        if reply.ends:
            self._carrier.leave()
        if reply.speech is not None:
            self._speech = reply.speech
            self._speaking = asyncio.create_task(self._speak(reply.speech))

    def close(self) -> None:
        """The client is gone."""
        if self._speaking is not None:
            self._speaking.cancel()

    async def _speak(self, speech: Speech) -> None:
        if speech.spoken:
            self._carrier.ring()
        for event in speech.events():
            self._send([event])
            if event["type"].endswith(".delta"):
                await asyncio.sleep(WORD_SECONDS)
        self._finish(speech)

    def _silence(self) -> None:
        self._carrier.hush()
        if self._speech is not None and self._speaking is not None:
            self._speaking.cancel()
            self._send(self._speech.cut())
            self._finish(self._speech)

    def _finish(self, speech: Speech) -> None:
        self._conversation.said(speech)
        self._speech = None

    def _send(self, events: Iterable[Event]) -> None:
        for event in events:
            self._carrier.send(event)
