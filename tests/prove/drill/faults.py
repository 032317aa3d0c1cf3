"""The faults of the drill: how each begins and ends, what it excuses, and where two replicas stand meanwhile."""

import resource
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson

from tests.prove import service
from tests.prove.calls.books import PROVIDER_TIMEOUT
from tests.prove.drill import judging
from tests.prove.drill.judging import Refusal
from tests.prove.drill.load import JWKS_ISSUER, KEY_ID, TENANT
from tests.prove.service import Ground, Replica, ground
from tests.support import keys
from tests.support.faults import SlowWay
from tests.support.process import free_ports
from tests.support.redis import SentinelSetup, sentinel_setup

CALL_SECONDS = 10  # the shortest that a policy may say
REPLICAS = 2
VICTIM = 0  # the replica at fault, where it is one
PERSISTENT = ("--appendonly", "yes")  # so that what was used stays used when Redis is killed
SLOW_REDIS_SECONDS, SLOW_PROVIDER_SECONDS = 0.3, 1.0
STEP_SECONDS = 30


class KeyServer:
    """An issuer's key set over HTTP, which can be gone."""

    def __init__(self) -> None:
        (self._port,) = free_ports(1)
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/jwks.json"

    def open(self) -> None:
        body = orjson.dumps({"keys": [keys.jwk(keys.private_key("RSA"), KEY_ID)]})

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
                """Nobody wants to know."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def shut(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@dataclass(frozen=True, slots=True)
class Stage:
    """Two replicas, and all around them that may fail."""

    place: Ground
    folder: Path
    key_server: KeyServer
    redis_way: SlowWay | None
    provider_way: SlowWay | None
    sentinels: SentinelSetup | None

    @property
    def victim(self) -> Replica:
        return self.place.replicas[VICTIM]

    @property
    def audit_files(self) -> list[Path]:
        return sorted(self.folder.glob("audit-*.jsonl"))

    @property
    def clock_file(self) -> Path:
        return self.folder / "clock"


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of the drill.

    `needs` names what stands between: `redis way`, `provider way`, `sentinels`, `clock`.
    """

    name: str
    what: str
    begin: Callable[[Stage], object]
    end: Callable[[Stage], object]
    allowed: Sequence[Refusal] = judging.NONE
    within: float = 0.0
    """Seconds after its end in which it still excuses a refusal."""
    needs: str = ""
    sign: str = ""
    """By which of `running.SIGNS` it shows while it lasts, where not by refusals alone."""
    is_refused: bool = True
    """Whether somebody has to be refused meanwhile; if not, nobody may."""
    victim: int | None = None
    of_provider: bool = False
    """Whether calls cannot be hung up meanwhile, so that the leash counts from its end."""
    ends_itself: bool = False
    """Whether `end` waits for what mends itself; else the fault is kept up for a while."""


def policy(jwks_url: str) -> dict[str, Any]:
    """A tenant whose users may have one call each, with both kinds of delivery and two issuers."""
    limits = {"open_calls": {"user": 1}, "when_user_full": "refuse", "call_seconds": CALL_SECONDS}
    tree = service.policy(**{TENANT: service.tenant(limits=limits)})
    presets = tree["tenants"][TENANT]["presets"]
    presets["direct"] = {**presets["talk"], "delivery": "direct"}
    issuer = {"issuer": JWKS_ISSUER, "audience": "switchboard", "jwks_url": jwks_url, "algorithms": ["RS256"]}
    tree["issuers"].append({**issuer, "tenant_claim": "org_id", "tenants": "any"})
    return tree


