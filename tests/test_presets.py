import tracemalloc
from typing import Any

import pytest

from switchboard.errors import InvalidRequest, OverrideNotAllowed, PresetNotAllowed
from switchboard.presets import (
    Between,
    OneOf,
    Preset,
    TextUpTo,
    excerpt,
    slot_names,
    template_mistake,
)
from switchboard.sessions import with_value

SESSION = {
    "type": "realtime",
    "model": "gpt-realtime-2.1",
    "instructions": "Help ${claims.name|a customer} of ${claims.org.name}.",
    "audio": {"output": {"voice": "marin"}},
}


def preset(**changes) -> Preset:
    given = {
        "name": "support",
        "delivery": "relay",
        "session": SESSION,
        "overrides": {
            "audio.output.voice": OneOf(("marin", "cedar")),
            "audio.output.speed": Between(0.8, 1.2),
            "max_output_tokens": Between(1, 100),
            "instructions": TextUpTo(20),
            "tools": OneOf(([],)),
        },
        **changes,
    }
    return Preset(**given)


@pytest.mark.parametrize(
    ("claims", "text"),
    [
        ({}, "Help a customer of ."),
        ({"name": "Alice", "org": {"name": "Acme"}}, "Help Alice of Acme."),
        ({"name": "A\nB\r\n\tC\x00\x1b[31m\u2028D"}, "Help A B C [31m D of ."),
        ({"name": "x" * 500}, f"Help {'x' * 200} of ."),
        ({"name": "  \n "}, "Help a customer of ."),
        ({"name": ["Alice"]}, "Help a customer of ."),
        ({"name": True}, "Help a customer of ."),
        ({"name": 7}, "Help 7 of ."),
        ({"name": "${claims.secret}", "secret": "s3cret"}, "Help ${claims.secret} of ."),
        ({"org.name": "By name"}, "Help a customer of By name."),
    ],
)
def test_claims_in_instructions(claims, text):
    assert preset().session_for(claims, {}).session["instructions"] == text


def test_an_override_of_the_instructions_is_no_template():
    tailored = preset().session_for({"name": "Alice"}, {"instructions": "Hi ${claims.name}"})
    assert tailored.session["instructions"] == "Hi ${claims.name}"


def test_the_presets_own_session_stays_as_it_is():
    made = preset()
    made.session_for({}, {"audio": {"output": {"voice": "cedar"}}})
    assert made.session == SESSION
    assert SESSION["audio"] == {"output": {"voice": "marin"}}


def test_a_mapping_of_nothing_changes_nothing():
    assert preset().session_for({}, {"audio": {"output": {}}}).session == preset().session_for({}, {}).session


def test_a_field_that_the_preset_leaves_out_can_be_chosen():
    tailored = preset().session_for({}, {"max_output_tokens": 50, "audio": {"output": {"speed": 1}}})
    assert tailored.session["max_output_tokens"] == 50
    assert tailored.session["audio"] == {"output": {"voice": "marin", "speed": 1}}
    assert set(tailored.overrides) == {"max_output_tokens", "audio.output.speed"}


@pytest.mark.parametrize(
    "wanted",
    [
        {"audio": {"output": {"voice": "alloy"}}},
        {"audio": {"output": {"voice": {"id": "voice_1"}}}},
        {"audio": {"output": {"speed": 1.21}}},
        {"audio": {"output": {"speed": True}}},
        {"audio": {"output": {"speed": "1"}}},
        {"audio": {"output": {"speed": float("nan")}}},
        {"audio": {"input": {"turn_detection": None}}},
        {"audio": None},
        {"instructions": "x" * 21},
        {"instructions": 7},
        {"tools": [{"type": "function"}]},
        {"type": "transcription"},
        {"": 1},
        {"a.b": {"c": 1}},
        {"nonsense": {}},
        {"tools": {}},
        {"audio": {"output": {"nonsense": {}}}},
    ],
)
def test_refused_overrides(wanted):
    with pytest.raises(OverrideNotAllowed):
        preset().session_for({}, wanted)


def test_a_refusal_names_the_field_and_what_would_be_right():
    with pytest.raises(OverrideNotAllowed) as refused:
        preset().session_for({}, {"audio": {"output": {"voice": "alloy"}}})
    assert refused.value.param == "session.audio.output.voice"
    assert refused.value.detail == "The preset takes one of marin, cedar for `audio.output.voice`."


def test_a_refusal_does_not_echo_odd_paths():
    with pytest.raises(OverrideNotAllowed) as refused:
        preset().session_for({}, {"\x1b[31m": 1})
    assert refused.value.param == "session.session"


def test_a_value_within_its_rule_that_the_schema_refuses():
    """A range over whole numbers holds fractions too; the session as a whole is checked again."""
    with pytest.raises(InvalidRequest) as refused:
        preset().session_for({}, {"max_output_tokens": 50.5})
    assert refused.value.param == "session.max_output_tokens"


def test_bounds_of_a_callers_session():
    with pytest.raises(InvalidRequest, match="more than 64"):
        preset(extra="ignore").session_for({}, {f"a{number}": 1 for number in range(65)})
    nested: dict[str, object] = {}
    for _ in range(12):
        nested = {"a": nested}
    with pytest.raises(InvalidRequest, match="nested deeper"):
        preset(extra="ignore").session_for({}, nested)


