"""The program as people run it: real processes, exit codes, signals."""

import gc
import json
import logging
import resource
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import jwt
import pytest
import ryaml
import structlog
from click.testing import CliRunner

from switchboard.cli import main
from switchboard.dev.issuer import DevIssuer
from tests.support import keys
from tests.support.leaks import LEAKS
from tests.support.process import free_ports, switchboard
from tests.support.world import AUDIT_KEY, EXAMPLE, LEGACY_SECRET, OFFER, example

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "audit", "calls", "check", "dev", "emulate", "hang-up", "issue", "probe", "resume", "schema", "serve", "suspend",
    "user-key",
)  # fmt: skip


def serve_environment(**changes: str) -> dict[str, str]:
    public, ops = free_ports(2)
    return {
        "SWITCHBOARD_CONFIG": str(EXAMPLE),
        "SWITCHBOARD_HOST": "127.0.0.1",
        "SWITCHBOARD_PORT": str(public),
        "SWITCHBOARD_OPS_PORT": str(ops),
        "SWITCHBOARD_PUBLIC_URL": "https://voice.example.com",
        "SWITCHBOARD_SIGNING_KEYS": "signing-key-of-the-tests-0123456789",
        "SWITCHBOARD_USER_KEY_SECRET": "user-key-secret-of-the-tests-0123456",
        "SWITCHBOARD_AUDIT_KEY": AUDIT_KEY,
        "SWITCHBOARD_LAME_DUCK_SECONDS": "0",  # nobody is before it, and every test would wait for that
        "OPENAI_API_KEY": "sk-test-0123456789abcdefghijklmnop",
        "LEGACY_JWT_SECRET": LEGACY_SECRET,
        **changes,
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 5


def test_the_commands_are_these():
    assert set(main.commands) == set(COMMANDS)


def test_version():
    assert CliRunner().invoke(main, ["--version"]).output == "switchboard, version 0.1.0\n"


def test_serve_from_start_to_stop():
    env = serve_environment()
    with switchboard("serve", env=env) as process:
        public = f"http://127.0.0.1:{env['SWITCHBOARD_PORT']}"
        ops = f"http://127.0.0.1:{env['SWITCHBOARD_OPS_PORT']}"
        process.until(f"{public}/readyz")
        token = keys.sign(
            keys.claims(iss="https://legacy.widgets.example/", sub="user-serve-4711"), LEGACY_SECRET, "HS256"
        )
        refused = httpx.get(f"{public}/token?preset=none", headers={"authorization": f"Bearer {token}"})
        assert (refused.status_code, refused.json()["code"]) == (404, "unknown_preset")
        assert "server" not in refused.headers
        # Each connection is a descriptor, and the shell's first limit is low.
        soft, hard = resource.prlimit(process.popen.pid, resource.RLIMIT_NOFILE)
        assert soft == hard
        assert 'reason="unknown_preset"' in httpx.get(f"{ops}/metrics").text
        assert process.stop(signal.SIGTERM) == 0
        opening, record, closing = [json.loads(line) for line in process.lines["stdout"]]
        assert record["reason"] == "unknown_preset"
        assert (opening["action"], closing["action"]) == ("audit.open", "audit.close")
        assert [one["seq"] for one in (opening, record, closing)] == [1, 2, 3]
        # The log is on stderr: the two issuers of the example that nobody runs are reported there, as JSON.
        assert all(json.loads(line)["level"] for line in process.lines["stderr"])


@pytest.fixture
def what_serve_sets():
    """What `serve` sets for the whole process that it has to itself, set back: the log, files, looking for garbage."""
    log, threshold = logging.getLogger(), gc.get_threshold()
    handlers, level, files = log.handlers, log.level, resource.getrlimit(resource.RLIMIT_NOFILE)
    structured = structlog.get_config()
    yield
    log.handlers = handlers
    log.setLevel(level)
    structlog.configure(**structured)
    resource.setrlimit(resource.RLIMIT_NOFILE, files)
    gc.set_threshold(*threshold)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"SWITCHBOARD_PUBLIC_URL": ""}, "SWITCHBOARD_PUBLIC_URL: where frontends reach this service"),
        ({"SWITCHBOARD_SIGNING_KEYS": ""}, "SWITCHBOARD_SIGNING_KEYS"),
        ({"SWITCHBOARD_USER_KEY_SECRET": ""}, "SWITCHBOARD_USER_KEY_SECRET"),
        ({"SWITCHBOARD_AUDIT_KEY": ""}, "SWITCHBOARD_AUDIT_KEY (or …_FILE): a secret of 32 characters or more"),
        ({"SWITCHBOARD_AUDIT_FSYNC": "1"}, "SWITCHBOARD_AUDIT_FSYNC: needs a file"),
        ({"SWITCHBOARD_AUDIT": "file:/no/where"}, "SWITCHBOARD_AUDIT: file:/no/where: No such file or directory"),
        ({"SWITCHBOARD_AUDIT_ANCHORS": "redis"}, "SWITCHBOARD_AUDIT_ANCHORS: redis needs SWITCHBOARD_REDIS_URL"),
        ({"SWITCHBOARD_PORT": "http"}, "SWITCHBOARD_PORT"),
        ({"SWITCHBOARD_EDGE_LIMIT": "300"}, "SWITCHBOARD_EDGE_LIMIT: Value error, `300` is no limit: write 300/minute"),
        ({"SWITCHBOARD_EDGE_EXEMPT": "me"}, "SWITCHBOARD_EDGE_EXEMPT: Value error, `me` is no address or network"),
        ({"SWITCHBOARD_TRUSTED_PROXIES": "::/0"}, "SWITCHBOARD_TRUSTED_PROXIES: Value error, `::/0` would believe"),
        ({"OPENAI_API_KEY": ""}, "env:OPENAI_API_KEY: not set"),
        ({"LEGACY_JWT_SECRET": ""}, "env:LEGACY_JWT_SECRET: not set"),
        ({"LEGACY_JWT_SECRET": "short"}, "env:LEGACY_JWT_SECRET: a shared secret for HS256 has 32 bytes or more"),
        ({"OPENAI_API_KEY": "sk-one\r\nsk-two"}, "env:OPENAI_API_KEY: holds a space, a line break"),
        ({"SWITCHBOARD_CONFIG": "/nowhere.yaml"}, "No such file or directory"),
        ({"HTTPS_PROXY": "socks5://proxy:1080"}, "HTTPS_PROXY: no address of an HTTP proxy"),
        ({"SSL_CERT_FILE": "/nowhere.pem", "SSL_CERT_DIR": ""}, "SSL_CERT_FILE, SSL_CERT_DIR: "),
    ],
)
def test_serve_says_what_it_lacks(changes, says, what_serve_sets):
    """In this process, as there are many; the next one is a real one."""
    result = CliRunner().invoke(main, ["serve"], env=serve_environment(**changes))
    assert result.exit_code == 1
    assert says in result.stderr
    assert result.stdout == ""


