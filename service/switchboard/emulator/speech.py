"""One response of the emulated model: the events of a turn, in the recorded order."""

import secrets
from collections.abc import Iterator, Mapping
from typing import Any, Final

Event = dict[str, Any]

_WORDS: Final = ("Hello", " from", " the", " emulator", ".", " All", " is", " well", ".")


class Speech:
    """A response that is being said; `events` yields it piece by piece, `cut` ends it early."""

    def __init__(
        self,
        session: Mapping[str, Any],
        conversation_id: str,
        wanted: Mapping[str, Any],
        previous_item_id: str | None,
    ) -> None:
        self.id = _id("resp")
        self._item_id = _id("item")
        self._conversation_id = conversation_id
        self._previous = previous_item_id
        self._session = session
        modalities = wanted.get("output_modalities") or session.get("output_modalities", ["audio"])
        self._spoken: bool = modalities != ["text"]
        self._metadata = wanted.get("metadata")
        self._said = ""

    @property
    def spoken(self) -> bool:
        return self._spoken

    def events(self) -> Iterator[Event]:
        yield self._event("response.created", response=self._response("in_progress"))
        yield self._event("response.output_item.added", **self._at_output(), item=self._item("in_progress", []))
        added = self._item("in_progress", [])
        yield self._event("conversation.item.added", previous_item_id=self._previous, item=added)
        yield self._event("response.content_part.added", **self._at_part(), part=self._part())
        if self._spoken:
            yield self._event("output_audio_buffer.started", response_id=self.id)
        for word in _WORDS:
            self._said += word
            yield self._event(f"{self._stream}.delta", **self._at_part(), delta=word)
        yield from self._closing("completed")

    def cut(self) -> Iterator[Event]:
        """The end of a response that the client cancelled."""
        yield from self._closing("cancelled")

    def item(self) -> Event:
        return self._item("completed", [self._content()])

    @property
    def _stream(self) -> str:
        return "response.output_audio_transcript" if self._spoken else "response.output_text"

    def _closing(self, status: str) -> Iterator[Event]:
        item = self._item("completed" if status == "completed" else "incomplete", [self._content()])
        text = {"transcript" if self._spoken else "text": self._said}
        if self._spoken:
            yield self._event("response.output_audio.done", **self._at_part())
        yield self._event(f"{self._stream}.done", **self._at_part(), **text)
        yield self._event("response.content_part.done", **self._at_part(), part=self._part())
        yield self._event("conversation.item.done", previous_item_id=self._previous, item=item)
        yield self._event("response.output_item.done", **self._at_output(), item=item)
        yield self._event("response.done", response=self._response(status, item))
        if self._spoken:
            yield self._event("output_audio_buffer.stopped", response_id=self.id)
        limit = {"name": "tokens", "limit": 15_000_000, "remaining": 14_999_000, "reset_seconds": 0.004}
        yield self._event("rate_limits.updated", rate_limits=[limit])

    def _response(self, status: str, item: Event | None = None) -> Event:
        cancelled = {"type": "cancelled", "reason": "client_cancelled"}
        output = self._session.get("audio", {}).get("output")
        return {
            "object": "realtime.response",
            "id": self.id,
            "status": status,
            "status_details": cancelled if status == "cancelled" else None,
            "output": [] if item is None else [item],
            "conversation_id": self._conversation_id,
            "output_modalities": ["audio"] if self._spoken else ["text"],
            "max_output_tokens": self._session.get("max_output_tokens", "inf"),
            "audio": {"output": output},
            "usage": None if item is None else self._usage(),
            "metadata": self._metadata,
        }

    def _usage(self) -> Event:
        """Made-up numbers that add up, every member present."""
        text = len(self._said.split())
        audio = 4 * text if self._spoken else 0
        details = {"text_tokens": 64, "audio_tokens": 32, "image_tokens": 0, "cached_tokens": 64}
        cached = {"text_tokens": 64, "audio_tokens": 0, "image_tokens": 0}
        return {
            "total_tokens": 96 + text + audio,
            "input_tokens": 96,
            "output_tokens": text + audio,
            "input_token_details": {**details, "cached_tokens_details": cached},
            "output_token_details": {"text_tokens": text, "audio_tokens": audio},
        }

    def _item(self, status: str, content: list[Event]) -> Event:
        item = {"id": self._item_id, "type": "message", "status": status, "role": "assistant"}
        return {**item, "content": content}

    def _content(self) -> Event:
        if self._spoken:
            return {"type": "output_audio", "transcript": self._said}
        return {"type": "output_text", "text": self._said}

    def _part(self) -> Event:
        if self._spoken:
            return {"type": "audio", "transcript": self._said}
        return {"type": "text", "text": self._said}

    def _at_output(self) -> Event:
        return {"response_id": self.id, "output_index": 0}

    def _at_part(self) -> Event:
        return {**self._at_output(), "item_id": self._item_id, "content_index": 0}

    def _event(self, kind: str, **members: Any) -> Event:
        return {"type": kind, "event_id": _id("event"), **members}


def _id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(11)}"
