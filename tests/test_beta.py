"""The table from the retired beta to today, held against what was published of both and against the documentation."""

import json
from pathlib import Path
from typing import Any

import pytest

from switchboard.sessions import problems, translated
from switchboard.sessions.beta import FIELDS, Field
from tests.support.contract import DOCUMENT

ROOT = Path(__file__).parents[1]
PUBLISHED = json.loads((ROOT / "tests" / "data" / "session-fields.json").read_bytes())["session_types"]
KINDS = {"legacy_beta_realtime": "realtime", "legacy_beta_transcription": "transcription"}
LIFETIME = "client_secret"  # no field of a session: the endpoint reads it

VAD = {"type": "server_vad", "threshold": 0.6, "prefix_padding_ms": 300, "silence_duration_ms": 500}
WHISPER = {"model": "gpt-4o-transcribe", "language": "en", "prompt": "names"}
LOOK_UP = {"type": "function", "name": "look_up", "parameters": {"type": "object", "properties": {}}}
FAR = {"type": "far_field"}
LOGPROBS = ["item.input_audio_transcription.logprobs"]


def incoming(fields: dict[str, Any]) -> dict[str, Any]:
    return {"audio": {"input": fields}}


def outgoing(fields: dict[str, Any]) -> dict[str, Any]:
    return {"audio": {"output": fields}}


ROWS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"model": "gpt-realtime-2.1"}, {"model": "gpt-realtime-2.1"}),
    ({"modalities": ["text"]}, {"output_modalities": ["text"]}),
    ({"modalities": ["audio"]}, {"output_modalities": ["audio"]}),
    ({"instructions": "Be kind."}, {"instructions": "Be kind."}),
    ({"voice": "verse", "speed": 1.1}, outgoing({"voice": "verse", "speed": 1.1})),
    ({"input_audio_format": "g711_ulaw"}, incoming({"format": {"type": "audio/pcmu"}})),
    ({"output_audio_format": "g711_alaw"}, outgoing({"format": {"type": "audio/pcma"}})),
    ({"input_audio_transcription": WHISPER}, incoming({"transcription": WHISPER})),
    ({"input_audio_noise_reduction": FAR}, incoming({"noise_reduction": FAR})),
    ({"turn_detection": VAD}, incoming({"turn_detection": VAD})),
    ({"turn_detection": None}, incoming({"turn_detection": None})),
    ({"tools": [LOOK_UP], "tool_choice": "required"}, {"tools": [LOOK_UP], "tool_choice": "required"}),
    ({"max_response_output_tokens": 500}, {"max_output_tokens": 500}),
    ({"tracing": "auto"}, {"tracing": "auto"}),
    ({"include": LOGPROBS}, {"include": LOGPROBS}),
]
OUTDATED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"model": "gpt-4o-realtime-preview-2025-06-03"}, {"model": "gpt-4o-realtime-preview-2025-06-03"}, "model"),
    ({"modalities": ["text", "audio"]}, {"output_modalities": ["audio"]}, "output_modalities"),
    ({"modalities": ["audio", "text"]}, {"output_modalities": ["audio"]}, "output_modalities"),
    ({"speed": 1}, outgoing({"speed": 1}), "audio.output.speed"),
    ({"input_audio_format": "pcm16"}, incoming({"format": {"type": "audio/pcm"}}), "audio.input.format.type"),
    ({"output_audio_format": "pcm16"}, outgoing({"format": {"type": "audio/pcm"}}), "audio.output.format.type"),
    ({"input_audio_transcription": None}, incoming({"transcription": None}), "audio.input.transcription"),
    ({"input_audio_noise_reduction": None}, incoming({"noise_reduction": None}), "audio.input.noise_reduction"),
    ({"tools": []}, {"tools": []}, "tools"),
    ({"tool_choice": "auto"}, {"tool_choice": "auto"}, "tool_choice"),
    ({"max_response_output_tokens": "inf"}, {"max_output_tokens": "inf"}, "max_output_tokens"),
    ({"tracing": None}, {"tracing": None}, "tracing"),
]


@pytest.mark.parametrize(("flat", "today"), ROWS)
def test_a_field_of_the_beta_is_one_of_todays(flat, today):
    assert translated(flat) == (today, frozenset())
    assert problems({"type": "realtime", **today}) == []


@pytest.mark.parametrize(("flat", "today", "path"), OUTDATED)
def test_what_was_the_default_or_is_gone_is_outdated(flat, today, path):
    assert translated(flat) == (today, frozenset({path}))
    assert problems({"type": "realtime", **today}) == []


@pytest.mark.parametrize("value", [0.8, None, "hot", [1], {}, {"value": 0.8, "unit": {"of": "heat"}}])
def test_what_has_no_place_today_leaves_its_name_whatever_its_value(value):
    assert translated({"temperature": value, "voice": "alloy"}) == (
        {"temperature": "", "audio": {"output": {"voice": "alloy"}}},
        frozenset({"temperature"}),
    )


def test_true_is_not_the_number_one():
    assert translated({"speed": True}) == (outgoing({"speed": True}), frozenset())


def test_what_is_said_in_both_ways_is_put_together_in_whatever_order():
    flat = {"voice": "cedar", "audio": {"output": {"speed": 1.1}}}
    for order in (flat, dict(reversed(flat.items()))):
        assert translated(order) == (outgoing({"voice": "cedar", "speed": 1.1}), frozenset())


def test_a_whole_session_is_put_together():
    flat = {name: value for row, _ in ROWS for name, value in row.items()}
    today, outdated = translated(flat)
    assert outdated == frozenset()
    assert problems({"type": "realtime", **today}) == []
    assert set(today["audio"]["input"]) == {"format", "transcription", "noise_reduction", "turn_detection"}


@pytest.mark.parametrize(
    "flat", [{"audio": "x", "voice": "alloy"}, {"voice": "alloy", "audio": 5}, {"a" + ".b" * 9999: 1}]
)
def test_what_the_beta_did_not_know_does_no_harm(flat):
    translated(flat)


@pytest.mark.parametrize("kind", KINDS)
def test_every_published_field_has_its_row(kind):
    names = {field["path"].partition(".")[0] for field in PUBLISHED[kind]["fields"]} - {LIFETIME}
    assert names <= FIELDS.keys()
    if kind == "legacy_beta_realtime":
        assert FIELDS.keys() - names == {"include"}  # of transcriptions alone


def test_every_row_is_tried():
    tried = {name for row, *_ in (*ROWS, *OUTDATED) for name in row}
    assert tried == FIELDS.keys() - {"temperature"}
    assert {value for field in FIELDS.values() for value, _ in field.values if isinstance(value, str)} == {
        value
        for field in PUBLISHED["legacy_beta_realtime"]["fields"]
        for value in field.get("enum", ())
        if field["path"] == "input_audio_format"
    }


def test_the_contract_names_the_same_fields():
    described = DOCUMENT["components"]["schemas"]["FlatSessionRequest"]["properties"]
    assert list(described) == [*FIELDS, LIFETIME]


def _code(value: Any) -> str:
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _row(field: Field) -> str:
    values = ", ".join(f"{_code(old)} is {_code(new)}" for old, new in field.values)
    outdated = "any value" if field.path is None else ", ".join(_code(value) for value in field.outdated)
    return f"| `{field.name}` | {'' if field.path is None else f'`{field.path}`'} | {values} | {outdated} |"


def test_the_documentation_shows_the_table():
    page = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
    assert "\n".join(_row(field) for field in FIELDS.values()) in page
