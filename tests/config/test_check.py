"""`switchboard check`: every mistake at once, each with its path, what was found and what would be right."""

import json
from datetime import date

import pytest
from click.testing import CliRunner

from switchboard.cli import main
from switchboard.config.mistakes import Mistake
from switchboard.config.reading import check, read
from switchboard.config.report import as_json
from switchboard.sessions import path_text
from tests.support.world import EXAMPLE, TODAY, example

TEN = """
providers:
  openai: {kind: opnai, keys: ["sk-live-1234567890"]}
issuers:
  - issuer: https://login.acme.example/
    audience: switchboard
    jwks_url: http://login.acme.example/jwks.json
    algorithms: [RS256, HS512]
    tenant_claim: org_id
    tenants: [acmee]
tenants:
  acme:
    provider: openia
    origin: ["https://app.acme.example"]
    origins: ["https://app.acme.example/path"]
    default_preset: suport
    presets:
      support:
        delivery: relay
        token_ttl: 5
        session:
          type: realtime
          model: gpt-realtime-2.1
          temperature: 0.8
          instructions: "Hello ${claims.name"
          audio:
            output: {voice: marvin, speed: 3}
            input: {turn_detection: {type: server_vad, treshold: 0.5}}
        overrides:
          audio.output.sped: {min: 0.8, max: 1.2}
          audio.output.speed: {min: 0.1, max: 1.2}
"""

FOUND = {
    "providers.openai.kind": ("'opnai'", "`openai`"),
    "providers.openai.keys[0]": ("a secret", "`env:NAME` or `file:/path`"),
    "issuers[0].jwks_url": ("'http://login.acme.example/jwks.json'", "an https URL"),
    "issuers[0].algorithms[1]": ("'HS512'", "`HS256`"),
    "issuers[0].tenants[0]": ("'acmee'", "`acme`"),
    "tenants.acme.provider": ("'openia'", "`openai`"),
    "tenants.acme.origin": ("a list", "`origins`"),
    "tenants.acme.origins[0]": ("'https://app.acme.example/path'", "no path"),
    "tenants.acme.default_preset": ("'suport'", "`support`"),
    "tenants.acme.presets.support.token_ttl": ("5", "10 or more"),
    "tenants.acme.presets.support.session.temperature": ("0.8", ""),
    "tenants.acme.presets.support.session.instructions": ("'Hello ${claims.name'", "closed by `}`"),
    "tenants.acme.presets.support.session.audio.output.voice": ("'marvin'", "marin"),
    "tenants.acme.presets.support.session.audio.output.speed": ("3", "0.25"),
    "tenants.acme.presets.support.session.audio.input.turn_detection.treshold": ("0.5", "threshold"),
}


def test_the_example_has_no_mistakes():
    checked = read(EXAMPLE, today=TODAY)
    assert checked.config is not None
    assert checked.mistakes == ()
    assert checked.advice == ()


def test_a_translation_and_pages_of_the_beta():
    tree = example()
    presets = tree["tenants"]["acme"]["presets"]
    session = {"type": "translation", "model": "gpt-realtime-translate", "audio": {"output": {"language": "es"}}}
    languages = {"audio.output.language": ["es", "fr"]}
    presets["interpreter"] = {"delivery": "relay", "session": session, "overrides": languages, "beta": "strict"}
    assert check(tree, today=TODAY).mistakes == ()
    presets["interpreter"] |= {
        "session": {**session, "instructions": "Be kind."},
        "overrides": {"audio.output.languages": ["es"], "audio.output.voice": ["marin"]},
        "beta": "drip",
    }
    place = "tenants.acme.presets.interpreter"
    assert {path_text(one.path): one.right for one in check(tree, today=TODAY).mistakes} == {
        f"{place}.beta": "`drop` or `strict`",
        f"{place}.session.instructions": "remove it; type translation does not take it",
    }
    presets["interpreter"] |= {"session": session, "beta": "drop"}
    found = {one.path[-1]: one.right for one in check(tree, today=TODAY).mistakes}
    assert found == {
        "audio.output.languages": "`audio.output.language`",
        "audio.output.voice": "remove it; type translation does not take it",
    }


