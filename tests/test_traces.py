"""Spans: whole, where they belong, silent about everything that is secret; and nothing of it where nobody asked."""

import asyncio
import http.server
import json
import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from switchboard import __version__
from switchboard.app.spans import Spans
from switchboard.app.tracing import NoTracing, tracing_of
from switchboard.providers.transport import Reply, TimedOut
from tests.support import world as worlds
from tests.support.leaks import LEAKS
from tests.support.process import switchboard
from tests.support.world import ORIGIN, SIGNING_KEY
from tests.test_cli import serve_environment

pytestmark = pytest.mark.anyio
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Seen:
    """What was exported."""

    def __init__(self, **how) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.spans = Spans(provider, **{"accept_parent": False, "send_on": False, **how})

    @property
    def finished(self):
        return self._exporter.get_finished_spans()

    def told(self) -> list[tuple[Any, ...]]:
        """Each span as it stands in its trace: name, its parent's name, how it went, and what it says."""
        names = {span.context.span_id: span.name for span in self.finished}
        return [
            (
                span.name,
                span.parent and names.get(span.parent.span_id),
                span.status.status_code.name,
                dict(span.attributes),
            )
            for span in sorted(self.finished, key=lambda span: span.start_time)
        ]


@pytest.fixture
async def traced():
    seen = Seen()
    async with worlds.world(tracing=seen.spans) as world:
        yield world, seen
    for span in seen.finished:
        text = span.to_json()
        LEAKS.saw(f"span {span.name}", text)
        assert not [kind for secret, kind in LEAKS.secrets.items() if secret in text]
        assert not span.events
        assert not span.status.description


def server(route: str, status: int, request_id: str, **told) -> dict[str, Any]:
    decided = {f"switchboard.{name}": value for name, value in told.items()}
    about = {"http.request.method": "POST", "http.route": route, "http.response.status_code": status}
    return {**about, "switchboard.request_id": request_id, **decided}


async def test_a_token_by_grant(traced):
    world, seen = traced
    answer = await world.mint()
    assert answer.status_code == 200
    decided = {"action": "grant.issue", "outcome": "allowed", "reason": "ok", "tenant": "acme", "preset": "support"}
    assert seen.told() == [
        (
            "POST /token",
            None,
            "UNSET",
            server("/token", 200, answer.headers["x-request-id"], **decided, provider="openai"),
        ),
        ("admit", "POST /token", "UNSET", {}),
        ("quota", "POST /token", "UNSET", {}),
        ("audit", "POST /token", "UNSET", {}),
    ]
    (scope,) = {span.instrumentation_scope for span in seen.finished}
    assert (scope.name, scope.version) == ("switchboard", __version__)
    assert len({span.context.trace_id for span in seen.finished}) == 1


async def test_a_call_by_offer(traced, caplog):
    world, seen = traced
    answer = await world.relay(**{"x-request-id": "my-id", "origin": ORIGIN})
    assert answer.status_code == 201
    decided = {"action": "call.open", "outcome": "allowed", "reason": "ok", "tenant": "acme", "preset": "support"}
    asked = {"switchboard.provider": "openai", "switchboard.operation": "call", "http.response.status_code": 201}
    assert seen.told() == [
        ("POST /sdp", None, "UNSET", server("/sdp", 201, "my-id", **decided, provider="openai")),
        ("admit", "POST /sdp", "UNSET", {}),
        ("quota", "POST /sdp", "UNSET", {}),
        ("provider", "POST /sdp", "UNSET", asked),
        ("bind", "POST /sdp", "UNSET", {}),
        ("audit", "POST /sdp", "UNSET", {}),
    ]
    assert {span.name: span.kind.name for span in seen.finished if span.kind.name != "INTERNAL"} == {
        "POST /sdp": "SERVER",
        "provider": "CLIENT",
    }
    # The log leads to the trace.
    (line,) = [record.msg for record in caplog.records if getattr(record, "name", "") == "switchboard.http"]
    assert line["trace_id"] == f"{seen.finished[0].context.trace_id:032x}"