def test_serve_refuses_a_policy_with_mistakes(tmp_path):
    file = tmp_path / "switchboard.yaml"
    file.write_text(EXAMPLE.read_text().replace("provider: openai", "provider: opnai"))
    with switchboard("serve", env=serve_environment(SWITCHBOARD_CONFIG=str(file))) as process:
        assert process.wait() == 1
        assert "tenants.acme.provider" in process.err


def test_a_port_that_is_taken():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with switchboard("serve", env=serve_environment(SWITCHBOARD_PORT=port)) as process:
            assert process.wait() == 1
            assert f"127.0.0.1:{port} is in use" in process.err


def test_emulate_runs_alone():
    with switchboard("emulate", "--port", "0", "--no-media", "--key", "sk-one-12345678") as process:
        while not process.out:
            process.popen.poll()
            assert process.popen.returncode is None, process.err
        base = process.out.removeprefix("base URL: ")
        headers = {"authorization": "Bearer sk-one-12345678"}
        minted = httpx.post(f"{base}/realtime/client_secrets", json={}, headers=headers)
        assert minted.status_code == 200
        headers = {"authorization": f"Bearer {minted.json()['value']}", "content-type": "application/sdp"}
        assert httpx.post(f"{base}/realtime/calls", content=OFFER, headers=headers).status_code == 201
        assert process.stop(signal.SIGINT) == 0


