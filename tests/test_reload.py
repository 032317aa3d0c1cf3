"""The configuration at run time: real processes, and files that are exchanged as the kubelet does it."""

import asyncio
import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from switchboard.admission import Policies, Policy
from switchboard.app import issuers as issuers_module
from switchboard.app.issuers import Issuers
from switchboard.config import schema
from switchboard.config.reading import read
from switchboard.config.secrets import Secrets
from switchboard.identity.verifier import Verifier
from switchboard.metrics import Metrics
from switchboard.tenants import Origins
from tests.config.test_loading import mount
from tests.prove.service import Ground, Replica, ground, new_offer, new_user, policy, tenant
from tests.support import keys
from tests.support.leaks import LEAKS
from tests.support.servers import KeyServer
from tests.support.world import ADMIN_TOKEN
from tests.test_metrics import samples

PASTED = LEAKS.plant("pasted key", "sk-pasted-into-the-policy-0123456789")
OTHER_KEY = LEAKS.plant("API key", "sk-other-0123456789abcdefghijklmnop")
JWT_SECRET = LEAKS.plant("shared secret", "a-shared-secret-of-the-reload-tests-01")
NEW_JWT_SECRET = LEAKS.plant("shared secret", "another-shared-secret-of-these-tests-2")
ADMIN = {"authorization": f"Bearer {ADMIN_TOKEN}"}


