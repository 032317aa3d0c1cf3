from datetime import date

import pytest
from pydantic import TypeAdapter, ValidationError

from switchboard.sessions import (
    KNOWN_PATHS,
    SECRET_FIELDS,
    Problem,
    RealtimeSession,
    Session,
    TranscriptionSession,
    TranslationSession,
    is_known,
    path_text,
    problems,
    warnings,
)

VOICES = "one of alloy, ash, ballad, coral, echo, sage, shimmer, verse, marin, cedar, or an object with id"
MCP = {"type": "mcp", "server_label": "shop", "server_url": "https://mcp.example/"}
TODAY = date(2026, 11, 20)


def realtime(**fields):
    return {"type": "realtime", **fields}


def heard(kind="realtime", **fields):
    return {"type": kind, "audio": {"input": fields}}


def test_nothing_is_wrong_with_a_usual_session():
    session = realtime(
        model="gpt-realtime-2.1",
        instructions="Be kind.",
        reasoning={"effort": "low"},
        tools=[{"type": "function", "name": "a", "parameters": {"type": "object"}}, MCP],
        audio={"output": {"voice": "marin", "speed": 1}, "input": {"turn_detection": None}},
    )
    assert problems(session) == []
    assert warnings(session, TODAY) == []


@pytest.mark.parametrize("session", [None, 5, "realtime", []])
def test_a_session_is_an_object(session):
    assert problems(session) == [Problem((), "invalid_type", session, "an object")]


KIND = "one of realtime, transcription, translation"


@pytest.mark.parametrize(
    ("session", "problem"),
    [
        ({}, Problem(("type",), "missing_required_parameter", None, KIND)),
        ({"type": "live"}, Problem(("type",), "invalid_value", "live", KIND)),
        ({"type": 1}, Problem(("type",), "invalid_type", 1, KIND)),
        ({"type": None}, Problem(("type",), "invalid_type", None, KIND)),
        ({"type": ["realtime"]}, Problem(("type",), "invalid_type", ["realtime"], KIND)),
    ],
)
def test_the_type_chooses_the_schema(session, problem):
    assert problems(session) == [problem]


SPEED = "a number from 0.25 to 1.5"
TOKENS = "inf, or a whole number from 1 to 4096"
CHOICE = "one of none, auto, required, or an object of type function, or an object of type mcp"


@pytest.mark.parametrize(
    ("session", "problem"),
    [
        (
            realtime(audio={"output": {"voice": "nova"}}),
            Problem(("audio", "output", "voice"), "invalid_value", "nova", VOICES),
        ),
        (
            realtime(audio={"output": {"voice": 5}}),
            Problem(("audio", "output", "voice"), "invalid_type", 5, VOICES),
        ),
        (
            realtime(audio={"output": {"voice": {}}}),
            Problem(("audio", "output", "voice", "id"), "missing_required_parameter", None, "a string"),
        ),
        (
            realtime(audio={"output": {"speed": 1.6}}),
            Problem(("audio", "output", "speed"), "decimal_above_max_value", 1.6, SPEED),
        ),
        (
            realtime(audio={"output": {"speed": 0}}),
            Problem(("audio", "output", "speed"), "integer_below_min_value", 0, SPEED),
        ),
        (
            realtime(audio={"output": {"speed": True}}),
            Problem(("audio", "output", "speed"), "invalid_type", True, SPEED),
        ),
        (
            realtime(max_output_tokens="infinite"),
            Problem(("max_output_tokens",), "invalid_value", "infinite", TOKENS),
        ),
        (
            realtime(max_output_tokens=4097),
            Problem(("max_output_tokens",), "integer_above_max_value", 4097, TOKENS),
        ),
        (realtime(max_output_tokens=5.5), Problem(("max_output_tokens",), "invalid_type", 5.5, TOKENS)),
        (
            realtime(output_modalities=["audio", "text"]),
            Problem(
                ("output_modalities",),
                "invalid_value",
                ["audio", "text"],
                "a list with exactly one of text, audio",
            ),
        ),
        (
            realtime(tracing="on"),
            Problem(
                ("tracing",),
                "invalid_value",
                "on",
                "auto, or an object with workflow_name, group_id, metadata, or null",
            ),
        ),
        (
            realtime(truncation="never"),
            Problem(
                ("truncation",),
                "invalid_value",
                "never",
                "one of auto, disabled, or an object of type retention_ratio",
            ),
        ),
        (
            realtime(truncation={"type": "retention_ratio"}),
            Problem(("truncation", "retention_ratio"), "missing_required_parameter", None, "a number from 0 to 1"),
        ),
        (realtime(tool_choice="any"), Problem(("tool_choice",), "invalid_value", "any", CHOICE)),
        (realtime(tool_choice=5), Problem(("tool_choice",), "invalid_type", 5, CHOICE)),
        (
            realtime(tool_choice={"type": "tool"}),
            Problem(("tool_choice", "type"), "invalid_value", "tool", "one of function, mcp"),
        ),
        (
            realtime(tool_choice={"name": "a"}),
            Problem(("tool_choice", "type"), "missing_required_parameter", None, "one of function, mcp"),
        ),
        (
            realtime(prompt={"id": "p", "variables": {"city": 5}}),
            Problem(
                ("prompt", "variables", "city"),
                "invalid_type",
                5,
                "a string, or an object of type input_text, or an object of type input_image,"
                " or an object of type input_file",
            ),
        ),
        (
            heard(format={"type": "audio/pcm", "rate": 16000}),
            Problem(("audio", "input", "format", "rate"), "integer_below_min_value", 16000, "24000"),
        ),
        (
            heard(format={"rate": 24000}),
            Problem(
                ("audio", "input", "format", "type"),
                "missing_required_parameter",
                None,
                "one of audio/pcm, audio/pcmu, audio/pcma",
            ),
        ),
        (
            heard(noise_reduction={"strength": float("nan")}),
            None,
        ),
    ],
)
def test_a_mistake_is_one_problem_that_says_what_would_be_right(session, problem):
    if problem is None:  # nan equals nothing, itself included
        [found] = problems(session)
        assert (found.code, found.right) == ("invalid_value", "a number")
        return
    assert problems(session) == [problem]


