"""Redis failing is dull: requests are decided at once, health answers, the loop runs, the way back is found.

`python -m tests.prove.limits` prints what is asserted here as a table.
"""

import asyncio
import contextlib
import datetime as dt
import ssl
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from redis.asyncio.cluster import ClusterNode

from switchboard.ledger import Reservation
from switchboard.ledger.connection import RedisUrlError, connect
from switchboard.ledger.memory import MemoryLedger
from switchboard.ledger.redis import RedisLedger
from switchboard.ledger.resilient import ResilientLedger
from switchboard.ratelimit import Quota
from tests.support import faults
from tests.support.faults import (
    ACME,
    ASKED,
    DECISION_MS,
    FAULTS,
    HARMLESS,
    HEALS_ITSELF,
    HEALTH_MS,
    QUOTA,
    SHARE,
    STALL_MS,
    until,
)
from tests.support.process import free_ports
from tests.support.redis import RedisServer, cluster, redis_server, sentinel_setup

pytestmark = [pytest.mark.anyio, pytest.mark.timing]

BOTH = [*sorted(set(FAULTS) - HEALS_ITSELF - HARMLESS)]
CASES = [(name, mode) for name in FAULTS for mode in (("local", "deny") if name in BOTH else ("local",))]
TRIES = 3  # bounds in milliseconds, on a machine that may have other things to do


@pytest.mark.parametrize(("name", "mode"), CASES)
async def test_a_failure_from_its_begin_to_the_way_back(name, mode, tmp_path):
    for number in range(TRIES):
        folder = tmp_path / str(number)
        folder.mkdir()
        seen = await faults.run(name, FAULTS[name], mode, folder, seconds=0.6)
        in_time = seen.longest < DECISION_MS and seen.stall < STALL_MS and max(seen.health) < HEALTH_MS
        if in_time:
            break
    assert in_time, f"decided in {seen.longest:.0f} ms, stalled {seen.stall:.0f} ms, health {max(seen.health):.0f} ms"
    assert seen.unready == 0
    assert seen.counted == (QUOTA, QUOTA), "Redis counts again afterwards, and refused requests cost nothing"
    if name in HARMLESS:
        assert (set(seen.answers), seen.log, seen.degraded) == ({"200"}, [], {"back": 0.0})
        return
    assert seen.log == ["Redis is away", "Redis is back"]
    assert set(seen.detail) == {"redis"}
    assert seen.degraded == {"away": 1.0, "back": 0.0}
    if name in HEALS_ITSELF:
        assert {"200", "429 rate_limited"} >= set(seen.answers)
    elif mode == "local":
        users = seen.answers.total() / ASKED
        assert seen.answers == {"200": users * SHARE, "429 rate_limited": users * (ASKED - SHARE)}
    else:
        assert set(seen.answers) == {"503 degraded"}
        assert seen.retry_after == {"1"}


@pytest.mark.parametrize("mode", ["local", "deny"])
async def test_a_start_without_redis(mode, tmp_path):
    server = RedisServer(tmp_path)
    try:
        async with faults.watched(server.url, mode, users=20) as watch:
            assert await watch.degraded() == {"redis": "ConnectionError"}
            await watch.round()
            assert watch.seen.answers["200"] == (4 * SHARE if mode == "local" else 0)
            assert max(watch.seen.decisions) < DECISION_MS
            await asyncio.to_thread(server.start)
            await watch.until_back()
            watch.seen.answers.clear()
            await watch.round()
            assert watch.seen.answers == {"200": 20}
            assert watch.seen.log == ["Redis is away", "Redis is back"]
    finally:
        server.kill()


