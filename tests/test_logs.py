"""The log: one line per request, with its id on every line, without secrets, and never in the way."""

import asyncio
import json
import logging
import os
import pty
import re
import select
import subprocess
import sys
import textwrap
import time
from typing import Any

import pytest
import structlog

from switchboard import logs
from tests.endpoints.test_edge import behind, of
from tests.support import world as worlds
from tests.support.leaks import LEAKS
from tests.support.servers import serving

pytestmark = pytest.mark.anyio
PLANTED = LEAKS.plant("planted in a log", "planted0123456789")
SECRETS = {
    "API key": "sk-planted0123456789",
    "client secret": "ek_planted0123456789",
    "grant": "ek_swb_planted-0123_456789",
    "JWT": "eyJhbGciOiJub25lIn0.eyJzdWIiOiJwbGFudGVkIn0.c2lnbmF0dXJl",
    "bearer": "Bearer planted0123456789",
    "URL": "redis://planted:0123456789@redis.example:6379/0",
    "SDP": "a=ice-pwd:planted0123456789\r\n",
}


class Lines(logging.Handler):
    """The log as it would be written."""

    def __init__(self, formatter: logging.Formatter | None) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.text: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.text.append(self.format(record))

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text]

    @property
    def requests(self) -> list[dict[str, Any]]:
        return [line for line in self.told if line["event"] == "request"]


@pytest.fixture
def lines():
    root = logging.getLogger()
    heard = Lines(root.handlers[0].formatter)
    root.addHandler(heard)
    yield heard
    root.removeHandler(heard)


# One line per request


async def test_a_request_is_one_line(world, lines):
    answer = await world.client.post("/token?preset=support", headers=world.auth(**{"x-request-id": "my-id"}), json={})
    assert answer.status_code == 200
    (line,) = lines.requests
    assert line == {
        "event": "request",
        "request_id": "my-id",
        "tenant": "acme",
        "client_ip": "127.0.0.1",
        "method": "POST",
        "route": "/token",
        "status": 200,
        "duration_ms": line["duration_ms"],
        "level": "info",
        "logger": "switchboard.http",
        "timestamp": line["timestamp"],
    }
    assert 0 < line["duration_ms"] < 5000
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["timestamp"])


async def test_a_line_has_the_route_and_never_the_path(world, lines):
    await world.client.get("/sdp/rtc_hidden?token=hidden", headers=world.auth())
    await world.client.get("/hidden/hidden?hidden=1")
    await world.client.request("HIDDEN", "/token")
    assert [(line["method"], line["route"], line["status"]) for line in lines.requests] == [
        ("GET", "/sdp/{call_id}", 404),
        ("GET", "none", 404),
        ("other", "/token", 405),
    ]
    assert "hidden" not in "\n".join(lines.text).lower()


async def test_what_is_asked_all_the_time_is_said_at_debug(world, lines):
    await world.client.get("/healthz")
    await world.ops.get("/readyz")
    await world.ops.get("/metrics")
    await world.ops.get("/nothing")
    assert [(line["route"], line["level"]) for line in lines.requests] == [
        ("/healthz", "debug"),
        ("/readyz", "debug"),
        ("/metrics", "debug"),
        ("none", "info"),
    ]


async def test_a_tenant_is_said_of_its_own_requests_only(world, lines):
    await world.mint()
    await world.client.get("/token")
    await world.mint(world.widgets_token())
    assert [line.get("tenant") for line in lines.requests] == ["acme", None, "widgets"]


@pytest.mark.parametrize(("setting", "shown"), [("full", "203.0.113.9"), ("prefix", "203.0.113.0/24"), ("off", None)])
async def test_a_line_shows_no_more_of_an_address_than_the_audit(lines, setting, shown):
    async with behind("9/minute", audit_client_ip=setting) as world:
        await world.client.get("/token", headers={**world.auth(), **of("203.0.113.9")})
        assert [line.get("client_ip") for line in (*lines.requests, *world.records)] == [shown, shown]
    async with worlds.world(audit_client_ip=setting) as world:
        await world.client.get("/token", headers=of("203.0.113.9"))
    (warned,) = [line for line in lines.told if "TRUSTED_PROXIES" in line["event"]]
    assert warned["peer"] == {"full": "127.0.0.1", "prefix": "127.0.0.0/24", "off": None}[setting]