class Service:
    """A replica with a folder of its own, mounted as a ConfigMap; `begin` makes it as it was at first."""

    def __init__(self, place: Ground, folder: Path, **settings: str) -> None:
        self.place = place
        self.folder = folder / "policy"
        self.folder.mkdir()
        self.base_url = f"{place.provider.base_url}/v1".replace("//v1", "/v1")
        self._mounts = 0
        self._past: dict[str, float] = {}
        self.short: tuple[str, str] = "", ""
        """Calls of a tenant that is gone since."""
        self._past_lines = 0
        self._set_up()
        self.mount()
        self.replica: Replica = place.add(
            config=str(self.folder), admin_token=ADMIN_TOKEN, audit=f"file:{folder}/audit.jsonl", **settings
        )
        self.replica._env |= {"OTHER_KEY": OTHER_KEY}
        self.replica.start()
        self.ops = f"http://127.0.0.1:{self.replica._ops_port}"
        self.url = f"http://127.0.0.1:{self.replica.port}"
        self.replica.until_ready()

    def _set_up(self) -> None:
        whole = policy(acme=tenant(), direct=tenant(preset={"delivery": "direct"}))
        self.shared: dict[str, Any] = {
            "providers": self.providers(openai="env:OPENAI_API_KEY"),
            "issuers": whole["issuers"],
        }
        self.tenants: dict[str, Any] = whole["tenants"]

    def begin(self) -> None:
        """Have what was at first, and count from now on."""
        self._set_up()
        self.hasten()
        assert "degraded" not in self.ready
        self._past, self._past_lines = self._counted, len(self.replica.process.lines["stderr"])

    def providers(self, **references: str) -> dict[str, Any]:
        """Accounts at the emulator, each with one key."""
        return {
            name: {"kind": "openai", "base_url": self.base_url, "keys": [reference]}
            for name, reference in references.items()
        }

    @property
    def files(self) -> dict[str, Any]:
        return {"shared": self.shared, **{name: {"tenants": {name: one}} for name, one in self.tenants.items()}}

    def mount(self, **changed: Any) -> None:
        """Exchange the folder: as its tenants are now, and these files."""
        self._mounts += 1
        files = self.files | changed
        for link in self.folder.glob("*.yaml"):
            if link.stem not in files:
                link.unlink()
        mount(self.folder, f"..{self._mounts}", files)

    def hasten(self) -> None:
        """Exchange the folder, and have it read now."""
        before = self.reloads
        self.mount()
        self.replica.process.popen.send_signal(signal.SIGHUP)
        self.until(lambda: self.reloads != before)

    @property
    def reloads(self) -> dict[str, float]:
        """How many, by outcome."""
        counted = {outcome: value - self._past.get(outcome, 0) for outcome, value in self._counted.items()}
        return {outcome: value for outcome, value in counted.items() if value}

    @property
    def _counted(self) -> dict[str, float]:
        page = samples(self.replica.metrics, "switchboard_config_reload_total")
        return {dict(labels)["outcome"]: value for labels, value in page.items()}

    @property
    def last_good(self) -> float:
        (value,) = samples(self.replica.metrics, "switchboard_config_last_good_timestamp_seconds").values()
        return value

    @property
    def ready(self) -> Any:
        return httpx.get(f"{self.ops}/readyz", trust_env=False).json()

    def until(self, holds: Callable[[], object], seconds: float = 15) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert self.replica.process.popen.poll() is None, self.replica.log
            assert time.monotonic() < end, f"{self.ready} {self.replica.log}"
            time.sleep(0.02)

    def mint(self, jwt: str) -> httpx.Response:
        return httpx.get(f"{self.url}/token", headers={"authorization": f"Bearer {jwt}"}, trust_env=False, timeout=10)

    def code(self, jwt: str) -> str:
        answer = self.mint(jwt)
        return "ok" if answer.status_code == 200 else answer.json()["code"]

    def call(self, of: str = "acme") -> str:
        """The id of a call that a new user has opened; on a busy machine Redis may look away, and is asked again."""
        headers = {"authorization": f"Bearer {new_user(of).token}", "content-type": "application/sdp"}
        for _ in range(20):
            answer = httpx.post(f"{self.url}/sdp", headers=headers, content=new_offer(), trust_env=False)
            if answer.status_code != 503:
                break
            time.sleep(0.1)
        assert answer.status_code == 201, answer.text
        return answer.headers["location"].rpartition("/")[2]

    def hang_up(self, call_id: str) -> httpx.Response:
        """As an operator."""
        return httpx.delete(f"{self.ops}/admin/calls/{call_id}", headers=ADMIN, trust_env=False, timeout=10)

    def is_over(self, call_id: str) -> bool:
        """Whether the provider says so."""
        return self.place.calls()[call_id].ended_at is not None

    def ended_by(self, *calls: str) -> list[str | None]:
        """What ended these calls, as the audit has it."""
        files = self.folder.parent.glob("*.jsonl")
        lines = [line for file in files for line in file.read_text().splitlines()]
        records = [json.loads(line) for line in lines if line.endswith("}")]
        ends = {one["call_id"]: one["reason"] for one in records if one["action"] == "call.end"}
        return [ends.get(call) for call in calls]

    def told(self, **wanted: str) -> list[dict[str, Any]]:
        """The lines of the log with these values; waits for one, as a thread reads them."""

        def look() -> list[dict[str, Any]]:
            return [line for line in self.log if wanted.items() <= line.items()]

        self.until(look)
        return look()

    @property
    def log(self) -> list[dict[str, Any]]:
        lines = self.replica.process.lines["stderr"][self._past_lines :]
        return [json.loads(line) for line in lines if line.startswith("{")]


@pytest.fixture(scope="module")
def place() -> Iterator[Ground]:
    with ground(policy(acme=tenant())) as made:
        yield made


@pytest.fixture(scope="module")
def _service(place, tmp_path_factory) -> Iterator[Service]:
    made = Service(place, tmp_path_factory.mktemp("service"))
    # For a test at the end: no call can be shorter, and nobody has to wait for it.
    made.tenants["short"] = tenant(limits={"call_seconds": 10})
    made.hasten()
    made.short = made.call("short"), made.call("short")
    yield made
    made.replica.kill()


@pytest.fixture
def service(_service) -> Iterator[Service]:
    _service.begin()
    yield _service
    _service.place.faults()


# What changes


def test_an_exchanged_folder_is_used_by_itself(service):
    later, started = new_user("later"), service.last_good
    assert service.code(later.token) == "unknown_tenant"
    service.tenants["later"] = tenant()
    service.mount()
    service.until(lambda: service.code(later.token) == "ok")
    assert service.reloads == {"ok": 1}
    assert service.last_good > started
    (told,) = service.told(event="the configuration was read again")
    assert (told["files"], told["count"], told["tenants"]) == (["later.yaml"], 1, 3)
    assert "degraded" not in service.ready
    # A tenant that came later has label values of its own.
    counted = samples(service.replica.metrics, "switchboard_decisions_total")
    assert "later" in {dict(labels)["tenant"] for labels in counted}


