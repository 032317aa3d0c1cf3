"""The lines of docs/calls.md, pasted into a shell beside `switchboard dev`."""

import json
import re
import subprocess
from pathlib import Path

from tests.e2e.dev_server import COMMAND
from tests.support.leaks import LEAKS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "calls.md").read_text(encoding="utf-8")


def _block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_the_lines_of_the_page_about_calls(server):
    script = _block("sh")
    for written, here in (("http://127.0.0.1:8080", server.url), (".venv/bin/switchboard", str(COMMAND))):
        assert script.count(written) == 1
        script = script.replace(written, here)
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=server.environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    LEAKS.saw("the lines of docs/calls.md", ran.stdout + ran.stderr)
    assert ran.stderr == ""
    first, listed, replaced, ended, once_more = (json.loads(line) for line in ran.stdout.splitlines())
    assert first["state"] == "open"
    assert listed == {"calls": [first]}
    assert (replaced["id"], replaced["ended_by"]) == (first["id"], "replaced")
    assert ended["id"] != first["id"]
    assert ended["ended_by"] == "owner"
    assert once_more == ended
    assert json.loads(_block("json")).keys() == first.keys()
    for call in (replaced, ended):
        assert server.record(action="call.end", call_id=call["id"], reason=call["ended_by"])["seconds"] >= 0
    assert server.record(action="call.end", call_id=ended["id"], reason="already_ended")


def test_the_heartbeats_of_the_helper_are_as_often_as_the_page_says():
    source = (ROOT / "service" / "switchboard" / "web" / "switchboard.js").read_text(encoding="utf-8")
    assert "HEARTBEAT_MS = 20_000;" in source
    assert "[switchboard.js](clients.md#a-page-of-your-own) does, at least every 20 seconds" in PAGE