def test_issue_makes_tokens_of_the_dev_issuer(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    args = ["issue", "--tenant", "acme", "--subject", "user-ivy-20aa", "--claim", "plan=pro", "--seconds", "60"]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 0
    issuer = DevIssuer(tmp_path / "switchboard")
    claims = jwt.decode(
        result.output.strip(),
        issuer.public_file.read_bytes(),
        algorithms=["EdDSA"],
        audience="switchboard",
        issuer="urn:switchboard:dev-issuer",
    )
    assert claims == {
        "plan": "pro",
        "iss": "urn:switchboard:dev-issuer",
        "aud": "switchboard",
        "sub": "user-ivy-20aa",
        "tenant": "acme",
        "iat": claims["iat"],
        "exp": claims["iat"] + 60,
    }
    private = tmp_path / "switchboard" / "dev-issuer.pem"
    assert private.stat().st_mode & 0o777 == 0o600


def test_issue_refuses_claims_without_a_value():
    result = CliRunner().invoke(main, ["issue", "--tenant", "a", "--subject", "b", "--claim", "plan"])
    assert result.exit_code == 2
    assert "NAME=VALUE" in result.output


def test_dev_with_a_policy_of_ones_own(tmp_path):
    file = tmp_path / "mine.yaml"
    tree = example()
    tree["providers"]["azure"] = {"kind": "azure", "base_url": "https://x.example/openai/v1", "keys": ["env:AZURE_KEY"]}
    tree["tenants"]["acme"]["provider"] = "azure"
    tree["tenants"]["acme"]["presets"]["expert"]["hide_instructions"] = True
    file.write_text(ryaml.dumps(tree))
    state = {"XDG_STATE_HOME": str(tmp_path)}
    with switchboard("dev", "--config", str(file), "--port", "0", "--ops-port", "0", env=state) as process:
        while "Stop with Ctrl-C" not in process.out:
            assert process.popen.poll() is None, process.err
        url = next(line.split()[1] for line in process.lines["stdout"] if "Talk:" in line).removesuffix("/demo")
        assert httpx.get(url).headers["location"] == "/demo"
        page = httpx.get(f"{url}/demo")
        assert "unsafe" not in page.headers["content-security-policy"]
        config = httpx.get(f"{url}/demo/config").json()
        assert [tenant["name"] for tenant in config["tenants"]] == ["acme", "widgets"]
        login = {"tenant": "acme", "subject": "user-dora-5b5b", "claims": {"plan": "pro"}, "seconds": 60}
        token = httpx.post(f"{url}/demo/issue", json=login).json()["token"]
        LEAKS.plant("JWT", token[-40:])
        answer = httpx.get(f"{url}/token?preset=expert", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 200
        grant = {"authorization": f"Bearer {answer.json()['value']}", "content-type": "application/sdp"}
        answer = httpx.post(f"{url}/sdp", headers=grant, content=OFFER)
        assert answer.status_code == 201
        assert len(answer.headers["location"]) == len("/sdp/rtc_") + 32, "the provider's kind is emulated, too"
        assert httpx.post(f"{url}/demo/issue", json={"tenant": "acme"}).status_code == 400
        for headers in ({"host": "evil.example"}, {"origin": "https://evil.example"}):
            assert httpx.post(f"{url}/demo/issue", json=login, headers=headers).status_code == 403
        assert process.stop(signal.SIGINT) == 0


def test_dev_names_the_mistakes_of_a_policy(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(EXAMPLE.read_text().replace("delivery: relay", "delivery: rellay"))
    with switchboard("dev", "--config", str(file), "--port", "0", "--ops-port", "0") as process:
        assert process.wait() == 1
        assert "tenants.acme.presets.support.delivery" in process.err


def test_the_wheel_holds_everything_that_the_package_reads(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
        assert archive.read("switchboard/data/openapi.yaml") == (ROOT / "openapi.yaml").read_bytes()
        assert archive.read("switchboard/data/switchboard.example.yaml") == EXAMPLE.read_bytes()
    package = ROOT / "service" / "switchboard"
    files = {f"switchboard/{file.relative_to(package)}" for file in package.rglob("*") if file.is_file()}
    assert {file for file in files if "__pycache__" not in file} <= packed