async def test_what_is_refused_says_by_which_code(traced):
    world, seen = traced
    await world.mint(preset="none")
    await world.faults(status=500)
    await world.mint(world.widgets_token())
    told = seen.told()
    assert told[0][1:3] == (None, "UNSET")
    assert (told[0][3]["http.response.status_code"], told[0][3]["switchboard.reason"]) == (404, "unknown_preset")
    assert told[1] == ("admit", "POST /token", "UNSET", {"error.type": "unknown_preset"})
    names = [span[0] for span in told]
    mint = ["POST /token", "admit", "quota", "provider", "provider", "provider", "audit"]  # tried three times
    assert names == ["POST /token", "admit", "audit", *mint]
    assert (told[3][2], told[3][3]["http.response.status_code"]) == ("ERROR", 502)
    assert told[6][3] == {
        "switchboard.provider": "openai",
        "switchboard.operation": "mint",
        "http.response.status_code": 500,
    }


async def test_a_defect_is_an_error_without_its_text(monkeypatch):
    async def broken(*_, **__):
        raise RuntimeError("boom sk-planted-in-a-span")

    monkeypatch.setattr("switchboard.ledger.memory.MemoryLedger.reserve", broken)
    seen = Seen()
    async with worlds.world(tracing=seen.spans) as world:
        assert (await world.mint()).status_code == 500
    quota = next(span for span in seen.told() if span[0] == "quota")
    assert quota == ("quota", "POST /token", "ERROR", {"error.type": "RuntimeError"})
    assert "planted" not in "".join(span.to_json() for span in seen.finished)


async def test_health_and_unknown_paths(traced):
    world, seen = traced
    await world.client.get("/healthz")
    await world.client.get("/readyz")
    await world.client.get("/some/secret/path?token=x")
    assert [span.name for span in seen.finished] == ["GET none"]


# From the caller, and on to the provider


@pytest.mark.parametrize(
    ("accepts", "given", "is_parent", "is_kept"),
    [
        (False, PARENT, False, True),
        (True, PARENT, True, True),
        (True, PARENT[:-1] + "0", True, False),  # the caller does not want to be traced
        (True, "00-nonsense", False, True),
        (True, "", False, True),
    ],
)
async def test_a_callers_traceparent_counts_only_if_configured(accepts, given, is_parent, is_kept):
    seen = Seen(accept_parent=accepts)
    async with worlds.world(tracing=seen.spans) as world:
        headers = {"traceparent": given, "tracestate": "theirs=whatever-they-like", "baggage": "user=alice"}
        await world.client.get("/token", headers={**world.auth(), **headers})
    if not is_kept:
        assert not seen.finished
        return
    root = next(span for span in seen.finished if span.name == "GET /token")
    assert (f"{root.context.trace_id:032x}" == PARENT.split("-")[1]) is is_parent
    assert (root.parent is not None) is is_parent
    assert "whatever-they-like" not in "".join(span.to_json() for span in seen.finished)