@pytest.mark.parametrize(
    ("session", "path", "right"),
    [
        (realtime(instruction="x"), "instruction", 'remove it; did you mean "instructions"?'),
        (realtime(audio={"voice": "marin"}), "audio.voice", 'remove it; did you mean "audio.output.voice"?'),
        (realtime(temperature=0.8), "temperature", "remove it; temperature was removed when the beta ended"),
        (realtime(voice="marin"), "voice", 'remove it; its place is now "audio.output.voice"'),
        (realtime(id="sess_1"), "id", "remove it; it is only in answers"),
        (realtime(qqq=1), "qqq", "remove it"),
        (
            heard(turn_detection={"type": "semantic_vad", "threshold": 0.5}),
            "audio.input.turn_detection.threshold",
            "remove it; type semantic_vad does not take it",
        ),
        (
            heard(turn_detection={"type": "server_vad", "treshold": 0.5}),
            "audio.input.turn_detection.treshold",
            'remove it; did you mean "threshold"?',
        ),
        (
            heard(format={"type": "audio/pcmu", "rate": 24000}),
            "audio.input.format.rate",
            "remove it; type audio/pcmu does not take it",
        ),
        (
            {"type": "transcription", "audio": {"output": {}}},
            "audio.output",
            "remove it; type transcription does not take it",
        ),
        (
            {"type": "transcription", "model": "gpt-transcribe"},
            "model",
            "remove it; type transcription does not take it",
        ),
        (
            {"type": "translation", "model": "gpt-realtime-translate", "instructions": "Be kind."},
            "instructions",
            "remove it; type translation does not take it",
        ),
        (
            {"type": "translation", "model": "gpt-realtime-translate", "audio": {"output": {"voice": "marin"}}},
            "audio.output.voice",
            "remove it; type translation does not take it",
        ),
    ],
)
def test_an_unknown_key_comes_with_the_nearest_right_name(session, path, right):
    [problem] = problems(session)
    assert (path_text(problem.path), problem.code, problem.right) == (path, "unknown_parameter", right)


SCHEMA = 'a JSON Schema of an object: {"type": "object", "properties": {…}}'
TARGETS = "server_url, connector_id, tunnel_id"