def test_every_mistake_of_a_file_is_named_at_once(tmp_path):
    file = tmp_path / "switchboard.yaml"
    file.write_text(TEN)
    result = CliRunner().invoke(main, ["check", str(file), "--format", "json"])
    assert result.exit_code == 1
    mistakes = {one["path"]: one for one in json.loads(result.output)["mistakes"]}
    for path, (found, right) in FOUND.items():
        assert path in mistakes, path
        assert found in (mistakes[path]["found"] or "") or path.endswith("origin"), mistakes[path]
        assert right in mistakes[path]["right"], mistakes[path]
    assert set(mistakes) == set(FOUND)
    assert "sk-live" not in result.output


def test_a_mistake_reads_well(tmp_path):
    file = tmp_path / "switchboard.yaml"
    file.write_text(TEN)
    result = CliRunner().invoke(main, ["check", str(file)])
    assert result.exit_code == 1
    assert f"{file}: 15 mistakes" in result.output
    assert "tenants.acme.provider\n  found:  'openia'\n  right:  `openai`\n" in result.output


def test_overrides_are_checked_against_the_session_schema():
    tree = example()
    tree["tenants"]["acme"]["presets"]["support"]["overrides"] = {
        "audio.output.sped": {"min": 0.8, "max": 1.2},
        "audio.output.speed": {"min": 0.1, "max": 1.2},
        "audio.output.voice": ["marin", "marvin"],
        "max_output_tokens": {"max_length": 7},
        "instructions": {"max": 7},
        "type": ["realtime"],
        "tools": "any",
    }
    place = "tenants.acme.presets.support.overrides"
    found = {str(one).partition(":")[0]: one.right for one in check(tree, today=TODAY).mistakes}
    assert found[f"{place}.audio.output.sped"] == "`audio.output.speed`"
    assert "0.25" in found[f"{place}.audio.output.speed"]
    assert "marin" in found[f"{place}.audio.output.voice"]
    assert f"{place}.max_output_tokens" in found
    assert f"{place}.instructions.min" in found
    assert f"{place}.type" in found
    assert "a list of values" in found[f"{place}.tools"]


@pytest.mark.parametrize(
    ("change", "right"),
    [
        ({"secret": "env:X", "algorithms": ["RS256"], "jwks_url": None}, "`algorithms: [HS256]` with `secret`"),
        ({"algorithms": ["HS256"]}, "`algorithms: [HS256]` with `secret`"),
        ({"algorithms": ["RS256", "HS256"], "public_key": "file:/k", "jwks_url": None}, "never with public keys"),
        ({"secret": "env:X"}, "one of `jwks_url`"),
        ({"tenant": "acme"}, "either `tenant`"),
        ({"tenant_claim": None}, "either `tenant`"),
        ({"tenants": None}, "`tenants` beside `tenant_claim`"),
        ({"jwks_url": None, "issuer": "http://login.acme.example/"}, "an https `issuer`"),
    ],
)
def test_an_issuer_has_one_way_to_its_keys_and_one_to_its_tenants(change, right):
    tree = example()
    issuer = {**tree["issuers"][0], **change}
    tree["issuers"] = [{name: value for name, value in issuer.items() if value is not None}]
    (mistake,) = check(tree, today=TODAY).mistakes
    assert right in mistake.right


def test_an_issuer_is_listed_once():
    tree = example()
    tree["issuers"].append(dict(tree["issuers"][0]))
    assert (
        Mistake(("issuers", 2, "issuer"), "'https://login.acme.example/'", "an issuer that is listed once")
        in check(tree, today=TODAY).mistakes
    )


