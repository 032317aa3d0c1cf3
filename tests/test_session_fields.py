"""Holds the session models against the published field list, so that the two cannot drift apart."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import TypeAdapter

from switchboard.sessions import KNOWN_PATHS, Problem, Session, path_text, problems, vocabulary
from switchboard.sessions.rules import section

FIELDS = json.loads((Path(__file__).parent / "data" / "session-fields.json").read_bytes())["session_types"]
ADAPTER: TypeAdapter[Any] = TypeAdapter(Session)
SCHEMA = jsonschema.Draft202012Validator(ADAPTER.json_schema())
KINDS = ("realtime", "transcription", "translation")
BASE: dict[str, dict[str, Any]] = {"translation": {"model": "gpt-realtime-translate"}}

# The least that must stand around a field for the session to be legal.
AROUND: dict[str, dict[str, Any]] = {
    "tools[function]": {"type": "function", "name": "look_up"},
    "tools[mcp]": {"type": "mcp", "server_label": "shop", "server_url": "https://mcp.example/"},
    "audio.input.format": {"type": "audio/pcm"},
    "audio.output.format": {"type": "audio/pcm"},
    "truncation": {"type": "retention_ratio", "retention_ratio": 0.5},
    "prompt": {"id": "pmpt_1"},
    "translation:audio.input.transcription": {"model": "gpt-transcribe"},
    "translation:audio.input.noise_reduction": {"type": "near_field"},
}

# Legal values of fields whose type is words, not a name.
LEGAL: dict[str, list[Any]] = {
    "output_modalities": [["audio"], ["text"]],
    "max_output_tokens": [1, 4096, "inf"],
    "prompt": [{"id": "pmpt_1"}],
    "prompt.variables": [
        {
            "a": "text",
            "b": {"type": "input_text", "text": "x"},
            "c": {"type": "input_image", "image_url": "https://img.example/a.png", "detail": "low"},
            "d": {"type": "input_file", "file_id": "file_1"},
        }
    ],
    "tool_choice": [{"type": "function", "name": "a"}, {"type": "mcp", "server_label": "a", "name": None}],
    "tools": [[], [AROUND["tools[function]"], AROUND["tools[mcp]"]]],
    "tools[function].parameters": [{"type": "object", "properties": {}}],
    "tools[mcp].server_url": ["https://mcp.example/sse", "http://127.0.0.1:8000"],
    "tools[mcp].tunnel_id": ["tunnel_" + "a1" * 16],
    "tools[mcp].headers": [{}, {"X-Shop": "1"}],
    "tools[mcp].allowed_tools": [[], ["a"], {"tool_names": ["a"], "read_only": True}],
    "tools[mcp].require_approval": [{"always": {"tool_names": ["a"]}, "never": {"read_only": True}}],
    "tracing": ["auto", {}],
    "truncation": [AROUND["truncation"]],
    "audio.input.format": [{"type": kind} for kind in ("audio/pcm", "audio/pcmu", "audio/pcma")],
    "audio.output.format": [{"type": "audio/pcm"}],
    "audio.input.turn_detection": [{"type": "server_vad"}, {"type": "semantic_vad"}],
    "audio.output.voice": [{"id": "voice_123"}],
    "translation:audio.input.transcription": [{"model": "gpt-transcribe"}],
    "translation:audio.input.noise_reduction": [{"type": "far_field", "strength": 0.5}],
}  # fmt: skip
PLAIN: dict[str, list[Any]] = {
    "string": ["x"],
    "integer": [300],
    "number": [0.5, 1],
    "boolean": [True, False],
    "object": [{}],
    "array<string>": [[], ["en"]],
}


def rows(*needs: str) -> list[Any]:
    return [
        pytest.param(kind, field, id=f"{kind}:{field['path']}")
        for kind in KINDS
        for field in FIELDS[kind]["fields"]
        if field["type"] not in ("forbidden", "absent") and all(field.get(need, None) is not None for need in needs)
    ]


def place(kind: str, field: dict[str, Any], value: Any, *, leave_out: bool = False) -> dict[str, Any]:
    """A session that is legal but for what stands at the field."""
    session: dict[str, Any] = {"type": kind, **BASE.get(kind, {})}
    *parents, name = re.findall(r"[^.\[\]]+(?:\[\w+\])?", field["path"])
    node, walked = session, ""
    for parent in parents:
        walked = f"{walked}.{parent}".removeprefix(".")
        child = copy.deepcopy(AROUND.get(f"{kind}:{walked}", AROUND.get(walked, {})))
        node[parent.partition("[")[0]] = [child] if "[" in parent else child
        node = child
    if parents and parents[-1] == "turn_detection":
        node["type"] = field.get("only_type", "server_vad")
    if parents and parents[-1] == "transcription" and "only_models" in field:
        node["model"] = field["only_models"][0]
    if field.get("one_of_group"):
        del node["server_url"]
    if leave_out:
        node.pop(name, None)
    else:
        node[name] = value
    # A model that finds the turns itself takes no turn detection in a transcription session.
    if section(session, "audio", "input", "transcription").get("model") in vocabulary.SELF_PACED_MODELS:
        session["audio"]["input"]["turn_detection"] = None
    return session


def dotted(field: dict[str, Any]) -> str:
    return re.sub(r"\[\w+\]", "[0]", field["path"])


def legal(kind: str, field: dict[str, Any]) -> list[Any]:
    values = [
        *LEGAL.get(f"{kind}:{field['path']}", LEGAL.get(field["path"], ())),
        *field.get("enum", ()),
        *field.get("open_enum", ()),
    ]
    values += [[value] for value in field.get("items_enum", ()) if field["path"] != "output_modalities"]
    if "min" in field and field["min"] is not None:
        values = [field["min"], *([field["max"]] if "max" in field else [])]
        values += LEGAL.get(field["path"], [])
    return values or PLAIN[field["type"]]


def named(session: dict[str, Any]) -> list[tuple[str, str]]:
    return [(path_text(problem.path), problem.code) for problem in problems(session)]


@pytest.mark.parametrize(("kind", "field"), rows())
def test_takes_every_legal_value(kind, field):
    for value in legal(kind, field):
        session = place(kind, field, value)
        assert problems(session) == []
        assert ADAPTER.validate_python(session).model_dump(exclude_unset=True) == session
        SCHEMA.validate(session)


@pytest.mark.parametrize(("kind", "field"), rows())
def test_refuses_another_type(kind, field):
    for value in ["yes", 1, None] if field["type"] == "boolean" else [True, 1.5j]:
        session = place(kind, field, value)
        assert [path for path, _ in named(session)] == [dotted(field)]
        assert named(session)[0][1] in ("invalid_type", "invalid_value")


@pytest.mark.parametrize(("kind", "field"), rows())
def test_null_only_where_it_is_allowed(kind, field):
    session = place(kind, field, None)
    nullable = field.get("nullable", False)
    assert named(session) == ([] if nullable else [(dotted(field), "invalid_type")])


@pytest.mark.parametrize(("kind", "field"), rows("enum"))
def test_refuses_a_value_beside_the_enum(kind, field):
    stranger = field["enum"][0] + 1 if field["type"] == "integer" else "stranger"
    code = "integer_above_max_value" if field["type"] == "integer" else "invalid_value"
    assert named(place(kind, field, stranger)) == [(dotted(field), code)]


@pytest.mark.parametrize(("kind", "field"), rows("items_enum"))
def test_refuses_an_item_beside_the_enum(kind, field):
    assert named(place(kind, field, ["stranger"])) == [(f"{dotted(field)}[0]", "invalid_value")]


@pytest.mark.parametrize(("kind", "field"), rows("min"))
def test_refuses_below_the_lowest(kind, field):
    decimal = field["type"] == "number"
    value, code = (field["min"] - 0.01, "decimal") if decimal else (field["min"] - 1, "integer")
    assert named(place(kind, field, value)) == [(dotted(field), f"{code}_below_min_value")]


@pytest.mark.parametrize(("kind", "field"), rows("max"))
def test_refuses_above_the_highest(kind, field):
    decimal = field["type"] == "number"
    value, code = (field["max"] + 0.01, "decimal") if decimal else (field["max"] + 1, "integer")
    assert named(place(kind, field, value)) == [(dotted(field), f"{code}_above_max_value")]


@pytest.mark.parametrize(("kind", "field"), rows("required"))
def test_misses_what_is_required(kind, field):
    assert named(place(kind, field, None, leave_out=True)) == [(dotted(field), "missing_required_parameter")]


@pytest.mark.parametrize(("kind", "field"), rows())
def test_refuses_an_unknown_key_beside_it(kind, field):
    session = place(kind, field, legal(kind, field)[0])
    node: Any = session
    *parents, _ = re.findall(r"\w+|\[\w+\]", field["path"])
    for parent in parents:
        node = node[0] if parent.startswith("[") else node[parent]
    node["zzz"] = 1
    expected = f"{dotted(field).rpartition('.')[0]}.zzz".removeprefix(".")
    assert named(session) == [(expected, "unknown_parameter")]


@pytest.mark.parametrize("name", [name.partition(" ")[0] for name in FIELDS["realtime"]["forbidden_ga"]])
def test_refuses_the_fields_of_the_beta_and_says_where_they_went(name):
    [problem] = problems({"type": "realtime", name: "x"})
    assert (problem.path, problem.code, problem.found) == ((name,), "unknown_parameter", "x")
    assert "was removed" in problem.right or "its place is now" in problem.right


@pytest.mark.parametrize("kind", KINDS)
def test_refuses_what_only_answers_hold(kind):
    for field in FIELDS[kind]["response_only"]:
        if field["path"] == "type":  # which is ours in what is asked of a translation
            continue
        found = problems({"type": kind, **BASE.get(kind, {}), field["path"]: "x"})
        right = "remove it; it is only in answers"
        assert found == [Problem((field["path"],), "unknown_parameter", "x", right)]


def test_known_paths_are_the_published_ones():
    published = {
        re.sub(r"\[\w+\]", "[]", field["path"])
        for kind in KINDS
        for field in FIELDS[kind]["fields"]
        if field["type"] not in ("forbidden", "absent")
    }
    assert published <= KNOWN_PATHS


def test_known_models_and_dates_are_the_published_ones():
    fields = {field["path"]: field for field in FIELDS["realtime"]["fields"]}
    model, transcription = fields["model"], fields["audio.input.transcription.model"]
    assert set(model["open_enum"]) == vocabulary.REALTIME_MODELS
    assert set(transcription["open_enum"]) == vocabulary.TRANSCRIPTION_MODELS
    (translation,) = (field for field in FIELDS["translation"]["fields"] if field["path"] == "model")
    assert set(translation["open_enum"]) == vocabulary.TRANSLATION_MODELS
    published = {
        name: day for field in (model, transcription) for day, names in field["deprecated"].items() for name in names
    }
    assert {name: day.isoformat() for name, day in vocabulary.MODEL_STOPS.items()} == published


def test_model_rules_are_the_published_ones():
    for field in FIELDS["realtime"]["fields"]:
        name = field["path"].rpartition(".")[2]
        if isinstance(field.get("only_models"), list):
            assert vocabulary.ONLY_MODELS[name] == set(field["only_models"])
        if "not_models" in field:
            assert vocabulary.ONLY_MODELS[name] == vocabulary.TRANSCRIPTION_MODELS - set(field["not_models"])
