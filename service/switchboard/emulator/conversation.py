"""What is said on the `oai-events` data channel: client events in, server events out, no I/O.

Source: upstream page, sections 1 and 3, and recorded sessions (order and members of events).
"""

import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import orjson

from switchboard.emulator.echo import Session, asked, filled, merged
from switchboard.emulator.refusal import wording
from switchboard.emulator.speech import Speech
from switchboard.sessions import Problem, problems

Event = dict[str, Any]

KEPT_ITEMS: Final = 500
# What may be left out of an item's own checks: the emulator keeps items, it does not read them.
_ITEM_TYPES: Final = frozenset({"message", "function_call", "function_call_output", "mcp_approval_response"})


def new_id(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(11)}"


class EventError(Exception):
    """A client event that earns an `error` event."""

    def __init__(self, code: str | None, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


@dataclass(frozen=True, slots=True)
class Reply:
    """What to send at once, and what to say after it."""

    events: tuple[Event, ...] = ()
    speech: Speech | None = None
    silences: bool = False
    """Whatever is being said ends."""
    ends: bool = False
    """The call ends."""


class Conversation:
    """One session's state as the data channel sees it."""

    def __init__(self, session: Mapping[str, Any]) -> None:
        self._session: Session = dict(session)
        self._id = new_id("conv")
        self._items: dict[str, Event] = {}
        self._speech: Speech | None = None
        self._has_audio = False
        self._handlers: Mapping[str, Callable[[Event], Reply]] = MappingProxyType(
            {
                "session.update": self._update,
                "conversation.item.create": self._add_item,
                "conversation.item.delete": self._delete_item,
                "conversation.item.retrieve": self._retrieve_item,
                "conversation.item.truncate": self._truncate_item,
                "response.create": self._respond,
                "response.cancel": self._cancel,
                "input_audio_buffer.append": self._append_audio,
                "input_audio_buffer.commit": self._commit_audio,
                "input_audio_buffer.clear": self._clear_audio,
                "output_audio_buffer.clear": self._clear_output,
            }
        )

    def opening(self) -> Event:
        return _event("session.created", session=self._session)

    def receive(self, message: str | bytes) -> Reply:
        """The answer to one client event; a wrong one earns an `error` event and changes nothing."""
        client_event_id = None
        try:
            event = _parsed(message)
            client_event_id = event.get("event_id")
            return self._handler(event)(event)
        except EventError as error:
            details = {
                "type": "invalid_request_error",
                "code": error.code,
                "message": str(error),
                "param": error.param,
                "event_id": client_event_id,
            }
            return Reply((_event("error", error=details),))

    def said(self, speech: Speech) -> None:
        """Speech has come to its end, or was silenced."""
        if speech is self._speech:
            self._speech = None
        self._keep(speech.item())

    def _handler(self, event: Event) -> Callable[[Event], Reply]:
        kind = event.get("type")
        if kind is None:
            raise EventError("missing_required_parameter", "Missing required parameter: 'type'.", "type")
        if not isinstance(kind, str) or kind not in self._handlers:
            names = ", ".join(f"'{name}'" for name in self._handlers)
            raise EventError("invalid_value", f"Invalid value: '{kind}'. Supported values are: {names}.", "type")
        return self._handlers[kind]

    def _update(self, event: Event) -> Reply:
        update = event.get("session")
        for problem in problems(update):
            message, param = wording(problem, "session")
            raise EventError(problem.code, message, param)
        if not isinstance(update, dict):
            raise TypeError("a session without problems is an object")
        if update["type"] != self._session["type"]:
            right = f"{self._session['type']}, the type it was created with"
            message, param = wording(Problem(("type",), "invalid_value", update["type"], right), "session")
            raise EventError("invalid_value", message, param)
        # The model of a session is fixed; SDKs send it all the same.
        update = {key: value for key, value in update.items() if key != "model"}
        whole = merged(asked(self._session), update)
        self._session = filled(whole, self._session["id"], self._session["expires_at"])
        return Reply((_event("session.updated", session=self._session),))

    def _add_item(self, event: Event) -> Reply:
        item = event.get("item")
        if not isinstance(item, dict):
            raise EventError("missing_required_parameter", "Missing required parameter: 'item'.", "item")
        if item.get("type") not in _ITEM_TYPES:
            raise EventError("invalid_value", f"Invalid value: '{item.get('type')}'.", "item.type")
        return Reply(tuple(self._added({"id": new_id("item"), "status": "completed", **item})))

    def _added(self, item: Event) -> Iterator[Event]:
        previous = next(reversed(self._items), None)
        self._keep(item)
        for kind in ("conversation.item.added", "conversation.item.done"):
            yield _event(kind, previous_item_id=previous, item=item)

    def _delete_item(self, event: Event) -> Reply:
        item = self._item(event)
        del self._items[item["id"]]
        return Reply((_event("conversation.item.deleted", item_id=item["id"]),))

    def _retrieve_item(self, event: Event) -> Reply:
        return Reply((_event("conversation.item.retrieved", item=self._item(event)),))

    def _truncate_item(self, event: Event) -> Reply:
        where = {name: event.get(name, 0) for name in ("content_index", "audio_end_ms")}
        return Reply((_event("conversation.item.truncated", item_id=self._item(event)["id"], **where),))

    def _respond(self, event: Event) -> Reply:
        if self._speech is not None:
            code = "conversation_already_has_active_response"
            raise EventError(code, "Conversation already has an active response in progress.")
        wanted = event.get("response") or {}
        if not isinstance(wanted, dict):
            raise EventError("invalid_type", "Invalid type for 'response': expected an object.", "response")
        previous = next(reversed(self._items), None)
        self._speech = Speech(self._session, self._id, wanted, previous)
        return Reply(speech=self._speech)

    def _cancel(self, event: Event) -> Reply:  # noqa: ARG002
        if self._speech is None:
            raise EventError("response_cancel_not_active", "Cancellation failed: no active response found.")
        return Reply(silences=True)

    def _append_audio(self, event: Event) -> Reply:
        if not isinstance(event.get("audio"), str):
            raise EventError("missing_required_parameter", "Missing required parameter: 'audio'.", "audio")
        self._has_audio = True
        return Reply()

    def _commit_audio(self, event: Event) -> Reply:  # noqa: ARG002
        if not self._has_audio:
            raise EventError("input_audio_buffer_commit_empty", "The input audio buffer is empty.")
        self._has_audio = False
        content = [{"type": "input_audio", "transcript": None}]
        item = {
            "id": new_id("item"),
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": content,
        }
        previous = next(reversed(self._items), None)
        committed = _event("input_audio_buffer.committed", previous_item_id=previous, item_id=item["id"])
        return Reply((committed, *self._added(item)))

    def _clear_audio(self, event: Event) -> Reply:  # noqa: ARG002
        self._has_audio = False
        return Reply((_event("input_audio_buffer.cleared"),))

    def _clear_output(self, event: Event) -> Reply:  # noqa: ARG002
        response_id = None if self._speech is None else self._speech.id
        return Reply((_event("output_audio_buffer.cleared", response_id=response_id),), silences=True)

    def _item(self, event: Event) -> Event:
        item = self._items.get(str(event.get("item_id")))
        if item is None:
            raise EventError("invalid_value", "No item with this item_id exists.", "item_id")
        return item

    def _keep(self, item: Event) -> None:
        self._items[str(item["id"])] = item
        while len(self._items) > KEPT_ITEMS:
            del self._items[next(iter(self._items))]


class Interpretation(Conversation):
    """A translation, which has events of its own: no items and no responses.

    Source: the upstream page, section 4; openai-python 3.52.0, `types/realtime/realtime_translation_*_event.py`.
    """

    def __init__(self, session: Mapping[str, Any]) -> None:
        super().__init__(session)
        self._handlers = MappingProxyType(
            {
                "session.update": self._update,
                "session.input_audio_buffer.append": self._append_audio,
                "session.close": self._close,
            }
        )

    def _update(self, event: Event) -> Reply:
        update = event.get("session")
        if not isinstance(update, dict):
            raise EventError("missing_required_parameter", "Missing required parameter: 'session'.", "session")
        if "model" in update:
            raise EventError("unknown_parameter", "Unknown parameter: 'session.model'.", "session.model")
        for problem in problems({**update, "type": "translation", "model": self._session["model"]}):
            message, param = wording(problem, "session")
            raise EventError(problem.code, message, param)
        whole = merged(asked(self._session), {"audio": update.get("audio", {})})
        self._session = filled(whole, self._session["id"], self._session["expires_at"])
        return Reply((_event("session.updated", session=self._session),))

    def _close(self, event: Event) -> Reply:  # noqa: ARG002
        return Reply((_event("session.closed"),), ends=True)


def conversation_of(session: Mapping[str, Any]) -> Conversation:
    """What is said in a session of this type."""
    return Interpretation(session) if session["type"] == "translation" else Conversation(session)


def _parsed(message: str | bytes) -> Event:
    try:
        event = orjson.loads(message)
    except orjson.JSONDecodeError:
        raise EventError("invalid_json", "We could not parse the event as JSON.") from None
    if not isinstance(event, dict):
        raise EventError("invalid_type", "An event is an object.")
    return event


def _event(kind: str, **members: Any) -> Event:
    return {"type": kind, "event_id": new_id("event"), **members}