def test_secrets_of_tools():
    tree = example()
    preset = tree["tenants"]["acme"]["presets"]["support"]
    tool = {
        "type": "mcp",
        "server_label": "crm",
        "server_url": "https://crm.example/mcp",
        "authorization": "tok-123456",
    }
    preset["session"]["tools"] = [tool]
    found = [str(one) for one in check(tree, today=TODAY).mistakes]
    assert len(found) == 2
    assert "tools[0].authorization: found a secret; right would be `env:NAME`" in found[0]
    assert "`expose_mcp_secrets: true`" in found[1]
    assert not any("tok-123456" in one for one in found)
    tool["authorization"] = "env:CRM_TOKEN"
    preset["expose_mcp_secrets"] = True
    assert check(tree, today=TODAY).mistakes == ()


AZURE = {"kind": "azure", "base_url": "https://acme.openai.azure.com/openai/v1", "keys": ["env:AZURE_KEY"]}
PROVIDERS = [
    (AZURE, None),
    ({**AZURE, "base_url": "https://acme.openai.azure.com/openai/v1/"}, None),
    ({"kind": "azure", "base_url": AZURE["base_url"], "entra": True}, None),
    ({**AZURE, "entra": True}, "`keys`, at least one, or `entra: true` instead"),
    ({**AZURE, "keys": []}, "`keys`, at least one, or `entra: true` instead"),
    ({"kind": "azure", "keys": ["env:AZURE_KEY"]}, "a `base_url` like https://RESOURCE.openai.azure.com/openai/v1"),
    (
        {**AZURE, "base_url": "https://acme.openai.azure.com"},
        "a `base_url` like https://RESOURCE.openai.azure.com/open",
    ),
    ({"kind": "openai", "entra": True}, "`keys`, at least one"),
    ({"kind": "openai", "keys": ["env:KEY"], "entra": True}, "`keys`, at least one"),
    ({"kind": "openai"}, "`keys`, at least one"),
]


@pytest.mark.parametrize(("provider", "right"), PROVIDERS)
def test_what_a_provider_needs_by_its_kind(provider, right):
    tree = example()
    tree["providers"]["openai"] = provider
    mistakes = check(tree, today=TODAY).mistakes
    assert [(one.path, one.right[: len(right or "")]) for one in mistakes] == (
        [(("providers", "openai"), right)] if right else []
    )


def test_instructions_are_hidden_at_azure_alone_and_behind_a_relay():
    tree = example()
    tree["tenants"]["acme"]["presets"]["support"]["hide_instructions"] = True
    place = ("tenants", "acme", "presets", "support")
    assert [(one.path, one.found, one.right) for one in check(tree, today=TODAY).mistakes] == [
        (
            (*place, "hide_instructions"),
            "true",
            "false: only a provider of `kind: azure` can keep them from the browser",
        )
    ]
    tree["providers"]["openai"] = AZURE
    tree["tenants"]["acme"]["presets"]["support"]["session"]["model"] = "a-deployment"
    checked = check(tree, today=TODAY)
    assert (checked.mistakes, checked.advice) == ((), ())
    tree["tenants"]["acme"]["presets"]["support"]["delivery"] = "direct"
    assert [(one.path, one.right) for one in check(tree, today=TODAY).mistakes] == [((*place, "delivery"), "`relay`")]


def test_calls_that_nobody_can_end_have_to_be_allowed():
    tree = example()
    tree["providers"]["openai"]["call_ids"] = False
    found = check(tree, today=TODAY).mistakes
    # The presets of widgets are direct: their calls are known to nobody here anyway.
    assert [(one.path, one.right) for one in found] == [
        (("tenants", "acme", "presets", preset, "unleashed"), "`allow`, if that is meant")
        for preset in ("support", "expert")
    ]
    for preset in tree["tenants"]["acme"]["presets"].values():
        preset["unleashed"] = "allow"
    checked = check(tree, today=TODAY)
    assert checked.mistakes == ()
    told = as_json(checked)["tenants"]
    assert told["acme"]["presets"]["support"]["unleashed"] == "allow"
    assert "unleashed" not in told["widgets"]["presets"]["concierge"]