async def test_every_line_of_a_request_has_its_id(world, lines, monkeypatch):
    async def mint(*_):
        structlog.get_logger("switchboard.test").warning("ours")
        logging.getLogger("library").warning("a library's: %s", "ek_planted0123456789")
        await asyncio.sleep(0)
        raise RuntimeError("boom sk-planted0123456789")

    monkeypatch.setattr("switchboard.broker.Broker.mint", mint)
    answers = await asyncio.gather(*(world.client.get("/token", headers={"x-request-id": f"r-{n}"}) for n in range(3)))
    assert [answer.status_code for answer in answers] == [500, 500, 500]
    for number in range(3):
        told = [line for line in lines.told if line.get("request_id") == f"r-{number}"]
        assert [line["event"] for line in told] == ["ours", "a library's: [redacted]", "unhandled error", "request"]
        (frames,) = [line["exception"] for line in told if "exception" in line]
        assert frames[-1]["exc_value"] == "boom [redacted]"
        assert "locals" not in frames[-1]["frames"][-1]


# The last line of defence


class Odd:
    def __str__(self) -> str:
        return f"odd {SECRETS['JWT']}"


def broken(text: str) -> None:
    raise ValueError(text) from KeyError(text)


@pytest.mark.parametrize("kind", SECRETS)
def test_what_looks_like_a_credential_is_not_written(lines, kind):
    secret = SECRETS[kind]
    log = structlog.get_logger("switchboard.test")
    said = f"said {secret} and more"
    log.info(said)
    log.info("named", reason=secret, deep={"a": [{"b": (secret, secret.encode())}]}, odd=Odd(), **{secret: 1})
    logging.getLogger("library").warning("formatted %s %r", secret, {"x": secret})
    try:
        broken(secret)
    except ValueError:
        log.exception("raised")
        logging.getLogger("library").exception("raised there")
    assert len(lines.text) == 5
    assert "[redacted]" in lines.text[0]
    assert "and more" in lines.text[0]
    whole = "\n".join(lines.text)
    for part in (secret.strip(), PLANTED, "c2lnbmF0dXJl"):
        assert part not in whole
    assert "redis.example" in whole or kind != "URL"


@pytest.mark.parametrize("text", ["task-list", "an ek_ and an sk-", "https://voice.example.com/sdp", "bearers of news"])
def test_what_is_no_credential_is(lines, text):
    structlog.get_logger("switchboard.test").info(text)
    assert lines.told[0]["event"] == text


def test_what_json_cannot_hold_fails_nobody(lines):
    structlog.get_logger("switchboard.test").info("odd \ud800", key={1: object, ("a", "b"): 2})
    assert lines.told[0]["event"] == "odd \ud800"


# In the way of nobody: in processes of their own, where the log is what `serve` makes of it

FULL_PIPE = """
    import os, sys, time
    import structlog
    from switchboard import logs
    logs.MAX_LINES = 100
    logs.configure("info")
    log = structlog.get_logger("switchboard.test")
    began = time.perf_counter()
    for number in range(5000):
        log.info("line", number=number, text="x" * 200)
    took = time.perf_counter() - began
    print(took, logs.lines_dropped(), flush=True)
    sys.stdin.readline()
    time.sleep(0.5)
    log.info("last")
"""


def run(script: str) -> Any:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_log_that_nobody_reads_holds_nobody():
    with run(FULL_PIPE) as process:
        took, dropped = process.stdout.readline().split()
        assert float(took) < 2
        process.stdin.close()
        told = [json.loads(line) for line in process.stderr.read().splitlines()]
    assert process.returncode == 0
    written = [line["number"] for line in told if line["event"] == "line"]
    assert written == sorted(written)
    assert len(written) + int(dropped) == 5000
    assert 100 <= len(written) < 1000
    given_up = [(line["lines"], line["level"]) for line in told if "given up" in line["event"]]
    assert given_up[-1] == (int(dropped), "warning")
    assert [line["event"] for line in told][-1] == "last"


def test_a_process_does_not_wait_for_the_readers_of_its_log():
    script = FULL_PIPE.replace("sys.stdin.readline()", "sys.exit(0)")
    began = time.monotonic()
    process = run(script)
    assert process.wait(10) == 0
    assert time.monotonic() - began < 5
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()


