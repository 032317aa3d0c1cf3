"""`switchboard probe` as a process, against `switchboard serve` with a real Redis and the emulator behind it."""

import json
import signal
import time

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from switchboard.cli import main
from switchboard.probe.steps import STEPS
from tests.prove.service import ISSUER, ground, policy, tenant, token
from tests.support.leaks import LEAKS
from tests.support.process import Process, switchboard
from tests.support.world import LEGACY_SECRET

ORIGIN = "https://app.acme.example"
NO_SERVICE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def served():
    """A ground with one replica, whose tenant has origins."""
    with ground(policy(acme=tenant(origins=[ORIGIN]))) as made:
        made.add()
        made.start()
        yield made


@pytest.fixture(scope="module")
def url(served):
    return f"http://127.0.0.1:{served.replicas[0].port}"


@pytest.fixture
def key(tmp_path):
    file = tmp_path / "key"
    file.write_text(f"{LEGACY_SECRET}\n")
    return ("--signing-key-file", str(file), "--issuer", ISSUER, "--claim", "org_id=acme")


def run(*args, env=None):
    """Exit code, standard output and standard error."""
    with switchboard("probe", *args, env=env) as process:
        return process.wait(30), process.out, process.err


def states(served):
    return ["open" if call.ended_at is None else "ended" for call in served.calls().values()]


def grants(served):
    """How many have been issued."""
    return sum(record["action"] == "grant.issue" and record["outcome"] == "allowed" for record in served.records)


def test_everything(served, url, key):
    code, out, err = run("--url", url, "--call", "--origin", ORIGIN, *key)
    assert (code, err) == (0, "")
    head, *lines = out.splitlines()
    assert head.split() == ["STEP", "OUTCOME", "SECONDS", "DETAIL", "REQUEST"]
    assert [line.split()[:2] for line in lines[: len(STEPS)]] == [[step, "passed"] for step in STEPS]
    assert lines[-1] == f"{url}: 10 passed"
    assert set(states(served)) == {"ended"}
    # The last word of each line leads to the request in the log.
    for line in lines[: len(STEPS)]:
        assert f'"request_id":"{line.split()[-1]}"' in served.replicas[0].log.replace(": ", ":")


def test_for_machines(served, url, key):
    code, out, _ = run("--url", url, "--json", *key)
    told = json.loads(out)
    assert code == 0
    assert (told["url"], told["ok"], told["reached"], told["left_open"]) == (url, True, True, [])
    assert [step["step"] for step in told["steps"]] == list(STEPS)
    assert {step["outcome"] for step in told["steps"] if step["step"] in STEPS[:6]} == {"passed"}
    assert {step["detail"] for step in told["steps"] if step["step"] in STEPS[6:]} == {"needs --call"}


def test_as_metrics(served, url, key):
    began = time.time()
    code, out, _ = run("--url", url, "--prometheus", "--call", "--skip", "used-grant", *key)
    families = {family.name: family for family in text_string_to_metric_families(out)}
    samples = {
        (sample.name, sample.labels.get("step")): sample.value for one in families.values() for sample in one.samples
    }
    assert code == 0
    assert samples["switchboard_probe_success", None] == 1
    assert samples["switchboard_probe_calls_left_open", None] == 0
    assert began <= samples["switchboard_probe_end_timestamp_seconds", None] <= time.time()
    tried = [step for step in STEPS if step != "used-grant"]
    for step in tried:
        assert samples["switchboard_probe_step_success", step] == 1
        assert 0 < samples["switchboard_probe_step_duration_seconds", step] < 20
    assert {step for _, step in samples} == {None, *tried}