def test_what_stops_soon_is_said():
    tree = example()
    tree["tenants"]["acme"]["presets"]["support"]["session"]["model"] = "gpt-realtime"
    tree["tenants"]["widgets"]["presets"]["concierge"]["session"]["model"] = "gpt-realtime-9"
    checked = check(tree, today=date(2026, 11, 20))
    assert checked.mistakes == ()
    assert [one.path[-1] for one in checked.advice] == ["model", "model"]
    assert "2027-01-20" in checked.advice[0].right


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "nothing"),
        ("- a\n", "['a']"),
        ("just text", "'just text'"),
        ("a: [1\nb: 2", "invalid YAML"),
        ("a: 1\na: 2\n", "invalid YAML: duplicate"),
        ("a: 1\n---\nb: 1\n", "more than one document"),
    ],
)
def test_files_that_hold_no_policy(tmp_path, text, found):
    file = tmp_path / "switchboard.yaml"
    file.write_text(text)
    (mistake,) = read(file, today=TODAY).mistakes
    assert found in str(mistake.found)


def test_a_file_that_is_not_text(tmp_path):
    file = tmp_path / "switchboard.yaml"
    file.write_bytes(b"\xff\xfe")
    (mistake,) = read(file, today=TODAY).mistakes
    assert mistake.found == "text that is not UTF-8"


def test_an_empty_mapping_misses_all_three():
    assert [str(one) for one in check({}, today=TODAY).mistakes] == [
        f"{name}: missing; right would be a value; this is required" for name in ("providers", "issuers", "tenants")
    ]


def test_a_folder_is_one_policy(tmp_path):
    import ryaml

    tree = example()
    (tmp_path / "a.yaml").write_text(ryaml.dumps({"providers": tree["providers"], "issuers": tree["issuers"][:1]}))
    (tmp_path / "b.yml").write_text(
        ryaml.dumps({"issuers": tree["issuers"][1:], "tenants": {"acme": tree["tenants"]["acme"]}})
    )
    (tmp_path / "c.yaml").write_text(ryaml.dumps({"tenants": {"widgets": tree["tenants"]["widgets"]}}))
    (tmp_path / "..data.yaml").write_text("nonsense")
    (tmp_path / "notes.txt").write_text("nonsense")
    assert read(tmp_path, today=TODAY).config == read(EXAMPLE, today=TODAY).config
    (tmp_path / "d.yaml").write_text(ryaml.dumps({"tenants": {"widgets": tree["tenants"]["widgets"]}}))
    (mistake,) = read(tmp_path, today=TODAY).mistakes
    assert mistake == Mistake(("tenants", "widgets"), "a second time in d.yaml", "a name that stands in one file")


def test_an_empty_folder(tmp_path):
    (mistake,) = read(tmp_path, today=TODAY).mistakes
    assert mistake.found == "a folder without YAML files"


def test_the_schema_accepts_the_example_and_knows_sessions():
    import jsonschema

    result = CliRunner().invoke(main, ["schema"])
    assert result.exit_code == 0
    schema = json.loads(result.output)
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    tree = json.loads(json.dumps(example()))
    assert list(validator.iter_errors(tree)) == []
    tree["tenants"]["acme"]["presets"]["support"]["session"]["audio"]["output"]["speed"] = 9
    assert not validator.is_valid(tree)
    tree = json.loads(json.dumps(example()))
    tree["tenants"]["acme"]["presets"]["support"]["sesion"] = {}
    assert not validator.is_valid(tree)