@pytest.mark.parametrize(
    ("tool", "problem"),
    [
        (5, Problem(("tools", 0), "invalid_type", 5, "an object of type function, or an object of type mcp")),
        ({}, Problem(("tools", 0, "type"), "missing_required_parameter", None, "one of function, mcp")),
        (
            {"type": "functio"},
            Problem(("tools", 0, "type"), "invalid_value", "functio", "one of function, mcp"),
        ),
        (
            {"type": "function"},
            Problem(("tools", 0, "name"), "missing_required_parameter", None, "a string"),
        ),
        (
            {"type": "function", "name": "a", "strict": True},
            Problem(("tools", 0, "strict"), "unknown_parameter", "***", "remove it"),
        ),
        (
            {"type": "function", "name": "a", "server_label": "x"},
            Problem(
                ("tools", 0, "server_label"),
                "unknown_parameter",
                "***",
                "remove it; type function does not take it",
            ),
        ),
        (
            {"type": "function", "name": "a", "parameters": {}},
            Problem(("tools", 0, "parameters"), "invalid_function_parameters", {}, SCHEMA),
        ),
        (
            {"type": "function", "name": "a", "parameters": {"type": "object", "properties": []}},
            Problem(
                ("tools", 0, "parameters"),
                "invalid_function_parameters",
                {"type": "object", "properties": []},
                SCHEMA,
            ),
        ),
        (
            {"type": "mcp", "server_label": "shop"},
            Problem(("tools", 0, "server_url"), "missing_required_parameter", None, f"exactly one of {TARGETS}"),
        ),
        (
            {**MCP, "tunnel_id": "tunnel_" + "a" * 32},
            Problem(
                ("tools", 0, "tunnel_id"),
                "invalid_value",
                "tunnel_" + "a" * 32,
                "remove it; server_url is the target already, and exactly one is allowed",
            ),
        ),
        (
            {**MCP, "server_url": "mcp.example"},
            Problem(("tools", 0, "server_url"), "invalid_value", "mcp.example", "an http or https URL"),
        ),
        (
            {**MCP, "allowed_callers": []},
            Problem(
                ("tools", 0, "allowed_callers"),
                "invalid_value",
                [],
                "a list with at least one item, each one of direct, programmatic, or null",
            ),
        ),
        (
            {**MCP, "require_approval": {"always": {"names": ["a"]}}},
            Problem(
                ("tools", 0, "require_approval", "always", "names"),
                "unknown_parameter",
                "***",
                'remove it; did you mean "tool_names"?',
            ),
        ),
        (
            {**MCP, "allowed_tools": "a"},
            Problem(
                ("tools", 0, "allowed_tools"),
                "invalid_type",
                "a",
                "a list, each a string, or an object with tool_names, read_only, or null",
            ),
        ),
        (
            {**MCP, "headers": {1: "x"}},
            Problem(("tools", 0, "headers", 1), "invalid_type", "***", "a key that is a string"),
        ),
        (
            {**MCP, "authorization": ["s3cret"]},
            Problem(("tools", 0, "authorization"), "invalid_type", "***", "a string"),
        ),
        (
            {**MCP, "authorisation": "s3cret"},
            Problem(
                ("tools", 0, "authorisation"),
                "unknown_parameter",
                "***",
                'remove it; did you mean "authorization"?',
            ),
        ),
    ],
)
def test_tools(tool, problem):
    assert problems(realtime(tools=[tool])) == [problem]


def test_a_secret_is_never_in_a_problem_wherever_it_stands():
    misplaced = {"authorization": "s3cret", "deep": [{"headers": {"X": "s3cret"}}]}
    found = problems(realtime(tools=misplaced, tool_choice=[misplaced], headers="s3cret", qqq=misplaced))
    assert len(found) == 4
    assert "s3cret" not in repr(found)
    assert SECRET_FIELDS == ("authorization", "headers")


def test_a_key_that_looks_like_a_branch_is_still_named():
    [problem] = problems(realtime(tools=[{**MCP, "<mcp>": 1}]))
    assert problem.path == ("tools", 0, "<mcp>")


def test_every_problem_comes_at_once_in_document_order():
    session = {
        "voice": "marin",
        "model": "gpt-realtime",
        "audio": {"output": {"speed": 2.0}, "input": {"turn_detection": {"threshold": 5}}},
        "reasoning": {"effort": "low"},
        "tools": [MCP, {"type": "mcp", "headers": 5}],
        "instructions": None,
    }
    assert [(path_text(problem.path), problem.code) for problem in problems(session)] == [
        ("type", "missing_required_parameter"),
        ("voice", "unknown_parameter"),
        ("audio.output.speed", "decimal_above_max_value"),
        ("audio.input.turn_detection.type", "missing_required_parameter"),
        ("reasoning", "invalid_value"),
        ("tools[1].server_label", "missing_required_parameter"),
        ("tools[1].server_url", "missing_required_parameter"),
        ("tools[1].headers", "invalid_type"),
        ("instructions", "invalid_type"),
    ]