def test_a_broken_file_changes_nothing_and_is_told_everywhere(service):
    user, later = new_user("acme"), new_user("later")
    service.mount(
        acme={"tenants": {"acme": tenant(origins=["app.acme.example"], default_preset="tlak")}},
        shared=service.shared | {"providers": {"openai": {**service.shared["providers"]["openai"], "keys": [PASTED]}}},
        later={"tenants": {"later": tenant()}},
    )
    service.until(lambda: service.reloads == {"failed": 1})
    # Everybody is served as before, and nothing of the broken one is used.
    assert (service.code(user.token), service.code(later.token)) == ("ok", "unknown_tenant")
    told = service.told(level="error")
    mistakes = read(service.folder, today=datetime.now(UTC).date()).mistakes
    assert [(one["event"], sorted(one["mistakes"]), one["count"]) for one in told] == [
        ("the configuration cannot be used; the last good one is kept", sorted(map(str, mistakes)), 3)
    ]
    assert {str(one).partition(":")[0] for one in mistakes} == {
        "tenants.acme.origins[0]", "tenants.acme.default_preset", "providers.openai.keys[0]",
    }  # fmt: skip
    ready = service.ready
    assert ready["status"] == "ready"
    assert ready["degraded"]["config"].startswith(
        "the last good one is kept: 3 mistakes, of which the first is tenants."
    )
    public = httpx.get(f"{service.url}/readyz", trust_env=False)
    assert (public.status_code, public.json()) == (200, {"status": "ready", "degraded": ["config"]})
    # Nothing is read again until something changes, and the last good one gets older meanwhile.
    last_good = service.last_good
    time.sleep(2.5)
    assert (service.reloads, service.last_good) == ({"failed": 1}, last_good)
    service.mount()
    service.until(lambda: service.reloads == {"failed": 1, "ok": 1})
    assert "degraded" not in service.ready
    assert service.last_good > last_good


def test_sighup_reads_at_once_and_goes_on_in_a_new_audit_file(service):
    audit = service.folder.parent / "audit.jsonl"
    audit.rename(audit.with_name("moved.jsonl"))
    service.tenants["acme"]["suspended"] = True
    service.hasten()
    assert service.code(new_user("acme").token) == "tenant_suspended"
    service.until(audit.exists)
    assert service.reloads == {"ok": 1}


def test_a_request_in_flight_ends_under_the_policy_that_it_began_with(service):
    service.shared["providers"] = service.providers(openai="env:OPENAI_API_KEY", second="env:OTHER_KEY")
    service.place.faults(operations=["mint"], delay_seconds=4)
    answers: list[httpx.Response] = []
    minting = threading.Thread(target=lambda: answers.append(service.mint(new_user("direct").token)))
    minting.start()
    time.sleep(0.4)
    del service.tenants["direct"]
    service.shared["providers"] = service.providers(second="env:OTHER_KEY")
    service.tenants["acme"]["provider"] = "second"
    service.hasten()
    assert service.code(new_user("direct").token) == "unknown_tenant"
    service.place.faults()
    assert answers == []
    minting.join()
    assert [answer.status_code for answer in answers] == [200]


# What a reload takes away


def test_a_provider_that_is_gone_still_ends_its_calls(service):
    call, untouched = service.call(), service.call()
    service.shared["providers"] = service.providers(second="env:OTHER_KEY")
    for one in service.tenants.values():
        one["provider"] = "second"
    service.hasten()
    assert service.hang_up(call).json()["ended_by"] == "admin"
    assert service.is_over(call)
    assert not service.is_over(untouched)
    # And once more: what it was two reloads ago.
    service.tenants["third"] = tenant(provider="second")
    service.hasten()
    assert service.hang_up(untouched).status_code == 200
    assert service.is_over(untouched)


def test_a_key_that_is_gone_still_ends_its_calls(service):
    """The provider finds a call by the key that opened it only, and answers 404 to any other."""
    call = service.call()
    service.shared["providers"] = service.providers(openai="env:OTHER_KEY")
    service.hasten()
    later = service.call()
    assert [service.hang_up(one).status_code for one in (call, later)] == [200, 200]
    assert [service.is_over(one) for one in (call, later)] == [True, True]
    service.until(lambda: service.ended_by(call, later) == ["admin", "admin"])


