"""Operators at their terminal: real commands against a real service, with a real Redis and the emulator behind it."""

import json
import re
import socket
import threading
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
import ryaml
from click.testing import CliRunner

from switchboard.cli import _ops_url, main
from switchboard.console import asking, telling
from switchboard.settings import Settings
from tests.support import keys
from tests.support.leaks import LEAKS
from tests.support.process import free_ports, switchboard
from tests.support.redis import redis_server
from tests.support.world import (
    ADMIN_TOKEN,
    API_KEY,
    LEGACY_SECRET,
    PUBLIC_URL,
    SIGNING_KEY,
    USER_KEY_SECRET,
    example,
    fresh_offer,
)

NO_SERVICE = "http://127.0.0.1:9"
TOKEN = {"SWITCHBOARD_ADMIN_TOKEN": ADMIN_TOKEN}


class Service:
    """A serving process, a provider, and a terminal with the same environment."""

    def __init__(self, env, provider_url) -> None:
        self.env = env
        self.public = f"http://127.0.0.1:{env['SWITCHBOARD_PORT']}"
        self.ops = f"http://127.0.0.1:{env['SWITCHBOARD_OPS_PORT']}"
        self._provider_url = provider_url
        self._callers = 0

    def run(self, *args: str, apart: bool = False) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of a command, in this process or in one of its own."""
        if apart:
            with switchboard(*args, env=self.env) as process:
                return process.wait(), process.out, process.err
        result = CliRunner().invoke(main, args, env=self.env)
        for stream in (result.stdout, result.stderr):
            LEAKS.saw(f"output of {args}", stream)
        return result.exit_code, result.stdout.removesuffix("\n"), result.stderr.removesuffix("\n")

    def _user(self) -> dict[str, str]:
        claims = keys.claims(
            iss="https://legacy.widgets.example/", org_id=None, sub=f"user-at-a-console-{self._callers}"
        )
        return {"authorization": f"Bearer {keys.sign(claims, LEGACY_SECRET, 'HS256')}"}

    def offer(self) -> httpx.Response:
        self._callers += 1
        headers = {"content-type": "application/sdp", **self._user()}
        return httpx.post(f"{self.public}/sdp", headers=headers, content=fresh_offer(self._callers), trust_env=False)

    def faults(self, **faults) -> None:
        httpx.put(f"{self._provider_url}/_emulator/faults", json=faults, trust_env=False)

    def states(self) -> list[str]:
        """Of all calls, as the provider has them."""
        calls = httpx.get(f"{self._provider_url}/_emulator/calls", trust_env=False).json()["calls"]
        return [call["state"] for call in calls]


@contextmanager
def serving(folder, **changes):
    with ExitStack() as stack:
        emulated = stack.enter_context(switchboard("emulate", "--port", "0", "--no-media", "--key", API_KEY))
        while not emulated.out:
            assert emulated.popen.poll() is None, emulated.err
        base_url = emulated.out.removeprefix("base URL: ")
        policy = example()
        policy["providers"]["openai"]["base_url"] = base_url
        policy["issuers"] = policy["issuers"][1:]
        del policy["tenants"]["acme"]
        (folder / "policy.yaml").write_text(ryaml.dumps(policy))
        public, ops = free_ports(2)
        env = {
            "SWITCHBOARD_CONFIG": str(folder / "policy.yaml"),
            "SWITCHBOARD_HOST": "127.0.0.1",
            "SWITCHBOARD_PORT": str(public),
            "SWITCHBOARD_OPS_PORT": str(ops),
            "SWITCHBOARD_PUBLIC_URL": PUBLIC_URL,
            "SWITCHBOARD_SIGNING_KEYS": SIGNING_KEY,
            "SWITCHBOARD_USER_KEY_SECRET": USER_KEY_SECRET,
            "SWITCHBOARD_AUDIT_KEY": "none",
            "OPENAI_API_KEY": API_KEY,
            "LEGACY_JWT_SECRET": LEGACY_SECRET,
            **changes,
        }
        process = stack.enter_context(switchboard("serve", env=env))
        process.until(f"http://127.0.0.1:{public}/readyz")
        yield Service(env, base_url.removesuffix("/v1"))


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("night")
    (folder / "token").write_text(f"{ADMIN_TOKEN}\n")
    with (
        redis_server(folder) as redis,
        serving(folder, SWITCHBOARD_REDIS_URL=redis.url, SWITCHBOARD_ADMIN_TOKEN_FILE=str(folder / "token")) as made,
    ):
        yield made


def asked(*args: str, env=None, color=False):
    """A command in this process."""
    result = CliRunner().invoke(main, args, env={**TOKEN, **(env or {})}, color=color)
    LEAKS.saw(f"output of {args}", result.output)
    return result


def test_a_night(service):
    assert service.run("calls") == (0, "No open calls.", "")
    assert service.offer().status_code == 201
    code, out, err = service.run("calls", "--tenant", "widgets", apart=True)
    assert (code, err) == (0, "")
    head, row, empty, total = out.splitlines()
    assert head.split() == ["CALL", "TENANT", "USER", "PRESET", "STARTED", "(UTC)", "LEFT", "STATE"]
    call_id = row.split()[0]
    assert re.fullmatch(
        r"rtc_\w+ +widgets +[0-9a-f]{12} +concierge +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +(59m \d\ds|60m 00s) +open", row
    )
    assert (empty, total) == ("", "1 open call")
    # Cells stand below their heads.
    assert [row.index(cell) for cell in ("widgets", "concierge")] == [head.index("TENANT"), head.index("PRESET")]

    code, out, err = service.run("calls", "--json")
    listing = json.loads(out)
    assert (code, err, [call["id"] for call in listing["calls"]]) == (0, "", [call_id])
    by_http = httpx.get(f"{service.ops}/admin/calls", headers={"authorization": f"Bearer {ADMIN_TOKEN}"}).json()
    assert listing == {**by_http, "now": listing["now"]}

    code, out, err = service.run("hang-up", call_id, apart=True)
    assert (code, err) == (0, "")
    assert re.fullmatch(rf"{call_id} of widgets ended \S+ \S+ UTC after \d+s, by admin", out)
    assert service.states() == ["ended"]
    assert service.run("hang-up", call_id, "--tenant", "widgets") == (0, out, ""), "a second time changes nothing"
    code, out, err = service.run("hang-up", call_id, "--json")
    assert (code, json.loads(out)["ended_by"], err) == (0, "admin", "")
    code, out, err = service.run("hang-up", "rtc_never", apart=True)
    assert (code, out) == (1, "")
    assert re.fullmatch(r"switchboard: No call has this id; .* \(call_not_found, request [0-9a-f]{32}\)", err)

    assert service.offer().status_code == 201
    code, out, err = service.run("suspend", "widgets", apart=True)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "widgets is suspended. Every replica refuses it within a second.",
        "Being hung up: 1 open call. Look: switchboard calls --tenant widgets",
        "Undo: switchboard resume widgets",
        "This lasts as long as Redis, or one replica, remembers it. For good: `suspended: true` in the policy.",
    ]
    assert service.offer().json()["code"] == "tenant_suspended"
    code, out, err = service.run("calls")
    assert (code, err) == (0, "")
    assert re.fullmatch(
        r"widgets is suspended \(undo: switchboard resume widgets\); [01] calls? still open", out.splitlines()[-1]
    )
    code, out, err = service.run("suspend", "widgets", "--json")
    assert (code, json.loads(out)["suspended"], err) == (0, True, "")
    code, out, err = service.run("suspend", "widget")
    assert (code, out) == (1, "")
    assert err.startswith(
        "switchboard: No tenant has this name: it is not in the policy and has no open calls. Did you mean `widgets`?"
    )

    code, out, err = service.run("resume", "widgets", "--url", service.ops, apart=True)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "widgets is served again. Calls that were to be hung up still are.",
        f"Undo: switchboard suspend widgets --url {service.ops}",
    ]
    code, out, err = service.run("resume", "widgets", "--json")
    assert (code, json.loads(out)["suspended"], err) == (0, False, "")
    assert service.offer().status_code == 201


def test_a_hang_up_that_is_not_confirmed(service):
    assert service.offer().status_code == 201
    call_id = json.loads(asked("calls", "--json", "--url", service.ops).output)["calls"][-1]["id"]
    service.faults(status=500, operations=["hangup"])
    result = asked("hang-up", call_id, "--url", service.ops)
    service.faults()
    assert (result.exit_code, result.stdout) == (1, "")
    assert "The provider did not confirm that the call is over. The service goes on trying" in result.stderr
    assert "(provider_unavailable, request " in result.stderr


def test_colour_is_for_terminals(service):
    assert "\x1b[" not in asked("suspend", "widgets", "--url", service.ops).output
    coloured = asked("calls", "--url", service.ops, color=True).output
    assert "\x1b[31mwidgets is suspended\x1b[0m" in coloured
    assert asked("resume", "widgets", "--url", service.ops, color=True).output.startswith("\x1b[1mwidgets is served")


def test_no_proxy_of_the_environment_sees_the_token(service):
    env = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY"), NO_SERVICE)
    assert asked("calls", "--url", service.ops, env=env).exit_code == 0


COMMANDS = [("calls",), ("hang-up", "rtc_1"), ("suspend", "widgets"), ("resume", "widgets")]
every_command = pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])


@every_command
def test_what_is_missing_is_named(command):
    result = asked(*command, env={"SWITCHBOARD_ADMIN_TOKEN": ""})
    assert (result.exit_code, result.stdout) == (1, "")
    assert "SWITCHBOARD_ADMIN_TOKEN is not set: put in it what the service was started with" in result.stderr
    result = asked(*command, env={"SWITCHBOARD_ADMIN_TOKEN": "short"})
    assert (result.exit_code, result.stdout) == (1, "")
    assert "SWITCHBOARD_ADMIN_TOKEN: Value should have at least 32 items" in result.stderr


@every_command
def test_nobody_there(command):
    result = asked(*command, "--url", NO_SERVICE)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{NO_SERVICE} cannot be reached ([Errno 111] Connection refused). Is the service running" in result.stderr
    result = asked(*command, env={"SWITCHBOARD_OPS_PORT": "9"})
    assert "http://127.0.0.1:9 cannot be reached" in result.stderr


@every_command
def test_another_token(service, command):
    other = LEAKS.plant("admin token", "another-admin-token-0123456789-abcdef")
    result = asked(*command, "--url", service.ops, env={"SWITCHBOARD_ADMIN_TOKEN": other})
    assert (result.exit_code, result.stdout) == (1, "")
    assert "does not take this token: SWITCHBOARD_ADMIN_TOKEN has to be the one that the service was" in result.stderr


@every_command
def test_the_public_port(service, command):
    result = asked(*command, "--url", service.public)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{service.public} has no /admin: the service was started without SWITCHBOARD_ADMIN_TOKEN" in result.stderr


def test_a_service_without_a_token(tmp_path):
    with serving(tmp_path) as service:
        result = asked("calls", "--url", service.ops)
        assert result.exit_code == 1
        assert f"{service.ops} has no /admin: the service was started without SWITCHBOARD_ADMIN_TOKEN" in result.stderr


@contextmanager
def another_program(status, body, headers=()):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"404 page not found\n"),  # Prometheus, whose own port is 9090 as well
        (200, b"<html>"),
        (200, b"[]"),
        (200, b"\xff{"),
        (500, b"{}"),
        (307, b"{}"),
    ],
)
def test_another_program_on_that_port(status, body):
    with another_program(status, body, [("location", NO_SERVICE)]) as url:
        result = asked("calls", "--url", url)
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"{url} answered {status}, and not as Switchboard does. Is this its ops port?" in result.stderr


def test_another_program_does_nothing_to_the_terminal():
    with another_program(400, json.dumps({"code": "x\x1b[31m", "detail": "a\x1b]0;b" + "c" * 900}).encode()) as url:
        told = asked("calls", "--url", url).stderr
        assert "\x1b" not in told
        assert len(told) < 700


def test_a_service_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(asking, "ASK_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        result = asked("calls", "--url", f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert result.exit_code == 1
    assert "It may have done what was asked: look with `switchboard calls`" in result.stderr


@pytest.mark.parametrize("url", ["127.0.0.1:9090", "ftp://host", "http://", "http://user:pw@host", "http://host?x=1"])
def test_an_address_that_is_none(url):
    result = asked("calls", "--url", url)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "write it like http://127.0.0.1:9090" in result.stderr


@pytest.mark.parametrize("args", [("hang-up",), ("suspend",), ("suspend", "a", "b"), ("calls", "--token", "x")])
def test_wrong_use(args):
    assert asked(*args).exit_code == 2


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:9191"),
        ("0.0.0.0", "http://127.0.0.1:9191"),
        ("::", "http://127.0.0.1:9191"),
        ("10.1.2.3", "http://10.1.2.3:9191"),
        ("fd00::1", "http://[fd00::1]:9191"),
    ],
)
def test_where_the_same_environment_has_its_ops_port(host, url):
    assert _ops_url(Settings(ops_host=host, ops_port=9191)) == url


CALL = {
    "id": "rtc_1",
    "tenant": "acme",
    "user_key": "0123456789abcdef" * 4,
    "preset": "support",
    "started_at": 1795000000.5,
    "deadline": 1795000900.5,
    "ending": None,
    "state": "open",
}


@pytest.mark.parametrize(
    ("now", "changes", "told"),
    [
        (1795000000.5, {}, "15m 00s  open"),
        (1795000895.0, {}, "5s    open"),
        (1795000901.0, {"ending": "deadline"}, "none  ending: deadline"),
    ],
)
def test_a_row(now, changes, told):
    listing = {"now": now, "calls": [{**CALL, **changes}], "open_calls": 1, "cut": False, "suspended": []}
    row = telling.listing_text(listing).splitlines()[1]
    assert row == f"rtc_1  acme    0123456789ab  support  2026-11-18 11:06:40  {told}"


def test_a_listing_that_is_cut_and_one_that_the_policy_suspends():
    state = {"tenant": "widgets", "suspended": True, "suspended_by_policy": True, "open_calls": 2}
    text = telling.listing_text({"now": 0, "calls": [CALL], "open_calls": 1200, "cut": True, "suspended": [state]})
    assert "These are 1 of 1200 open calls; see fewer with --tenant." in text
    assert "widgets is suspended\x1b[0m (by the policy); 2 calls still open" in text
    assert telling.suspended_text(state, "").endswith("The policy suspends it as well, which `resume` cannot undo.")