@pytest.mark.parametrize("field", [{"reasoning": {"effort": "low"}}, {"parallel_tool_calls": True}])
@pytest.mark.parametrize(
    ("model", "fine"),
    [
        ("gpt-realtime-2", True),
        ("gpt-realtime-2.1-mini", True),
        ("gpt-realtime-1.5", False),
        ("gpt-realtime", False),
        ("gpt-realtime-3", True),
        ("our-azure-deployment", True),
        (None, True),
    ],
)
def test_only_reasoning_models_reason(model, fine, field):
    [(name, value)] = field.items()
    right = f"remove it; {model} does not take it, only gpt-realtime-2 and later do"
    session = realtime(**({"model": model} if model else {}), **field)
    assert problems(session) == ([] if fine else [Problem((name,), "invalid_value", value, right)])


BOTH = "only gpt-live-transcribe, gpt-transcribe do"


@pytest.mark.parametrize("kind", ["realtime", "transcription"])
@pytest.mark.parametrize(
    ("model", "field", "value", "only"),
    [
        ("whisper-1", "languages", ["en"], BOTH),
        ("gpt-4o-transcribe", "keywords", ["acme"], BOTH),
        ("gpt-transcribe", "keywords", ["acme"], None),
        ("gpt-transcribe", "delay", "low", "only gpt-live-transcribe, gpt-realtime-whisper do"),
        ("gpt-realtime-whisper", "delay", "low", None),
        ("whisper-1", "prompt", "acme", None),
        ("a-new-model", "languages", ["en"], None),
        (None, "languages", ["en"], None),
    ],
)
def test_which_transcription_model_takes_what(kind, model, field, value, only):
    transcription = {field: value, **({"model": model} if model else {})}
    session = heard(kind, transcription=transcription, turn_detection=None)
    path = ("audio", "input", "transcription", field)
    right = f"remove it; {model} does not take it, {only}"
    assert problems(session) == ([Problem(path, "invalid_value", value, right)] if only else [])


def test_whisper_in_realtime_takes_no_prompt():
    session = heard(transcription={"model": "gpt-realtime-whisper", "prompt": "acme"})
    assert [path_text(problem.path) for problem in problems(session)] == ["audio.input.transcription.prompt"]


@pytest.mark.parametrize(
    ("kind", "model", "detection", "fine"),
    [
        ("transcription", "gpt-realtime-whisper", {"turn_detection": None}, True),
        ("transcription", "gpt-realtime-whisper", {"turn_detection": {"type": "server_vad"}}, False),
        ("transcription", "gpt-live-transcribe", {}, False),
        ("transcription", "gpt-transcribe", {"turn_detection": {"type": "server_vad"}}, True),
        ("transcription", "a-new-model", {"turn_detection": {"type": "server_vad"}}, True),
        ("realtime", "gpt-live-transcribe", {"turn_detection": {"type": "server_vad"}}, True),
    ],
)
def test_models_that_find_the_turns_themselves(kind, model, detection, fine):
    path = ("audio", "input", "turn_detection")
    problem = Problem(path, "invalid_value", detection.get("turn_detection"), f"null; {model} finds the turns itself")
    assert problems(heard(kind, transcription={"model": model}, **detection)) == ([] if fine else [problem])