async def test_a_redis_that_may_evict_counters_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr("switchboard.app.ledgers.EVICTION_SECONDS", 0.05)

    async def advised(said: str) -> None:
        while said not in str((await watch.world.ops.get("/readyz")).json()["advice"]):  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    with redis_server(tmp_path, "--maxmemory-policy", "allkeys-lru") as server:
        async with faults.watched(server.url, "local", users=1) as watch, asyncio.timeout(5):
            await advised("set maxmemory-policy to noeviction (it is allkeys-lru)")
            assert watch.seen.log == ["Redis may evict counters, which would lift limits"]
            server.do("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
            await advised("(it is volatile-ttl)")
            server.do("CONFIG", "SET", "maxmemory-policy", "noeviction")
            await advised("[]")
            assert len(watch.seen.log) == 2


def reservation(number: int) -> Reservation:
    return Reservation("acme", f"user-{number}", (Quota("user", 10, 3600), Quota("tenant", 10**6, 3600)))


@contextlib.asynccontextmanager
async def resilient(url: str):
    switches: list[bool] = []
    primary = RedisLedger(connect(url))
    ledger = ResilientLedger(
        primary,
        MemoryLedger(),
        admits_locally=True,
        on_error=lambda _: None,
        on_switch=lambda away, _: switches.append(away),
    )
    await ledger.start()
    running = asyncio.create_task(ledger.run())
    try:
        yield ledger, switches
    finally:
        running.cancel()
        await asyncio.wait([running])
        await primary.aclose()


async def many(ledger: ResilientLedger, count: int) -> float:
    """Milliseconds that the longest of so many steps at once took."""

    async def one(number: int) -> float:
        begin = time.perf_counter()
        await ledger.reserve(reservation(number))
        return (time.perf_counter() - begin) * 1000

    return max(await asyncio.gather(*(one(number) for number in range(count))))


async def test_a_burst_is_no_failure(redis):
    """A thousand at once: they wait for this process, not for Redis."""
    for _ in range(TRIES):
        redis.do("FLUSHALL")
        async with resilient(redis.url) as (ledger, switches):
            for _ in range(3):
                await many(ledger, 1000)
        if not switches:
            break
    assert switches == []
    assert redis.do("GET", f"{ACME}quota:tenant:3600") == "3000"


async def test_a_burst_on_a_frozen_redis_is_decided(tmp_path):
    with redis_server(tmp_path) as server:
        async with resilient(server.url) as (ledger, switches):
            longest = []
            for _ in range(TRIES):
                server.freeze()
                longest.append(await many(ledger, 1000))
                assert switches[-1]
                server.thaw()
                await until(lambda: not ledger.degraded)
            assert min(longest) < DECISION_MS


async def test_a_burst_through_sentinels_and_in_a_cluster_is_no_failure(tmp_path):
    """Their clients refuse a connection beyond their number at once."""
    for setup in (sentinel_setup, cluster):
        folder = tmp_path / setup.__name__
        folder.mkdir()
        with setup(folder) as made:
            for _ in range(TRIES):
                async with resilient(made.url) as (ledger, switches):
                    for _ in range(2):
                        await many(ledger, 500)
                if not switches:
                    break
            assert switches == []


async def test_a_cluster_that_is_away_in_part_is_called_away_once(tmp_path):
    """Whatever the tenant of whoever finds it so: sweepers ask everywhere, and would find it away again and again."""
    with cluster(tmp_path) as setup:
        async with resilient(setup.url) as (ledger, switches):
            await ledger.sweep(1)
            assert switches == []
            lost = setup.master_of("{0}")
            lost.kill()
            end = time.monotonic() + 0.9  # then a replica takes its place
            while time.monotonic() < end:
                await ledger.sweep(1)
                await asyncio.sleep(0.05)
            assert switches == [True]
            await asyncio.to_thread(setup.until_promoted, lost, "{0}")
            await until(lambda: not ledger.degraded)
            await ledger.sweep(1)
            assert switches == [True, False]


async def test_a_slow_redis_does_not_keep_those_who_wait_behind_others(tmp_path):
    with redis_server(tmp_path) as server, faults.SlowWay(server.port) as way:
        async with resilient(way.url) as (ledger, switches):
            way.delay_by(0.07)  # too short for a timeout
            longest = [await many(ledger, 1000)]
            for _ in range(TRIES - 1):
                await until(lambda: not ledger.degraded)
                longest.append(await many(ledger, 1000))
            assert switches[0]
            assert min(longest) < DECISION_MS


async def test_a_server_that_speaks_something_else(tmp_path):
    async def answer(reader, writer) -> None:
        with contextlib.suppress(OSError):
            await reader.read(10)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with resilient(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}") as (ledger, switches):
        assert not (await ledger.reserve(reservation(1))).standing.exceeded
        assert switches == [True]
    server.close()


async def test_a_cluster_url_that_leads_to_a_single_server(redis):
    async with resilient(f"redis+cluster://{redis.address}") as (ledger, switches):
        assert not (await ledger.reserve(reservation(1))).standing.exceeded
        assert switches == [True]


@pytest.fixture
def tls(tmp_path):
    """A Redis with TLS, and the authority that it is signed by."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    authority, private = tmp_path / "ca.pem", tmp_path / "key.pem"
    authority.write_bytes(certificate.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (port,) = free_ports(1)
    options = ("--tls-port", str(port), "--tls-auth-clients", "no", "--tls-ca-cert-file", str(authority))
    with redis_server(tmp_path, *options, "--tls-cert-file", str(authority), "--tls-key-file", str(private)) as server:
        yield server, f"rediss://localhost:{port}/0?ssl_ca_certs={authority}"


def counting(monkeypatch) -> list[ssl.SSLContext]:
    """The contexts that are made from now on."""
    made: list[ssl.SSLContext] = []
    original = ssl.create_default_context

    def make() -> ssl.SSLContext:
        made.append(original())
        return made[-1]

    monkeypatch.setattr(ssl, "create_default_context", make)
    return made


async def test_tls_does_not_stall_the_event_loop(tls, monkeypatch):
    """One context serves all connections: the library would read the machine's certificates for each of them."""
    server, url = tls
    made = counting(monkeypatch)
    async with resilient(url) as (ledger, switches):
        for _ in range(TRIES):
            server.do("CLIENT", "KILL", "TYPE", "normal")
            await many(ledger, 64)
        assert len(made) == 1
        server.freeze()
        await many(ledger, 64)
        assert switches == [True]
    server.thaw()
    # TLS closes a connection together, so each of them is there until Redis has answered to that.
    await until(lambda: len(server.do("CLIENT LIST")) == 1)


async def test_tls_with_an_authority_that_is_not_there():
    with pytest.raises(RedisUrlError, match="TLS: No such file"):
        connect("rediss://localhost/0?ssl_ca_certs=/nowhere.pem")


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
async def test_tls_beyond_a_single_server(kind, monkeypatch):
    made = counting(monkeypatch)
    client = connect(f"rediss+{kind}://127.0.0.1:1,127.0.0.1:2/mymaster")
    assert len(made) == 1
    with pytest.raises(Exception, match=r"127\.0\.0\.1:|No master|cannot be connected"):
        await client.hget("a", "b")
    assert len(made) == 1
    await client.aclose()


async def test_a_cluster_that_has_moved_altogether_is_found_where_its_url_leads(tmp_path):
    with cluster(tmp_path) as setup:
        primary = RedisLedger(client := connect(setup.url))
        await primary.probe()
        (nowhere,) = free_ports(1)
        client.nodes_manager.startup_nodes = {  # type: ignore[attr-defined]
            "moved": ClusterNode("127.0.0.1", nowhere, **client.connection_kwargs)  # type: ignore[attr-defined]
        }
        await primary.probe()
        await primary.aclose()