class Provider:
    """A transport that keeps what it was to send."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}

    async def post(self, url, *, operation, headers, body, timeout, max_bytes, head_first=False):
        self.headers = dict(headers)
        if operation == "hangup":
            raise TimedOut("RequestTimeoutError")
        return Reply(200, {}, b"")


@pytest.mark.parametrize("sends", [True, False])
async def test_a_provider_gets_a_traceparent_only_if_configured(sends):
    seen, provider = Seen(send_on=sends), Provider()
    transport = seen.spans.transport(provider, "openai")
    given = {"authorization": "Bearer sk-of-a-provider"}
    await transport.post("https://x", operation="mint", headers=given, body=b"", timeout=1, max_bytes=1)
    (span,) = seen.finished
    parts = ("00", f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}", f"{span.context.trace_flags:02x}")
    sent = {"traceparent": "-".join(parts)} if sends else {}
    assert provider.headers == {**given, **sent}
    with pytest.raises(TimedOut):
        await transport.post("https://x", operation="hangup", headers={}, body=b"", timeout=1, max_bytes=1)
    assert (seen.finished[1].attributes["error.type"], seen.finished[1].status.status_code.name) == ("timeout", "ERROR")


async def test_the_settings_decide_both():
    environ = {"OTEL_TRACES_EXPORTER": "console"}
    async with AsyncExitStack() as stack:
        ways: list[Any] = [
            tracing_of(worlds.settings(**changes), environ, stack)
            for changes in ({}, {"trace_parent": "accept"}, {"trace_providers": True})
        ]
    assert [(one._accept_parent, one._send_on) for one in ways] == [(False, False), (True, False), (False, True)]


async def test_what_is_cancelled_has_an_end():
    seen = Seen()

    class Slow:
        kept = "as it is"

        async def reserve(self):
            await asyncio.sleep(10)

    slow = seen.spans.around(Slow(), reserve="quota")
    assert slow.kept == "as it is"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(slow.reserve(), 0.01)
    assert seen.told() == [("quota", None, "ERROR", {"error.type": "CancelledError"})]


# Where nobody asked


@pytest.mark.parametrize(
    ("environ", "warned"),
    [
        ({}, None),
        ({"OTEL_SERVICE_NAME": "x"}, None),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, None),
        ({"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, None),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "zipkin"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "grpc"),
    ],
)
async def test_without_a_place_for_them_there_are_no_spans(environ, warned, caplog):
    async with AsyncExitStack() as stack:
        tracing = tracing_of(worlds.settings(), environ, stack)
    assert isinstance(tracing, NoTracing)
    told = [str(record.msg) for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == (warned is not None)
    assert all(warned in line for line in told)
    it: Any = object()
    given_back: list[Any] = [tracing.around(it, reserve="quota"), tracing.transport(it, "openai"), tracing.app(it)]
    assert given_back == [it] * 3


WITHOUT = """
    import sys
    sys.modules["opentelemetry"] = None
    from switchboard.cli import main
    main(["serve"])
"""


def test_without_the_extra_everything_works_and_the_log_says_what_is_missing():
    environ = serve_environment(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    command = [sys.executable, "-c", textwrap.dedent(WITHOUT)]
    with subprocess.Popen(command, env={**os.environ, **environ}, stderr=subprocess.PIPE, text=True) as process:
        while True:
            assert process.poll() is None
            try:
                url = f"http://127.0.0.1:{environ['SWITCHBOARD_PORT']}/token"
                assert httpx.get(url, trust_env=False).status_code == 401
                break
            except httpx.TransportError:
                time.sleep(0.05)
        process.terminate()
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert "the extra `otel` is not installed" in err


def test_what_is_not_asked_for_is_not_imported():
    script = "import sys, switchboard.app, switchboard.serving; print('switchboard.app.spans' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout == b"False\n"


# As operators run it


@contextmanager
def collector():
    """A collector of OTLP over HTTP, and what it got."""
    got: list[ExportTraceServiceRequest] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            got.append(ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_) -> None:
            pass

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}", got
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


def test_spans_reach_a_collector():
    with collector() as (url, got):
        env = serve_environment(OTEL_EXPORTER_OTLP_ENDPOINT=url, OTEL_RESOURCE_ATTRIBUTES="deployment.environment=test")
        with switchboard("serve", env=env) as process:
            public = f"http://127.0.0.1:{env['SWITCHBOARD_PORT']}"
            process.until(f"{public}/readyz")
            assert httpx.get(f"{public}/token", trust_env=False).status_code == 401
            assert process.stop() == 0
            assert all(json.loads(line)["level"] == "info" for line in process.lines["stderr"] if "keys" not in line)
    told = "".join(map(str, got))
    LEAKS.saw("spans at a collector", told)
    assert SIGNING_KEY not in told
    resource = {pair.key: pair.value.string_value for one in got for pair in one.resource_spans[0].resource.attributes}
    assert (resource["service.name"], resource["deployment.environment"]) == ("switchboard", "test")
    spans = [span for one in got for many in one.resource_spans for scope in many.scope_spans for span in scope.spans]
    assert sorted(span.name for span in spans) == ["GET /token", "admit", "audit"]


def test_a_collector_that_is_away_keeps_nobody():
    env = serve_environment(OTEL_EXPORTER_OTLP_ENDPOINT="http://user:planted-password-1@127.0.0.1:9")
    LEAKS.plant("password of a collector", "planted-password-1")
    with switchboard("serve", env=env) as process:
        public = f"http://127.0.0.1:{env['SWITCHBOARD_PORT']}"
        process.until(f"{public}/readyz")
        assert httpx.get(f"{public}/token", trust_env=False).status_code == 401
        assert process.stop() == 0