@pytest.mark.parametrize(
    ("session", "today", "expected"),
    [
        (
            realtime(model="gpt-realtime"),
            TODAY,
            [
                Problem(
                    ("model",),
                    "deprecated",
                    "gpt-realtime",
                    "it stops on 2027-01-20, in 61 days; use gpt-realtime-2.1",
                )
            ],
        ),
        (
            realtime(model="gpt-realtime"),
            date(2027, 1, 20),
            [
                Problem(
                    ("model",),
                    "deprecated",
                    "gpt-realtime",
                    "it stopped on 2027-01-20; use gpt-realtime-2.1",
                )
            ],
        ),
        (
            realtime(model="gpt-4o-realtime-preview"),
            TODAY,
            [
                Problem(
                    ("model",),
                    "deprecated",
                    "gpt-4o-realtime-preview",
                    "it was shut down in spring 2026; use gpt-realtime-2.1",
                )
            ],
        ),
        (
            realtime(model="gpt-realtime-2.2"),
            TODAY,
            [
                Problem(
                    ("model",),
                    "unknown_model",
                    "gpt-realtime-2.2",
                    'did you mean "gpt-realtime-2.1"? a new model or an Azure deployment name is fine',
                )
            ],
        ),
        (
            realtime(prompt={"id": "p"}),
            date(2026, 11, 29),
            [
                Problem(
                    ("prompt",),
                    "deprecated",
                    {"id": "p"},
                    "it stops on 2026-11-30, in 1 day; write the text into instructions",
                )
            ],
        ),
        (realtime(prompt=None), TODAY, []),
        (
            realtime(tools=[{"type": "mcp", "server_label": "a", "connector_id": "connector_gmail"}]),
            TODAY,
            [
                Problem(
                    ("tools", 0, "connector_id"),
                    "deprecated",
                    "connector_gmail",
                    "models released after 2026-09-01 do not promise it; use server_url or tunnel_id",
                )
            ],
        ),
        (
            heard("transcription", transcription={"model": "whisper-1"}),
            TODAY,
            [
                Problem(
                    ("audio", "input", "transcription", "model"),
                    "deprecated",
                    "whisper-1",
                    "it stops on 2027-02-26, in 98 days; use gpt-transcribe or gpt-live-transcribe",
                )
            ],
        ),
        ({"type": "translation", "model": "gpt-realtime-translate"}, TODAY, []),
        (
            {"type": "translation", "model": "gpt-realtime"},
            date(2027, 2, 1),
            [
                Problem(
                    ("model",),
                    "unknown_model",
                    "gpt-realtime",
                    'did you mean "gpt-realtime-translate"? a new model or an Azure deployment name is fine',
                ),
                Problem(("model",), "deprecated", "gpt-realtime", "it stopped on 2027-01-20; use gpt-realtime-2.1"),
            ],
        ),
        (
            realtime(model="gpt-realtime-translate"),
            TODAY,
            [Problem(("model",), "unknown_model", "gpt-realtime-translate", "it is for sessions of type translation")],
        ),
        (heard(transcription={"model": "zz"}), TODAY, None),
        ({"type": 5, "model": 7, "tools": 3, "audio": [1]}, TODAY, []),
    ],
)
def test_warnings_say_what_will_stop_and_when(session, today, expected):
    found = warnings(session, today)
    if expected is None:
        right = "a new model or an Azure deployment name is fine"
        expected = [Problem(("audio", "input", "transcription", "model"), "unknown_model", "zz", right)]
    assert found == expected


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("audio", "output", "voice"), "audio.output.voice"),
        (("tools", 0, "server_url"), "tools[0].server_url"),
        (("tools", 0), "tools[0]"),
    ],
)
def test_path_text(path, text):
    assert path_text(path) == text


@pytest.mark.parametrize(
    ("param", "known"),
    [
        ("session.audio.output.voice", True),
        ("audio.output.voice", True),
        ("session.tools[0].server_url", True),
        ("session.tools[12]", True),
        ("session.tools[x].server_url", False),
        ("session.tools[0].headers.X-Key", False),
        ("session.org-secret", False),
        ("session", False),
        ("", False),
    ],
)
def test_is_known(param, known):
    assert is_known(param) is known


def test_known_paths_hold_all_types_and_no_keys_of_maps():
    assert {
        "instructions",
        "tools[].parameters",
        "audio.input.turn_detection.eagerness",
        "audio.output.language",
    } <= KNOWN_PATHS
    assert not [path for path in KNOWN_PATHS if "*" in path]


def test_the_models_are_frozen_and_choose_their_type():
    adapter: TypeAdapter[RealtimeSession | TranscriptionSession | TranslationSession] = TypeAdapter(Session)
    session = adapter.validate_python(realtime(instructions="x"))
    assert isinstance(session, RealtimeSession)
    assert isinstance(adapter.validate_python({"type": "transcription"}), TranscriptionSession)
    translation = {"type": "translation", "model": "gpt-realtime-translate"}
    assert isinstance(adapter.validate_python(translation), TranslationSession)
    with pytest.raises(ValidationError, match="frozen"):
        session.instructions = "y"  # type: ignore[misc]
    assert adapter.validate_json(session.model_dump_json(exclude_unset=True)) == session


def test_the_json_schema_offers_null_only_where_it_is_legal():
    schema = TypeAdapter(Session).json_schema()
    assert schema["$defs"]["RealtimeSession"]["properties"]["instructions"] == {
        "title": "Instructions",
        "type": "string",
    }
    assert schema["$defs"]["McpTool"]["oneOf"] == [
        {"required": ["server_url"]},
        {"required": ["connector_id"]},
        {"required": ["tunnel_id"]},
    ]
