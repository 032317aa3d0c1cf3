import json

import pytest

from switchboard.emulator.conversation import Conversation
from switchboard.emulator.echo import filled

SESSION = {"type": "realtime", "model": "gpt-realtime-2.1", "instructions": "Hi."}
START = 1_795_000_000


@pytest.fixture
def conversation():
    return Conversation(filled(SESSION, "sess_1", START + 3600))


def tell(conversation, **event):
    return list(conversation.receive(json.dumps(event)).events)


def test_it_opens_with_the_whole_session(conversation):
    event = conversation.opening()
    assert event == {
        "type": "session.created",
        "event_id": event["event_id"],
        "session": filled(SESSION, "sess_1", START + 3600),
    }
    assert event["event_id"].startswith("event_")


def test_an_update_is_merged_and_the_model_stays(conversation):
    update = {
        "type": "realtime",
        "model": "gpt-realtime",
        "instructions": "New.",
        "audio": {"output": {"voice": "cedar"}, "input": {"turn_detection": {"type": "semantic_vad"}}},
    }
    [event] = tell(conversation, type="session.update", session=update)
    expected = filled({**update, "model": "gpt-realtime-2.1"}, "sess_1", START + 3600)
    assert (event["type"], event["session"]) == ("session.updated", expected)
    [event] = tell(
        conversation,
        type="session.update",
        session={"type": "realtime", "audio": {"input": {"turn_detection": None}}},
    )
    assert event["session"]["audio"]["input"]["turn_detection"] is None
    assert event["session"]["audio"]["output"]["voice"] == "cedar"
    assert event["session"]["instructions"] == "New."


@pytest.mark.parametrize(
    ("event", "code", "param"),
    [
        (
            {"type": "session.update", "session": {"type": "realtime", "temperature": 1}},
            "unknown_parameter",
            "session.temperature",
        ),
        ({"type": "session.update", "session": {}}, "missing_required_parameter", "session.type"),
        ({"type": "session.update"}, "invalid_type", "session"),
        (
            {"type": "session.update", "session": {"type": "transcription"}},
            "invalid_value",
            "session.type",
        ),
        ({"type": "sing"}, "invalid_value", "type"),
        ({"type": ["sing"]}, "invalid_value", "type"),
        ({}, "missing_required_parameter", "type"),
        ({"type": "conversation.item.create"}, "missing_required_parameter", "item"),
        ({"type": "conversation.item.create", "item": {"type": "song"}}, "invalid_value", "item.type"),
        ({"type": "conversation.item.delete", "item_id": "item_0"}, "invalid_value", "item_id"),
        ({"type": "response.create", "response": 5}, "invalid_type", "response"),
        ({"type": "response.cancel"}, "response_cancel_not_active", None),
        ({"type": "input_audio_buffer.append"}, "missing_required_parameter", "audio"),
        ({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty", None),
    ],
)
def test_a_wrong_event_earns_an_error(conversation, event, code, param):
    [answer] = tell(conversation, **event, event_id="mine")
    error = answer["error"]
    assert answer["type"] == "error"
    assert (error["type"], error["code"], error["param"], error["event_id"]) == (
        "invalid_request_error",
        code,
        param,
        "mine",
    )


@pytest.mark.parametrize(
    ("message", "code"), [("{", "invalid_json"), (b"\xff", "invalid_json"), ("[]", "invalid_type")]
)
def test_what_is_no_event_earns_an_error(conversation, message, code):
    [answer] = conversation.receive(message).events
    assert answer["error"]["code"] == code


def test_items_are_added_in_order_shown_and_deleted(conversation):
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]}
    first = tell(conversation, type="conversation.item.create", item={**item, "id": "item_mine"})
    assert [event["type"] for event in first] == ["conversation.item.added", "conversation.item.done"]
    assert first[0]["item"] == {**item, "id": "item_mine", "status": "completed"}
    assert first[0]["previous_item_id"] is None
    second = tell(conversation, type="conversation.item.create", item=item)
    assert second[0]["previous_item_id"] == "item_mine"
    [shown] = tell(conversation, type="conversation.item.retrieve", item_id="item_mine")
    assert shown["item"] == first[0]["item"]
    [cut] = tell(conversation, type="conversation.item.truncate", item_id="item_mine", audio_end_ms=5)
    assert (cut["type"], cut["audio_end_ms"]) == ("conversation.item.truncated", 5)
    [gone] = tell(conversation, type="conversation.item.delete", item_id="item_mine")
    assert (gone["type"], gone["item_id"]) == ("conversation.item.deleted", "item_mine")


def test_audio_is_taken_committed_and_cleared(conversation):
    assert tell(conversation, type="input_audio_buffer.append", audio="AAAA") == []
    committed = tell(conversation, type="input_audio_buffer.commit")
    assert [event["type"] for event in committed] == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    [cleared] = tell(conversation, type="input_audio_buffer.clear")
    assert cleared["type"] == "input_audio_buffer.cleared"


def test_a_response_is_told_in_the_recorded_order(conversation):
    speech = conversation.receive('{"type":"response.create","response":{"metadata":{"a":"b"}}}').speech
    events = list(speech.events())
    kinds = list(dict.fromkeys(event["type"] for event in events))
    assert kinds == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "output_audio_buffer.started",
        "response.output_audio_transcript.delta",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
        "output_audio_buffer.stopped",
        "rate_limits.updated",
    ]
    done = next(event["response"] for event in events if event["type"] == "response.done")
    transcript = "".join(event.get("delta", "") for event in events)
    assert done["output"][0]["content"] == [{"type": "output_audio", "transcript": transcript}]
    assert (done["status"], done["metadata"]) == ("completed", {"a": "b"})
    usage = done["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert set(usage["input_token_details"]) == {
        "text_tokens",
        "audio_tokens",
        "image_tokens",
        "cached_tokens",
        "cached_tokens_details",
    }
    assert set(usage["input_token_details"]["cached_tokens_details"]) == {
        "text_tokens",
        "audio_tokens",
        "image_tokens",
    }
    assert sum(usage["output_token_details"].values()) == usage["output_tokens"]


def test_one_response_at_a_time(conversation):
    speech = conversation.receive('{"type":"response.create"}').speech
    [answer] = tell(conversation, type="response.create")
    assert answer["error"]["code"] == "conversation_already_has_active_response"
    assert conversation.receive('{"type":"response.cancel"}').silences
    conversation.said(speech)
    assert conversation.receive('{"type":"response.create"}').speech is not None


def test_a_response_may_be_text(conversation):
    asked = {"type": "response.create", "response": {"output_modalities": ["text"]}}
    speech = conversation.receive(json.dumps(asked)).speech
    kinds = {event["type"] for event in speech.events()}
    assert {"response.output_text.delta", "response.output_text.done"} <= kinds
    assert not [kind for kind in kinds if "audio" in kind]


def test_a_cancelled_response_says_so(conversation):
    speech = conversation.receive('{"type":"response.create"}').speech
    done = next(event["response"] for event in speech.cut() if event["type"] == "response.done")
    assert (done["status"], done["status_details"]["reason"]) == ("cancelled", "client_cancelled")


def test_clearing_the_output_silences_it(conversation):
    reply = conversation.receive('{"type":"output_audio_buffer.clear"}')
    assert reply.silences
    assert reply.events[0]["type"] == "output_audio_buffer.cleared"
