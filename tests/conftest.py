"""What every test has: one event loop library, quiet surroundings, and the scan for leaks at the end of the run."""

import gc
import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any, cast

import certifi
import pytest

from switchboard import logs
from switchboard.ledger.redis import RedisLedger
from tests.support import clients
from tests.support import world as worlds
from tests.support.leaks import LEAKS
from tests.support.overheard import overheard
from tests.support.redis import redis_server


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def world():
    """The example policy's world; see tests/support/world.py."""
    async with worlds.world() as made:
        yield made


@pytest.fixture(scope="session")
def _redis_of_the_session(tmp_path_factory):
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(_redis_of_the_session):
    """A real Redis, empty. Tests that break a server start one of their own."""
    _redis_of_the_session.do("FLUSHALL")
    _redis_of_the_session.do("SCRIPT", "FLUSH")
    return _redis_of_the_session


@pytest.fixture
def patient(monkeypatch):
    """Services in this process wait for Redis as long as a busy machine needs: for tests that are not of times."""
    monkeypatch.setattr("switchboard.app.ledgers.RedisLedger", partial(RedisLedger, wait=10.0))
    monkeypatch.setattr("switchboard.ledger.connection.SOCKET_SECONDS", 10.0)
    monkeypatch.setattr("switchboard.ledger.resilient.LANE_SECONDS", 10.0)


@pytest.fixture(autouse=True, scope="session")
def _clean_environment():
    """No variable of the machine decides a test."""
    for name in [name for name in os.environ if name.startswith("SWITCHBOARD_")]:
        del os.environ[name]


@pytest.fixture(autouse=True, scope="session")
def _one_authority(tmp_path_factory):
    """One authority instead of the machine's 140, here and in every process: nobody is asked over the internet, and
    each HTTP client would spend 20 ms on reading them, thousands of times.
    """
    file = tmp_path_factory.mktemp("authority") / "one.pem"
    end = "-----END CERTIFICATE-----\n"
    file.write_text(certifi.contents().partition(end)[0] + end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certifi, "where", lambda: str(file))
        patch.setenv("SSL_CERT_FILE", str(file))
        patch.delenv("SSL_CERT_DIR", raising=False)
        yield


class _Overheard(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        LEAKS.saw(f"log of {record.name}", self.format(record))


@pytest.fixture(autouse=True, scope="session")
def _overhear_logs():
    """The log as operators get it, formatted by our own configuration."""
    logs.configure("debug")
    ours = logging.getLogger().handlers[0]
    overheard = _Overheard()
    overheard.setFormatter(ours.formatter)
    logging.getLogger().handlers = [overheard]
    yield
    logging.getLogger().handlers = []


@pytest.fixture(autouse=True, scope="session")
def _overhear_answers():
    """What real processes answer."""
    with overheard():
        yield


# They take longest, and each is one process's work: begun last, they would keep the others waiting for their end.
FIRST = (
    "audit/test_service.py", "test_restarts.py", "test_cli.py", "test_workers.py", "test_reload.py", "test_leash.py",
    "helm/test_program.py", "deploy/test_nginx.py", "attacks/test_contract.py", "test_console.py", "e2e/test_openai.py",
    "probe/test_command.py", "ledger/test_register_properties.py", "ledger/test_redis.py", "endpoints/test_quotas.py",
    "test_operators.py", "deploy/test_prometheus.py", "test_scaling.py", "test_traces.py", "test_contract.py",
    "test_redis_faults.py", "test_leash_replicas.py", "e2e/test_demo.py", "test_kill_switch.py", "prove/test_limits.py",
)  # fmt: skip
HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--clients", action="store_true", help="print the table of clients; fail if a row is missing")


def pytest_configure(config: pytest.Config) -> None:
    # jsonschema would import it, for a format that no schema of ours has; it compiles grammars, for a second.
    cast("dict[str, object]", sys.modules).setdefault("rfc3987_syntax", None)
    if config.getoption("--clients") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(clients.Table())


@pytest.hookimpl(tryfirst=True)  # before `-m` is asked
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that take longest first; the order is xdist's as well (`--no-loadscope-reorder`)."""
    clients.mark(items)
    place = {HERE / name: number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: place.get(item.path, len(FIRST)))


def pytest_collection_finish() -> None:
    """Thousands of tests, and what they import, are no garbage: looking for some among them takes half a second."""
    gc.collect()
    gc.freeze()


_LEAKS_OF_WORKERS: list[str] = []


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What a worker of xdist has found, and when it has died, that nobody knows what it would have."""
    _LEAKS_OF_WORKERS.extend(getattr(node, "workeroutput", {}).get("leaks", ["a worker died before its scan"]))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """No answer, log line, record or metric of the whole run holds what must never be said."""
    found = LEAKS.found()
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["leaks"] = found
        return
    found += _LEAKS_OF_WORKERS
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        assert reporter is not None
        reporter.write_sep("=", "LEAKS", red=True)
        for line in found[:20]:
            reporter.write_line(line)