def test_readers_that_are_gone_are_counted():
    script = FULL_PIPE.replace(
        "print(took", "os.close(2); time.sleep(0.1); log.info('lost'); time.sleep(0.1); print(took"
    )
    with run(script) as process:
        process.stderr.close()
        _, dropped = process.stdout.readline().split()
        process.stdin.close()
        assert process.wait(10) == 0
    assert int(dropped) == 5001


def test_a_log_on_a_pipe_that_does_not_wait_is_whole():
    script = "import os; os.set_blocking(2, False)\n" + textwrap.dedent(FULL_PIPE).replace("= 100", "= 10_000")
    with run(script) as process:
        process.stdout.readline()
        process.stdin.close()
        told = [json.loads(line) for line in process.stderr.read().splitlines()]
    assert [line["number"] for line in told if line["event"] == "line"] == list(range(5000))


async def test_lines_that_were_given_up_are_counted(monkeypatch):
    given_up = iter([3, 3, 10] + [10] * 1000)
    monkeypatch.setattr(logs, "lines_dropped", lambda: next(given_up))
    monkeypatch.setattr("switchboard.app.watching.LOOK_SECONDS", 0.01)
    async with worlds.world() as world:
        await asyncio.sleep(0.2)
        assert await world.metric("switchboard_log_lines_dropped_total") == 10


def test_on_a_terminal_lines_are_for_people():
    reading, terminal = pty.openpty()
    script = """
        import logging, structlog
        from switchboard import logs
        logs.configure("info", "worker-7")
        structlog.get_logger("switchboard.test").info("hello", to="sk-planted0123456789", n=1)
        logging.getLogger("uvicorn.error").info("Started server process [%d]", 42)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, stderr=terminal, timeout=20)
    os.close(terminal)
    seen = b""
    while select.select([reading], [], [], 0.5)[0]:
        try:
            seen += os.read(reading, 65536)
        except OSError:  # the end, as a terminal has it
            break
    os.close(reading)
    text = re.sub(r"\x1b\[[0-9;]*m", "", seen.decode())
    first, second = text.splitlines()
    assert re.search(r"\[info +\] hello +\[switchboard\.test\].* n=1 process=worker-7 to=\[redacted\]", first)
    assert "Started server process [42]" in second


def test_our_own_lines_are_the_same_by_the_short_way_and_by_the_library():
    script = """
        import logging, structlog, sys
        from switchboard import logcontext, logs
        logs.configure("info", "worker-7")
        logcontext.begin(request_id="r-1")
        log = structlog.get_logger("switchboard.test")
        def say():
            log.debug("not said")
            log.warning("said", n=1)
            try:
                1 / 0
            except ZeroDivisionError:
                log.exception("raised")
        say()
        logging.getLogger().addHandler(logging.NullHandler())
        say()
    """
    with run(script) as process:
        told = [json.loads(line) for line in process.stderr.read().splitlines()]
    for line in told:
        line.pop("timestamp")
    assert told[:2] == told[2:]
    assert told[0] == {
        "event": "said",
        "n": 1,
        "request_id": "r-1",
        "process": "worker-7",
        "level": "warning",
        "logger": "switchboard.test",
    }


async def test_the_lines_of_the_server_are_ours_as_well(lines, caplog, monkeypatch):
    # Whatever the servers of other tests have made of their loggers.
    caplog.set_level(logging.INFO, logger="uvicorn.error")
    for name in ("uvicorn", "uvicorn.error"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
        monkeypatch.setattr(logging.getLogger(name), "disabled", False)
    async with worlds.world() as world, serving(world.public) as url:
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"NONSENSE\r\n\r\n")
        await reader.read()
        writer.close()
    (line,) = [line for line in lines.told if line["logger"] == "uvicorn.error"]
    assert (line["event"], line["level"]) == ("Invalid HTTP request received.", "warning")


@pytest.mark.timing
async def test_a_line_costs_little():
    script = """
        import sys, time
        from switchboard import logcontext, logs
        from switchboard.middleware import log_request
        logs.configure("info")
        logcontext.begin(request_id="0" * 32, client_ip="192.0.2.1", tenant="acme")
        def once():
            began = time.thread_time()
            for _ in range(2000):
                log_request("/token", "POST", 200, 0.0123)
            return (time.thread_time() - began) / 2000
        print(min(once() for _ in range(5)))
    """
    with run(script) as process:
        seconds = float(process.communicate(timeout=30)[0])
    assert seconds < 60e-6