def test_the_report_masks_secrets_and_shows_what_is_unset(tmp_path):
    import ryaml

    tree = example()
    preset = tree["tenants"]["acme"]["presets"]["support"]
    preset["expose_mcp_secrets"] = True
    preset["session"]["tools"] = [
        {
            "type": "mcp",
            "server_label": "crm",
            "server_url": "https://crm.example/mcp",
            "headers": {"x-key": "env:CRM_KEY"},
        }
    ]
    file = tmp_path / "switchboard.yaml"
    file.write_text(ryaml.dumps(tree))
    result = CliRunner().invoke(main, ["check", str(file)], env={"OPENAI_API_KEY": "", "LEGACY_JWT_SECRET": "x" * 32})
    assert result.exit_code == 0
    assert '"headers":"••••"' in result.output
    assert "env:OPENAI_API_KEY: not set; `serve` will need it" in result.output
    assert "LEGACY_JWT_SECRET" not in result.output.partition("tenant acme")[0]


def test_the_report_shows_the_limits_that_apply(tmp_path):
    result = CliRunner().invoke(main, ["check", str(EXAMPLE)])
    lines = [line.strip() for line in result.output.splitlines() if "limits" in line]
    tenant, minutes = "1000 per minute for the whole tenant", "120 minutes of calls per day per user"
    shared = f"{minutes}, 5000 minutes of calls per day for the whole tenant"
    rest = "200 open calls for the whole tenant, a full user replaces the oldest"
    idle = "hung up 60 s after its last heartbeat"
    user, team = "10 per minute per user, 100 per day per user", "60 per minute per user, 1000 per day per user"
    assert lines == [
        f"limits: {user}, {tenant}, {shared}, 1 open call per user, {rest}, 900 s per call, {idle}",
        f"limits with plan=team: {team}, {tenant}, {shared}, 3 open calls per user, {rest}, 3600 s per call, {idle}",
        f"limits: {user}, {tenant}, 3600 s per call",  # widgets sets none
    ]
    shown = json.loads(CliRunner().invoke(main, ["check", str(EXAMPLE), "--format", "json"]).output)
    assert shown["tenants"]["widgets"]["limits"] == [
        "10 per minute per user",
        "100 per day per user",
        "1000 per minute for the whole tenant",
        "3600 s per call",
    ]


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ({"user": ["10 a minute"]}, "a rate like `10/minute`"),
        ({"user": ["0/minute"]}, "a rate like `10/minute`"),
        ({"user": ["10/year"]}, "at most 31 days"),
        ({"user": "10/minute"}, "a list"),
        ({"tenants": ["10/minute"]}, "`tenant`"),
        ({"mode": "shaddow"}, "`enforce` or `shadow`"),
    ],
)
def test_limits_are_checked(written, right):
    tree = example()
    tree["tenants"]["acme"]["limits"] = written
    (mistake,) = check(tree, today=TODAY).mistakes
    assert right in mistake.right


@pytest.mark.parametrize("place", ["limits", "limits_by"])
def test_limits_that_a_direct_preset_escapes_are_said(place):
    tree = example()
    widgets = tree["tenants"]["widgets"]
    limits = {"open_calls": {"user": 1}}
    widgets[place] = limits if place == "limits" else {"claim": "plan", "values": {"pro": limits}}
    checked = check(tree, today=TODAY)
    # Acme's presets are relayed.
    assert [(one.path, one.right) for one in checked.advice] == [
        (("tenants", "widgets", "presets", preset, "delivery"), "`relay`, if they are meant for this preset")
        for preset in ("concierge", "captions")
    ]


@pytest.mark.parametrize(
    "origin", ["https://app.example:443", "http://app.example:80", "https://]:", "https://a b", "ftp://x", "*", "null"]
)
def test_origins_that_no_browser_sends(origin):
    tree = example()
    tree["tenants"]["acme"]["origins"] = [origin]
    (mistake,) = check(tree, today=TODAY).mistakes
    assert "origin" in mistake.right