def test_many_values_below_a_long_name_cost_no_memory():
    """64 KB of JSON: as paths, written out, they would be 128 MB."""
    wanted = {"x" * 32_000: {str(number): 0 for number in range(4_000)}}
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest, match="more than 64"):
            preset().session_for({}, wanted)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_extra_may_be_ignored_but_not_a_wrong_value():
    made = preset(extra="ignore")
    tailored = made.session_for({}, {"temperature": 0.8, "voice": "alloy"})
    assert set(tailored.dropped) == {"temperature", "voice"}
    assert "temperature" not in tailored.session
    with pytest.raises(OverrideNotAllowed):
        made.session_for({}, {"audio": {"output": {"speed": 9}}})


def test_what_is_outdated_is_dropped_where_it_differs():
    wanted = {"temperature": 0.8, "model": "gpt-realtime-2.1", "audio": {"output": {"speed": 9, "voice": "cedar"}}}
    outdated = frozenset({"temperature", "model", "audio.output.speed"})
    tailored = preset().session_for({}, wanted, outdated)
    assert (tailored.overrides, set(tailored.dropped)) == (
        ("audio.output.voice",),
        {"temperature", "audio.output.speed"},
    )
    assert tailored.chosen == {"audio": {"output": {"voice": "cedar"}}}
    with pytest.raises(OverrideNotAllowed):
        preset().session_for({}, wanted, outdated - {"temperature"})


def test_what_stands_beside_a_grant_may_only_say_what_it_says():
    tailored = preset().session_for({}, {"audio": {"output": {"voice": "cedar"}}})
    same = {"type": "realtime", "audio": {"output": {"voice": "cedar"}}}
    assert tailored.beside(same, frozenset()) == tailored
    assert tailored.beside({}, frozenset()) == tailored
    dropped = tailored.beside({"model": "gone"}, frozenset({"model"}))
    assert (dropped.session, dropped.dropped) == (tailored.session, ("model",))
    strays: list[dict[str, Any]] = [
        {"model": "gone"},
        {"audio": {"output": {"voice": "marin"}}},
        {"audio": {"input": {}}},
    ]
    for wanted in strays:
        with pytest.raises(InvalidRequest, match="grant"):
            tailored.beside(wanted, frozenset())


def test_a_preset_is_for_paths_of_its_type():
    preset().check_type(frozenset({"realtime", "transcription"}))
    with pytest.raises(InvalidRequest, match="of type realtime, and this path is for transcription or translation"):
        preset().check_type(frozenset({"translation", "transcription"}))


@pytest.mark.parametrize(
    ("claims", "opens"),
    [
        ({}, False),
        ({"plan": "free"}, False),
        ({"plan": "pro"}, True),
        ({"plan": ["free", "pro"]}, True),
        ({"plan": []}, False),
        ({"plan": {"pro": True}}, False),
        ({"plan": None}, False),
    ],
)
def test_required_claims(claims, opens):
    made = preset(requires={"plan": ("pro", "team")})
    if opens:
        made.check_claims(claims)
    else:
        with pytest.raises(PresetNotAllowed):
            made.check_claims(claims)


def test_true_is_not_one():
    with pytest.raises(PresetNotAllowed):
        preset(requires={"level": (1,)}).check_claims({"level": True})


def test_an_excerpt_shows_what_a_browser_may_see():
    echo = {
        **SESSION,
        "id": "sess_1",
        "object": "realtime.session",
        "tools": [{"type": "mcp", "authorization": "tok"}],
        "audio": {"output": {"voice": {"id": "voice_1"}, "speed": 1.0}, "input": {}},
    }
    assert excerpt(echo) == {
        "id": "sess_1",
        "type": "realtime",
        "model": "gpt-realtime-2.1",
        "audio": {"output": {"voice": {"id": "voice_1"}}},
    }
    assert excerpt({"type": 7, "audio": []}) == {}
    translation = {"type": "translation", "model": "m", "audio": {"input": {}, "output": {"language": "es"}}}
    assert excerpt(translation) == {"type": "translation", "model": "m", "audio": {"output": {"language": "es"}}}


@pytest.mark.parametrize("text", ["${claims.}", "${name}", "${claims.a", "${claims.a|{b}}", "${ claims.a }"])
def test_templates_that_are_not_closed_or_known(text):
    assert template_mistake(text) is not None


def test_templates_that_are():
    assert template_mistake("Hi ${claims.a.b|} ${claims.https://x.example/c|d e} $5 {x}") is None
    assert slot_names("Hi ${claims.a.b|x} ${claims.c}") == {"a.b", "c"}


def test_with_value_copies_only_the_path():
    session = {"a": {"b": 1}, "c": {"d": 2}}
    made = with_value(session, "a.x.y", 3)
    assert made == {"a": {"b": 1, "x": {"y": 3}}, "c": {"d": 2}}
    assert made["c"] is session["c"]
    assert session == {"a": {"b": 1}, "c": {"d": 2}}