def test_a_tenant_that_is_suspended_by_a_reload_has_its_calls_hung_up(service):
    call, other = service.call(), service.call("direct")
    service.tenants["acme"]["suspended"] = True
    service.hasten()
    service.until(lambda: service.ended_by(call, other) == ["suspended", None])
    assert service.is_over(call)
    assert not service.is_over(other)


def test_a_tenant_that_is_gone_is_refused_and_its_calls_can_be_ended(service):
    service.tenants["leaving"] = tenant()
    service.hasten()
    one, two = service.call("leaving"), service.call("leaving")
    del service.tenants["leaving"]
    service.hasten()
    assert service.code(new_user("leaving").token) == "unknown_tenant"
    listed = httpx.get(f"{service.ops}/admin/calls?tenant=leaving", headers=ADMIN, trust_env=False).json()
    assert {call["id"] for call in listed["calls"]} == {one, two}
    everywhere = httpx.get(f"{service.ops}/admin/calls", headers=ADMIN, trust_env=False).json()
    assert {one, two} <= {call["id"] for call in everywhere["calls"]}
    assert service.hang_up(one).json()["ended_by"] == "admin"
    assert [service.is_over(call) for call in (one, two)] == [True, False]


def test_files_that_hang_hold_up_nobody_and_not_the_end(place, tmp_path):
    service = Service(place, tmp_path)
    last_good = service.last_good
    os.mkfifo(service.folder / "hangs.yaml")  # who opens it waits for somebody to write into it, as with a lost server
    service.replica.process.popen.send_signal(signal.SIGHUP)
    service.until(lambda: service.code(new_user("acme").token) == "ok")
    time.sleep(2.5)
    assert service.code(new_user("acme").token) == "ok"
    assert (service.reloads, service.last_good) == ({}, last_good)
    assert service.replica.process.stop() == 0


# Secrets and issuers


def test_the_secret_of_an_issuer_is_read_again(service, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(JWT_SECRET)
    issuer = {"issuer": "https://filed.example/", "audience": "switchboard", "algorithms": ["HS256"], "tenant": "acme"}
    service.shared["issuers"] = [*service.shared["issuers"], {**issuer, "secret": f"file:{secret}"}]
    service.hasten()
    claims = keys.claims(iss="https://filed.example/", sub="user-fay", org_id=None)
    old, new = (keys.sign(claims, one, "HS256") for one in (JWT_SECRET, NEW_JWT_SECRET))
    assert (service.code(old), service.code(new)) == ("ok", "invalid_token")
    secret.write_text(NEW_JWT_SECRET)  # and nobody says so
    service.until(lambda: service.code(new) == "ok")
    assert service.code(old) == "invalid_token"
    secret.write_text("too short")
    service.until(lambda: "config" in service.ready.get("degraded", {}))
    assert "32 bytes or more" in service.ready["degraded"]["config"]
    assert service.code(new) == "ok"


def _written(issuer: str, url: str, **changes: Any) -> schema.Issuer:
    content = {"issuer": issuer, "audience": "switchboard", "algorithms": ["RS256"], "jwks_url": url, "tenant": "acme"}
    return schema.Issuer.model_validate(content | changes)


@pytest.mark.anyio
async def test_issuers_come_go_and_keep_their_keys(monkeypatch):
    monkeypatch.setattr(issuers_module, "LEAVE_SECONDS", 0.1)
    key = keys.private_key("RSA")
    token = keys.sign(keys.claims(iss="https://a.example/"), key, kid="rsa-1")
    first, second = (KeyServer(keys.jwk(key, "rsa-1")) for _ in range(2))
    async with first.running(), second.running(), httpx.AsyncClient() as client:
        issuers = Issuers(Secrets({}), client, Metrics())
        a = _written("https://a.example/", f"{first.url}/jwks.json")
        b = _written("https://b.example/", f"{second.url}/jwks.json")
        before = issuers.prepare([a])
        issuers.start(before)
        await Verifier(before.issuers).verify(token)
        # One more, and another rule for the one that was there: its keys are not fetched again.
        after = issuers.prepare([_written(a.issuer, str(a.jwks_url), leeway_seconds=0), b])
        issuers.start(after)
        issuers.leave(after)
        await _until(lambda: second.fetches == 1)
        await Verifier(after.issuers).verify(token)
        assert first.fetches == 1
        assert after.issuers[a.issuer].keys is before.issuers[a.issuer].keys
        # Gone: nothing runs for it any more, once those who asked have had their time.
        last = issuers.prepare([b])
        issuers.start(last)
        issuers.leave(last)
        assert len(issuers._leaving) == 1
        await Verifier(after.issuers).verify(token)
        await _until(lambda: not issuers._leaving)
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] != []
        issuers.leave(issuers.prepare([]))
        await issuers.aclose()
        assert not issuers._leaving
    assert (first.fetches, second.fetches) == (1, 1)