@contextmanager
def stage(fault: Fault) -> Iterator[Stage]:
    """Two replicas that are not started yet, and what the fault needs."""
    key_server = KeyServer()
    with ground(policy(key_server.url), *PERSISTENT) as place, ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        key_server.open()
        stack.callback(key_server.shut)
        redis_way = provider_way = sentinels = None
        settings = {"redis_url": place.redis.url}
        if fault.needs == "redis way":
            redis_way = stack.enter_context(SlowWay(place.redis.port))
            settings["redis_url"] = redis_way.url
        if fault.needs == "provider way":
            port = place.provider.base_url.port
            assert port is not None
            provider_way = stack.enter_context(SlowWay(port))
            text = place.policy_file.read_text()
            place.policy_file.write_text(text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{provider_way.port}"))
        if fault.needs == "sentinels":
            sentinels = stack.enter_context(sentinel_setup(folder))
            place.redis = sentinels.primary
            settings["redis_url"] = sentinels.url
        made = Stage(place, folder, key_server, redis_way, provider_way, sentinels)
        if fault.needs == "clock":
            made.clock_file.write_text("+0s\n")
        for number in range(REPLICAS):
            place.add(
                **settings,
                clock_file=str(made.clock_file) if fault.needs == "clock" and number == VICTIM else None,
                audit=f"file:{folder}/audit-{number}.jsonl",
                provider_timeout=str(PROVIDER_TIMEOUT),
                expected_replicas=str(REPLICAS),
                log_level="warning",
            )
        try:
            yield made
        finally:
            for replica in place.replicas:  # before what they use
                replica.kill()


# How they begin and end


def _provider(**faults: Any) -> Callable[[Stage], object]:
    return lambda on: on.place.faults(**faults)


def _signal(number: int, who: str) -> Callable[[Stage], object]:
    return lambda on: (on.place.emulator if who == "provider" else on.victim.process).popen.send_signal(number)


def _shut_provider(on: Stage) -> None:
    assert on.provider_way is not None
    on.provider_way.shut()


def _open_provider(on: Stage) -> None:
    assert on.provider_way is not None
    on.provider_way.open()


def _delay_redis(seconds: float) -> Callable[[Stage], object]:
    def delay(on: Stage) -> None:
        assert on.redis_way is not None
        on.redis_way.delay_by(seconds)

    return delay


def _until_promoted(on: Stage) -> None:
    assert on.sentinels is not None
    on.place.redis = on.sentinels.until_promoted(on.place.redis)


def _lose_keys(on: Stage) -> None:
    on.key_server.shut()
    on.victim.kill()
    on.victim.start()
    on.victim.until_ready()


def _start_again(on: Stage) -> None:
    on.victim.start()
    on.victim.until_ready()


def _fill_disks(on: Stage) -> None:
    for replica, file in zip(on.place.replicas, on.audit_files, strict=True):
        _bound_files(replica, file.stat().st_size)


def _make_room(on: Stage) -> None:
    for replica in on.place.replicas:
        _bound_files(replica, resource.RLIM_INFINITY)


def _bound_files(replica: Replica, size: int) -> None:
    resource.prlimit(replica.process.popen.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def _break_policy(on: Stage) -> None:
    shutil.copy(on.place.policy_file, on.folder / "good.yaml")
    _replace(
        on.place.policy_file, on.place.policy_file.read_text().replace("default_preset: talk", "default_preset: no")
    )


def _mend_policy(on: Stage) -> None:
    _replace(on.place.policy_file, (on.folder / "good.yaml").read_text())


def _replace(file: Path, text: str) -> None:
    new = file.with_name("new")
    new.write_text(text)
    new.replace(file)


def _step(seconds: int) -> Callable[[Stage], object]:
    return lambda on: on.clock_file.write_text(f"{seconds:+}s\n")


_back = _provider()
REDIS: Mapping[str, Any] = {"allowed": judging.REDIS_AWAY, "within": 3.0, "sign": "redis"}
# Twice the wait between two probes of a provider that was away for as long as a fault is kept up.
PROVIDER: Mapping[str, Any] = {"allowed": judging.PROVIDER_BROKEN, "within": 10.0, "of_provider": True}

FAULTS: Sequence[Fault] = (
    Fault(
        "redis-gone",
        "Redis killed, started again",
        lambda on: on.place.redis.kill(),
        lambda on: on.place.redis.start(),
        **REDIS,
    ),
    Fault(
        "redis-frozen",
        "Redis frozen (SIGSTOP)",
        lambda on: on.place.redis.freeze(),
        lambda on: on.place.redis.thaw(),
        **REDIS,
    ),
    Fault(
        "redis-slow",
        f"Redis answers after {SLOW_REDIS_SECONDS * 1000:.0f} ms",
        _delay_redis(SLOW_REDIS_SECONDS),
        _delay_redis(0),
        needs="redis way",
        **REDIS,
    ),
    Fault(
        "redis-failover",
        "Redis fails over: primary killed, Sentinels promote",
        lambda on: on.place.redis.kill(),
        _until_promoted,
        needs="sentinels",
        ends_itself=True,
        **REDIS,
    ),
    Fault(
        "provider-gone",
        "provider refuses connections",
        _shut_provider,
        _open_provider,
        needs="provider way",
        **PROVIDER,
    ),
    Fault(
        "provider-frozen",
        "provider frozen (SIGSTOP)",
        _signal(signal.SIGSTOP, "provider"),
        _signal(signal.SIGCONT, "provider"),
        **PROVIDER,
    ),
    Fault(
        "provider-slow",
        f"provider answers after {SLOW_PROVIDER_SECONDS:.0f} s",
        _provider(delay_seconds=SLOW_PROVIDER_SECONDS),
        _back,
        is_refused=False,
        of_provider=True,
    ),
    Fault("provider-5xx", "provider answers 503", _provider(status=503), _back, **PROVIDER),
    Fault(
        "provider-429",
        "provider answers 429, `Retry-After: 2`",
        _provider(status=429, retry_after=2),
        _back,
        **{**PROVIDER, "allowed": judging.PROVIDER_BUSY, "within": 1.0},
    ),
    Fault("provider-garbage", "provider answers HTML", _provider(not_json=True), _back, **PROVIDER),
    Fault(
        "provider-cut", "provider breaks off in the middle of an answer", _provider(half_answer=True), _back, **PROVIDER
    ),
    Fault(
        "jwks-gone",
        "an issuer's key set gone",
        lambda on: on.key_server.shut(),
        lambda on: on.key_server.open(),
        is_refused=False,
        sign="key set",
    ),
    Fault(
        "jwks-gone-restart",
        "the same, and a replica restarted (-9)",
        _lose_keys,
        lambda on: on.key_server.open(),
        (*judging.NO_KEYS, *judging.REPLICA_GONE),
        within=12.0,
        sign="key set",
        victim=VICTIM,
    ),
    Fault(
        "disk-full",
        "disk of the audit full",
        _fill_disks,
        _make_room,
        judging.AUDIT_UNAVAILABLE,
        within=2.0,
        sign="audit",
    ),
    Fault(
        "replica-killed",
        "a replica killed (-9), started again",
        lambda on: on.victim.kill(),
        _start_again,
        judging.REPLICA_GONE,
        within=1.0,
        victim=VICTIM,
    ),
    Fault(
        "replica-frozen",
        "a replica frozen (SIGSTOP)",
        _signal(signal.SIGSTOP, "victim"),
        _signal(signal.SIGCONT, "victim"),
        judging.REPLICA_FROZEN,
        within=3.0,
        victim=VICTIM,
    ),
    Fault(
        "clock-stepped",
        f"a replica's clock stepped by {STEP_SECONDS:+} s",
        _step(STEP_SECONDS),
        _step(0),
        needs="clock",
        is_refused=False,
        victim=VICTIM,
        sign="clock",
    ),
    Fault("config-broken", "a policy with a mistake", _break_policy, _mend_policy, is_refused=False, sign="config"),
)