def test_by_the_environment(served, url, tmp_path):
    (tmp_path / "token").write_text(token("user-of-the-probe-17", tenant="acme"))
    options = {"URL": url, "TOKEN_FILE": str(tmp_path / "token"), "CALL": "1", "SKIP": "wrong-origin no-token"}
    env = {f"SWITCHBOARD_PROBE_{name}": value for name, value in options.items()}
    env["SWITCHBOARD_PROBE_OTHER_TOKEN"] = token("user-of-the-probe-18", tenant="acme")
    code, out, _ = run("--json", env=env)
    outcomes = {step["step"]: step["outcome"] for step in json.loads(out)["steps"]}
    assert code == 0
    assert {step for step, outcome in outcomes.items() if outcome == "skipped"} == {
        "no-token",
        "expired-token",
        "wrong-origin",
    }


def test_a_step_that_fails_is_named_and_counts(served, url, key):
    code, out, _ = run("--url", url, "--preset", "nothing", *key)
    (failed,) = [line for line in out.splitlines() if " failed " in line]
    assert code == 1
    assert failed.split()[0] == "token"
    assert "answered 404 unknown_preset, not 200" in failed
    assert out.splitlines()[-1] == f"{url}: 5 passed, 1 failed, 4 skipped"


@pytest.mark.parametrize("nowhere", [NO_SERVICE, "https://nobody.invalid"])
def test_nobody_there(key, nowhere):
    code, out, err = run("--url", nowhere, *key)
    assert (code, err) == (3, "")
    assert "cannot be reached" in out
    assert "1 failed, 9 skipped" in out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_while_a_call_is_opened(served, url, key, number, code):
    """What came of the offer is heard, and hung up."""
    before, granted = len(served.calls()), grants(served)
    served.faults(operations=["call"], delay_seconds=1.0)
    process = Process("probe", "--url", url, "--call", *key)
    try:
        end = time.monotonic() + 10
        while grants(served) == granted:
            assert time.monotonic() < end, process.err
            time.sleep(0.02)
        time.sleep(0.3)  # in which the offer is on its way
        process.popen.send_signal(number)
        assert process.wait(15) == code
    finally:
        served.faults()
        process.kill()
    assert "interrupted; what it opened has been hung up" in process.err
    assert len(served.calls()) == before + 1
    assert set(states(served)) == {"ended"}


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ((), "Missing option '--url'"),
        (("--url", "voice.example.com"), "write it like http"),
        (("--url", "http://["), "write it like http"),
        (("--url", "http://127.0.0.1:70000"), "write it like http"),
        (("--url", NO_SERVICE), "who is asking?"),
        (("--url", NO_SERVICE, "--anonymous", "--token-file", "TOKEN"), "who is asking?"),
        (("--url", NO_SERVICE, "--signing-key-file", "KEY"), "a signing key needs --issuer"),
        (("--url", NO_SERVICE, "--signing-key-file", "SHORT", "--issuer", "x"), "32 bytes or more"),
        (("--url", NO_SERVICE, "--signing-key-file", "KEY", "--issuer", "x", "--claim", "plan"), "NAME=VALUE"),
        (("--url", NO_SERVICE, "--token-file", "SHORT"), "a token is no JWT"),
        (("--url", NO_SERVICE, "--token-file", "EMPTY"), "is empty"),
        (("--url", NO_SERVICE, "--token-file", "BINARY"), "cannot be read"),
        (("--url", NO_SERVICE, "--token-file", "/nowhere"), "does not exist"),
        (("--url", NO_SERVICE, "--anonymous", "--json", "--prometheus"), "choose one"),
        (("--url", NO_SERVICE, "--anonymous", "--skip", "everything"), "'everything' is not one of"),
        (("--url", NO_SERVICE, "--anonymous", "--timeout", "0"), "0.0 is not in the range"),
    ],
)
def test_wrong_use(args, why, tmp_path):
    files = {
        "TOKEN": b"a.b.c",
        "KEY": LEGACY_SECRET.encode(),
        "SHORT": b"short",
        "EMPTY": b" \n",
        "BINARY": b"\xff\xfe",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    given = [str(tmp_path / one) if one in files else one for one in args]
    result = CliRunner().invoke(main, ["probe", *given])
    LEAKS.saw("wrong use of the probe", result.output)
    assert result.exit_code == 2
    assert why in result.output.replace("\n", " ")