async def _until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - what changes is a number
            await asyncio.sleep(0.01)


def test_the_calls_of_a_tenant_that_is_gone_end_in_time(service):
    service.until(lambda: service.ended_by(*service.short) == ["deadline", "deadline"])
    assert [service.is_over(call) for call in service.short] == [True, True]


# Providers of earlier policies, by themselves


class _Provider:
    def __init__(self, *names: str) -> None:
        self._names = names

    def has_key(self, name: str) -> bool:
        return name in self._names


def _provider(*names: str) -> Any:
    return _Provider(*names)


def _policy(**providers: Any) -> Policy:
    return Policy(verifier=Verifier({}), tenants={}, providers=providers, origins=Origins())


def test_who_can_end_a_call():
    now = 0.0
    old, new, newest = (_provider(*names) for names in (("env:A", "env:B"), ("env:B",), ("env:C",)))
    policies = Policies(_policy(openai=old), clock=lambda: now)
    for one in (new, newest):
        policies.replace(_policy(openai=one))
    assert policies.provider_of("openai", "env:C") is newest
    assert policies.provider_of("openai", "env:B") is new
    assert policies.provider_of("openai", "env:A") is old
    assert policies.provider_of("openai", "env:Z") is newest
    assert policies.provider_of("other", "env:A") is None
    policies.replace(_policy())
    assert policies.provider_of("openai", "env:C") is newest
    assert policies.provider_of("openai", "env:Z") is newest
    now = 3600 + 299.0
    assert policies.provider_of("openai", "env:A") is old
    now = 3600 + 301.0
    assert policies.provider_of("openai", "env:A") is None


def test_a_policy_with_the_same_providers_leaves_nothing_behind():
    same = _Provider("env:A")
    policies = Policies(_policy(openai=same))
    for _ in range(100):
        policies.replace(_policy(openai=same))
    assert len(policies._former) == 0
    for number in range(100):
        policies.replace(_policy(openai=_Provider(f"env:{number}")))
    assert len(policies._former) == 64


# Several workers


def test_every_worker_reads_it_and_the_parent_tells_of_each(place, tmp_path):
    service = Service(place, tmp_path, workers="2")
    service.until(lambda: [one["status"] for one in service.ready.get("workers", ())] == ["ready", "ready"])
    service.tenants["later"] = tenant()
    service.mount()
    service.replica.process.popen.send_signal(signal.SIGHUP)
    service.until(lambda: service.reloads == {"ok": 3})  # the parent serves operators, who ask by tenant
    later = new_user("later").token
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(httpx.Client(trust_env=False)) for _ in range(12)]
        asked = [one.get(f"{service.url}/token", headers={"authorization": f"Bearer {later}"}) for one in clients]
    assert [answer.status_code for answer in asked] == [200] * 12
    last_good = service.last_good
    service.mount(acme="tenants: [\n")
    service.replica.process.popen.send_signal(signal.SIGHUP)
    service.until(lambda: service.reloads == {"ok": 3, "failed": 3})

    def kept() -> bool:
        ready = service.ready
        return ready["status"] == "ready" and all("config" in one.get("degraded", {}) for one in ready["workers"])

    service.until(kept)
    assert "invalid YAML" in service.ready["workers"][0]["degraded"]["config"]
    assert service.last_good < last_good + 5
    assert service.replica.process.stop() == 0
