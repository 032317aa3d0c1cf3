"""The ledger in Redis beyond the contract: its scripts on real servers, several replicas, data that are lost."""

import asyncio
import re
import subprocess
import sys
import textwrap
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from limits import parse
from limits.aio.storage import RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter

from switchboard.calls import Call
from switchboard.errors import TenantSuspended
from switchboard.ledger import KEPT_SECONDS, LISTED, LedgerAway, Reserved
from switchboard.ledger import redis as redis_ledger
from switchboard.ledger.connection import RedisUrlError, connect
from switchboard.ledger.memory import MemoryLedger
from switchboard.ledger.redis import BUCKETS, RedisLedger, Script
from switchboard.ledger.resilient import ResilientLedger
from switchboard.ratelimit import UNLIMITED, Quota, Standing
from tests.support.ledgers import USER, a_slot, about, an_opening, asked, bound, offered, slot_of
from tests.support.redis import cluster, redis_server

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("patient")]

MINUTE, DAY, ALL = Quota("user", 3, 60), Quota("user", 4, 86400), Quota("tenant", 5, 60)
MINUTES = (Quota("user", 1800, 86400, "seconds of calls"), Quota("tenant", 36000, 3600, "seconds of calls"))
LIMITS_PAGE = Path(__file__).parents[2] / "docs" / "limits.md"
SETS_KEPT_MS = 7_800_000


@asynccontextmanager
async def replicas(url: str, count: int, wait: float = 10):
    """As many ledgers as there are replicas, each with its own connections."""
    async with AsyncExitStack() as stack:
        made = [RedisLedger(connect(url), wait=wait) for _ in range(count)]
        for one in made:
            stack.push_async_callback(one.aclose)
        yield made


@pytest.fixture
async def ledger(redis):
    async with replicas(redis.url, 1) as (made,):
        yield made


def bucket(tenant: str) -> int:
    return redis_ledger._bucket(tenant)


def commands(redis) -> dict[str, int]:
    """What has run inside of Redis since its counters were reset."""
    told = redis.do("INFO", "commandstats")
    ours = ("cmdstat_config|resetstat", "cmdstat_info")
    return {name.removeprefix("cmdstat_"): one["calls"] for name, one in told.items() if name not in ours}


async def finished(ledger: RedisLedger, call: Call) -> None:
    """Ended as soon as it had begun, and on record."""
    await ledger.confirm((await ledger.end(replace(call, ended_at=call.started_at), by="owner")).call)


# Quotas


async def test_redis_agrees_with_the_library(redis, ledger):
    """The same hits, one window at a time, decided by `limits.aio` on the same server."""
    library = FixedWindowRateLimiter(RedisStorage(f"async+{redis.url}", implementation="redispy"))
    for limit, seconds, hits in ((1, 1, 3), (3, 60, 5), (7, 3600, 9)):
        item, quota = parse(f"{limit}/{seconds} second"), Quota("user", limit, seconds)
        for _ in range(hits):
            theirs = await library.hit(item, "u")
            stats = await library.get_window_stats(item, "u")
            ours = (await ledger.reserve(asked(quota))).standing
            assert (not ours.exceeded) == theirs
            assert ours.windows[0].remaining == stats.remaining
            assert ours.windows[0].resets_in == about(stats.reset_time - time.time(), 1.1)
    await library.storage.bridge.storage.aclose()  # type: ignore[attr-defined]


async def test_one_wait_whatever_the_number_of_windows(redis, ledger):
    slot = a_slot(minutes=MINUTES, user_calls=3, tenant_calls=9)
    await ledger.reserve(asked(MINUTE))
    redis.do("CONFIG", "RESETSTAT")
    await ledger.reserve(asked(MINUTE, DAY, ALL, grant_id="g-1", slot=slot))
    ran = commands(redis)
    assert ran.pop("evalsha") == 1
    assert set(ran) <= allowed_commands() | {"client|setinfo"}


async def test_a_window_begins_with_one(redis, ledger):
    """Also in the last millisecond of the window before, when its counter is still there."""
    short = Quota("tenant", 1_000_000, 1)
    script, key = Script("reserve"), f"swb:{{{bucket('acme')}}}:due"
    begun, last_ttl = 0, -1
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        # 0.02 seconds, which no policy can write.
        args: list[str | int] = ["acme", USER, 1, "", 0, 1, short.scope, short.limit, "0.02", ""]
        _, (count, ttl), *_ = await script.run(ledger._client, key, args)
        if ttl > last_ttl:
            begun += 1
            assert count == 1
        last_ttl = ttl
    assert begun > 50


async def test_a_counter_without_an_end_gets_one(redis, ledger):
    counter = f"swb:{{{bucket('acme')}}}:acme:quota:user:{USER}:60"
    redis.do("SET", counter, "1")
    standing = (await ledger.reserve(asked(MINUTE))).standing
    assert [(one.remaining, round(one.resets_in)) for one in standing.windows] == [(1, 60)]
    assert redis.do("PTTL", counter) > 0


async def test_great_numbers_are_exact(redis, ledger):
    """Lua's numbers would be written with 14 digits."""
    month = Quota("user", 10**15, 31 * 86400)
    minutes = Quota("tenant", 10**12, 31 * 86400, "seconds of calls")
    counter = f"swb:{{{bucket('acme')}}}:acme:quota:user:{USER}:{month.seconds}"
    redis.do("SET", counter, 10**15 - 2, "PX", 1000 * month.seconds)
    window = f"swb:{{{bucket('acme')}}}:acme:minutes:tenant:{minutes.seconds}"
    redis.do("SET", window, 10**15 - 60_001, "PX", 1000 * minutes.seconds)
    reservation = asked(month, slot=a_slot(minutes=(minutes,)))
    reserved = await ledger.reserve(reservation)
    assert reserved.call_seconds == 60.001
    assert [(one.remaining, one.resets_in) for one in reserved.standing.windows] == [(1, about(month.seconds))]
    assert (redis.do("GET", counter), redis.do("GET", window)) == (str(10**15 - 1), str(10**15))
    await ledger.release(reservation, untried=True)
    assert redis.do("GET", window) == str(10**15 - 60_001)


@pytest.mark.timing
async def test_two_replicas_let_exactly_the_quota_through(redis):
    async with replicas(redis.url, 2) as primaries:
        # As the service has them: so many at once ask in turns.
        ledgers = [
            ResilientLedger(
                primary, MemoryLedger(), admits_locally=False, on_error=lambda _: None, on_switch=lambda *_: None
            )
            for primary in primaries
        ]
        quotas = (Quota("user", 50, 60), Quota("tenant", 70, 3600))
        for round_ in range(5):
            user, tenant = f"user-{round_}", f"tenant-{round_}"
            answers = await asyncio.gather(
                *(ledgers[number % 2].reserve(asked(*quotas, user=user, tenant=tenant)) for number in range(200))
            )
            assert sum(not one.standing.exceeded for one in answers) == 50


async def test_clocks_of_replicas_do_not_matter(redis):
    """Processes whose clocks are days apart, by libfaketime, share the window all the same."""
    program = textwrap.dedent(f"""
        import asyncio
        from switchboard.ledger import Reservation
        from switchboard.ledger.connection import connect
        from switchboard.ledger.redis import RedisLedger
        from switchboard.ratelimit import Quota

        async def main():
            client = connect({redis.url!r})
            quotas = (Quota("user", 10, 60), Quota("tenant", 1000, 86400))
            asked = Reservation(tenant="acme", user_key="u", quotas=quotas)
            standings = [(await RedisLedger(client, wait=2).reserve(asked)).standing for _ in range(8)]
            print(sum(not one.exceeded for one in standings), round(standings[-1].windows[0].resets_in))
            await client.aclose()

        asyncio.run(main())
    """)
    let_through = []
    for offset in ("-3d", "+0d", "+40d"):
        command = ["faketime", "-f", offset, sys.executable, "-c", program]
        run = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
        number, resets_in = run.stdout.split()
        let_through.append(int(number))
        assert 50 < int(resets_in) <= 60
    assert let_through == [8, 2, 0]


# Connections


async def test_a_script_that_was_flushed_is_sent_again(redis, ledger):
    await ledger.reserve(asked(MINUTE))
    redis.do("SCRIPT", "FLUSH")
    assert (await ledger.reserve(asked(MINUTE))).standing.windows[0].remaining == 1


async def test_a_step_that_was_given_up_does_not_spoil_the_connection(redis):
    """The answer that comes late must not be taken for the answer to the next question."""
    async with replicas(redis.url, 1, wait=0.05) as (ledger,):
        call = await bound(ledger, offered())
        redis.do("CLIENT", "PAUSE", "200", "ALL")
        for _ in range(3):
            with pytest.raises(LedgerAway):
                await ledger.reserve(asked(MINUTE))
        await asyncio.sleep(0.25)
        assert await ledger.find("acme", call.id) == call
        assert (await ledger.reserve(asked(DAY))).standing.windows[0].quota == DAY


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost",
        "localhost:6379",
        "redis://localhost:port",
        "redis+sentinel://localhost:26379",
        "redis+sentinel://localhost/mymaster",
        "redis+cluster://localhost",
    ],
)
async def test_urls_that_cannot_be_used(url):
    with pytest.raises(RedisUrlError):
        connect(url)


async def every_step(ledger: RedisLedger, tenant: str = "acme") -> None:
    """Each step of the ledger, so that each of its scripts and each branch that has commands of its own runs."""
    full = {"user_calls": 2, "tenant_calls": 9, "minutes": MINUTES, "idle_seconds": 60}
    first = await bound(ledger, asked(MINUTE, ALL, tenant=tenant, grant_id="g-1", slot=a_slot(**full)))
    await ledger.heard(tenant, first.id)
    lapsing = offered(tenant=tenant, lease_seconds=0.01, **full)
    await ledger.reserve(lapsing)
    await asyncio.sleep(0.02)
    await bound(ledger, offered(tenant=tenant, **full))
    assert (await ledger.reserve(offered(tenant=tenant, replace=True, **full))).replace
    await ledger.bind(lapsing, an_opening(), 900.0)
    released = asked(tenant=tenant, grant_id="g-2", slot=a_slot())
    await ledger.reserve(released)
    await ledger.release(released, untried=True)
    await ledger.put_off(first, by="owner", seconds=0)
    assert [call.id for call in (await ledger.sweep(10)).due] == [first.id]
    assert await ledger.find(tenant, first.id)
    assert await ledger.tenant_of(first.id) == tenant
    assert {call.tenant for call in await ledger.open_calls()} >= {tenant}
    assert len(await ledger.open_calls(tenant)) == len(await ledger.open_calls(tenant, USER)) == 3
    assert await ledger.count([tenant]) == [3]
    await finished(ledger, first)
    await ledger.restore(replace(first, id=f"{first.id}-lost", heard_at=first.started_at))
    await ledger.suspend(tenant, suspended=True)
    assert len((await ledger.sweep(10)).due) == 2
    await ledger.suspend(tenant, suspended=False)
    ledger._flips[bucket(tenant)] |= {"somebody": 10**13}
    await ledger.sweep(10)
    await ledger.eviction_policy()
    await ledger.probe()


def allowed_commands() -> set[str]:
    """What the page tells operators to allow."""
    line = next(line for line in LIMITS_PAGE.read_text().splitlines() if "An ACL needs" in line)
    return set(re.findall(r"\+([a-z|]+)", line))


async def test_a_user_with_the_documented_acl_can_do_everything(redis):
    """And nothing is allowed that nobody needs, but what the library says of itself, and of a Cluster."""
    acl = re.search(r"An ACL needs `([^`]+)`", LIMITS_PAGE.read_text())
    assert acl
    redis.do("ACL", "SETUSER", "voice", "reset", "on", ">secret", *acl[1].split())
    try:
        redis.do("CONFIG", "RESETSTAT")
        async with replicas(f"redis://voice:secret@{redis.address}/0", 1) as (ledger,):
            await every_step(ledger)
        ran = {name.partition("|")[0] for name in commands(redis)} - {"acl", "auth"}
    finally:
        redis.do("ACL", "DELUSER", "voice")
    granted = {name.partition("|")[0] for name in allowed_commands()}
    assert granted - ran <= {"client", "cluster", "command"}
    assert ran <= granted


@pytest.mark.timing  # claims last for seconds
async def test_a_cluster_runs_every_script(tmp_path):
    """Tenants are spread over its nodes; what a script touches is on one of them."""
    with cluster(tmp_path) as setup:
        async with replicas(setup.url, 1) as (ledger,):
            tenants = [f"tenant.{number}" for number in range(6)]
            for tenant in tenants:
                await every_step(ledger, tenant)
            owners = {setup.master_of(f"{{{bucket(tenant)}}}").port for tenant in tenants}
            assert len(owners) > 1
            for server in setup.servers:
                for key in server.do("KEYS", "*"):
                    assert re.fullmatch(r"swb:\{\d+\}:.+", key), key


# Keys


async def test_keys_have_a_hash_tag_and_an_end_and_hold_no_subject(redis, ledger):
    tag = f"swb:{{{bucket('acme')}}}"
    slot = a_slot(minutes=MINUTES, idle_seconds=60)
    reservation = asked(MINUTE, ALL, grant_id="g-1", slot=slot)
    await bound(ledger, reservation, call_id="rtc_1")
    pending = offered()
    await ledger.reserve(pending)
    await ledger.sweep(9)
    of_the_bucket = {f"{tag}:due", f"{tag}:where"}
    generations = {f"swb:{{{number}}}:generation" for number in range(BUCKETS)}
    of_users = {
        f"{tag}:acme:quota:user:{USER}:60",
        f"{tag}:acme:quota:tenant:60",
        f"{tag}:acme:minutes:user:{USER}:86400",
        f"{tag}:acme:minutes:tenant:3600",
        f"{tag}:acme:grant:g-1",
        f"{tag}:acme:open",
        f"{tag}:acme:open:{USER}",
        f"{tag}:acme:offer:{USER}:{slot.offer_digest}",
        f"{tag}:acme:call:rtc_1",
        f"{tag}:acme:offer:{USER}:{slot_of(pending).offer_digest}",
        f"{tag}:acme:call:~{slot_of(pending).id}",
    }
    assert set(redis.do("KEYS", "*")) == of_the_bucket | generations | of_users
    assert all(redis.do("PTTL", key) > 0 for key in of_users)


async def test_what_is_left_after_everybody_has_left_ends_by_itself(redis, ledger):
    tag = f"swb:{{{bucket('acme')}}}"
    one, another = offered(minutes=MINUTES), offered()
    call = await bound(ledger, one, call_id="rtc_1")
    await ledger.reserve(another)
    await ledger.release(another, untried=True)
    await finished(ledger, call)
    kept = {f"{tag}:acme:call:rtc_1", f"{tag}:acme:minutes:user:{USER}:86400", f"{tag}:acme:minutes:tenant:3600"}
    assert set(redis.do("KEYS", "*")) == kept
    assert [redis.do("GET", window) for window in sorted(kept)[1:]] == ["0", "0"]
    ends = {key: redis.do("PTTL", key) for key in kept}
    assert ends[f"{tag}:acme:call:rtc_1"] == about(1000 * KEPT_SECONDS, 5000)
    assert all(0 < end <= 86_400_000 for end in ends.values())


async def test_ids_whose_data_are_gone_are_taken_out(redis, ledger):
    """Somebody has deleted them, say, or Redis was told to evict."""
    calls = [await bound(ledger, offered(user_calls=9), call_id=f"rtc_{number}") for number in range(3)]
    await ledger.reserve(pending := offered(user_calls=9))
    tag = f"swb:{{{bucket('acme')}}}"
    for gone in (calls[0].id, calls[1].id, f"~{slot_of(pending).id}"):
        redis.do("DEL", f"{tag}:acme:call:{gone}")
    assert (await ledger.reserve(offered(user_calls=1))).full, "the one that is left"
    assert redis.do("ZRANGE", f"{tag}:acme:open:{USER}", 0, -1) == [calls[2].id]
    await ledger.suspend("acme", suspended=True)
    assert [call.id for call in (await ledger.sweep(9)).due] == [calls[2].id]
    assert redis.do("HGETALL", f"{tag}:where") == {calls[2].id: "acme"}
    assert redis.do("ZRANGE", f"{tag}:due", 0, -1) == [f"acme/{calls[2].id}"]


async def test_an_id_without_data_is_taken_out_when_it_is_due(redis, ledger):
    call = await bound(ledger, offered(), seconds=0.05)
    tag = f"swb:{{{bucket('acme')}}}"
    redis.do("DEL", f"{tag}:acme:call:{call.id}")
    await asyncio.sleep(0.06)
    assert (await ledger.sweep(9)).due == ()
    assert [redis.do("EXISTS", f"{tag}:{name}") for name in ("due", "where", "acme:open")] == [0, 0, 0]


async def test_names_of_tenants_do_not_meet(redis, ledger):
    """Dots and dashes are part of names, and a name may be the begin of another, or a word of ours."""
    names = ["a", "a.b", "a-b", "a_b", "a.b.c", "due", "where", "open", "call", "generation", "suspended", "A"]
    calls = {name: await bound(ledger, offered(tenant=name, user_calls=1, tenant_calls=1)) for name in names}
    await ledger.suspend("a.b", suspended=True)
    sweep = await ledger.sweep(99)
    assert (sweep.suspended, [call.id for call in sweep.due]) == ({"a.b"}, [calls["a.b"].id])
    for name in names:
        assert [call.id for call in await ledger.open_calls(name)] == [calls[name].id]
        assert await ledger.tenant_of(calls[name].id) == name
    for call in calls.values():
        await finished(ledger, call)
    assert await ledger.count(names) == [0] * len(names)
    assert not [key for key in redis.do("KEYS", "*") if ":open" in key.removeprefix("swb:") and ":call:" not in key]


# Sweepers


async def test_two_sweepers_never_get_the_same_call(redis, monkeypatch):
    """Claims of clients that ask at the same time, until nothing is left; and once more when claims are over."""
    monkeypatch.setattr(redis_ledger, "CLAIM_SECONDS", 1.5)
    async with replicas(redis.url, 3) as ledgers:
        calls = {
            (await bound(ledgers[0], offered(user=f"u{number}", tenant=f"t{number % 40}"), seconds=0.0)).id
            for number in range(120)
        }
        for attempt in (1, 2):
            claimed: list[Call] = []

            async def sweep(ledger: RedisLedger, claimed: list[Call]) -> None:
                while due := (await ledger.sweep(10)).due:
                    claimed += due

            await asyncio.gather(*(sweep(ledger, claimed) for ledger in ledgers for _ in range(2)))
            assert len(claimed) == 120
            assert {call.id for call in claimed} == calls
            assert {call.attempts for call in claimed} == {attempt}
            await asyncio.sleep(1.5)


async def test_a_bucket_that_is_full_of_due_calls_does_not_starve_the_others(ledger):
    for _ in range(40):
        await bound(ledger, offered(tenant="full"), seconds=0.0)
    other = next(f"t{n}" for n in range(99) if bucket(f"t{n}") != bucket("full"))
    waiting = await bound(ledger, offered(tenant=other), seconds=0.0)
    claimed = [call for _ in range(BUCKETS) for call in (await ledger.sweep(2)).due]
    assert waiting.id in {call.id for call in claimed}


async def test_what_is_due_is_due_after_redis_restarted_with_its_data(tmp_path):
    with redis_server(tmp_path) as server:
        async with replicas(server.url, 2) as (before, _):
            short = await bound(before, offered(minutes=MINUTES), seconds=0.3)
            idle = await bound(before, offered(idle_seconds=1))
            await before.heard("acme", idle.id)
            long = await bound(before, offered())
            await before.suspend("widgets", suspended=True)
            generation = (await before.sweep(9), before.generation)[1]
            server.do("SAVE")
        server.kill()
        server.start()
        await asyncio.sleep(1.1)
        async with replicas(server.url, 2) as ledgers:
            sweeps = [await one.sweep(9) for one in ledgers]
            due = {call.id: call.ending for sweep in sweeps for call in sweep.due}
            assert due == {short.id: "deadline", idle.id: "idle"}
            assert sum(len(sweep.due) for sweep in sweeps) == 2
            assert {sweep.suspended for sweep in sweeps} == {frozenset({"widgets"})}
            assert ledgers[0].generation == generation
            assert await ledgers[0].find("acme", long.id) == long
            await ledgers[0].end(replace(short, ended_at=short.started_at + 100), by="deadline")
            left = await ledgers[0].reserve(offered(call_seconds=3600, minutes=MINUTES))
            assert left.call_seconds == 1700.0


POPULATE = """
local now = now_ms()
for i = tonumber(ARGV[1]), tonumber(ARGV[2]) do
    local tenant, user, id = 'tenant-' .. ARGV[3], 'user-' .. (i % 20000), 'rtc_' .. i
    redis.call('HSET', call_key(tenant, id), 'tenant', tenant, 'user_key', user, 'digest', 'd' .. i, 'issuer', 'i',
        'preset', 'p', 'provider', 'o', 'key_name', 'k', 'started_at', whole(now), 'deadline', whole(now + 3000000 + i))
    redis.call('PEXPIRE', call_key(tenant, id), SETS_KEPT)
    redis.call('HSET', BASE .. 'where', id, tenant)
    enter(tenant, user, id, whole(now), whole(now + 3000000 + i), whole(now + 3000000 + i))
end
"""


async def populate(redis, ledger: RedisLedger, count: int, tenants: int = 50) -> None:
    """So many open calls; by the scripts' own functions, but many at a time."""
    common = Path(redis_ledger.__file__).with_name("scripts") / "common.lua"
    tenants = min(count, tenants)
    each = count // tenants
    for number in range(tenants):
        key = f"swb:{{{bucket(f'tenant-{number}')}}}:due"
        redis.do("EVAL", common.read_text() + POPULATE, 1, key, number * each + 1, (number + 1) * each, number)
    assert sum(await ledger.count([f"tenant-{number}" for number in range(tenants)])) == count


async def sweep_cost(redis, ledger: RedisLedger) -> tuple[dict[str, int], float]:
    """Commands that three due calls cost in Redis, and milliseconds that nothing due costs there."""
    await ledger.sweep(64)
    for number in range(3):
        await bound(ledger, offered(tenant=f"tenant-{number}", user=f"new-{number}"), seconds=0.0)
    await asyncio.sleep(0.005)
    redis.do("CONFIG", "RESETSTAT")
    assert len((await ledger.sweep(64)).due) == 3
    ran = commands(redis)
    times = []
    for _ in range(7):
        redis.do("CONFIG", "RESETSTAT")
        await ledger.sweep(64)
        times.append(redis.do("INFO", "commandstats")["cmdstat_evalsha"]["usec"] / 1000)
    return ran, min(times)


async def test_a_sweep_costs_the_same_whatever_is_open(redis, ledger):
    """Counted inside of Redis, with 10 and with 100,000 open calls: only what is due is looked at."""
    await populate(redis, ledger, 10)
    few, quick = await sweep_cost(redis, ledger)
    redis.do("FLUSHALL")
    await populate(redis, ledger, 100_000)
    many, with_many = await sweep_cost(redis, ledger)
    assert many == few
    assert few["evalsha"] == BUCKETS
    assert few["zrangebyscore"] == BUCKETS
    assert sum(few.values()) < 10 * BUCKETS
    assert with_many < 2 * quick + 0.5, f"{quick:.2f} ms with 10, {with_many:.2f} ms with 100,000"


async def test_a_suspended_tenants_calls_are_made_due_step_by_step(redis, ledger):
    """A script must not keep Redis from others: so many in one sweep."""
    await populate(redis, ledger, 2000, tenants=1)
    await ledger.suspend("tenant-0", suspended=True)
    redis.do("CONFIG", "RESETSTAT")
    sweep = await ledger.sweep(64)
    assert (len(sweep.due), {call.ending for call in sweep.due}) == (64, {"suspended"})
    ran = commands(redis)
    assert ran["hsetnx"] == redis_ledger.HASTENED
    for _ in range(2000 // redis_ledger.HASTENED - 1):
        await ledger.sweep(0)
    assert commands(redis)["hsetnx"] == 2000
    await ledger.sweep(0)
    assert commands(redis)["hsetnx"] == 2000, "each is told once"


async def test_a_list_has_an_end(redis, ledger):
    await populate(redis, ledger, LISTED + 200, tenants=30)
    assert len({call.id for call in await ledger.open_calls()}) == LISTED
    redis.do("FLUSHALL")
    await populate(redis, ledger, LISTED + 200, tenants=1)
    assert len({call.id for call in await ledger.open_calls("tenant-0")}) == LISTED
    assert [call.id for call in await ledger.open_calls("tenant-0", "user-7")] == ["rtc_7"]


# The kill switch, and data that are lost


async def test_suspended_tenants_outlive_a_loss_of_data(redis):
    """Each replica writes back what it knows."""
    async with replicas(redis.url, 2) as (one, other):
        await one.suspend("acme", suspended=True)
        await other.suspend("widgets", suspended=True)
        for ledger in (one, other):
            assert (await ledger.sweep(0)).suspended == {"acme", "widgets"}
        redis.do("FLUSHALL")
        assert (await other.sweep(0)).suspended == {"acme", "widgets"}
        async with replicas(redis.url, 1) as (new,):
            for tenant in ("acme", "widgets"):
                with pytest.raises(TenantSuspended):
                    await new.reserve(asked(tenant=tenant))
            assert (await new.sweep(0)).suspended == {"acme", "widgets"}


async def test_the_latest_flip_of_each_switch_stays(redis):
    """Whoever knows an older one learns the later, and does not write it back; also after a loss of data."""
    async with replicas(redis.url, 2) as (one, other):
        for tenant in ("acme", "widgets"):
            await one.suspend(tenant, suspended=True)
        for ledger in (one, other):
            assert (await ledger.sweep(0)).suspended == {"acme", "widgets"}
        await one.suspend("acme", suspended=False)  # `other` has not heard of it
        redis.do("FLUSHALL")
        assert (await other.sweep(0)).suspended == {"acme", "widgets"}, "it cannot know better yet"
        for ledger in (one, other):
            assert (await ledger.sweep(0)).suspended == {"widgets"}
        assert await one.reserve(asked()) == Reserved(UNLIMITED)


async def test_a_flip_right_after_a_loss_of_data_is_not_lost(redis):
    """Before any replica has written back what it knew; what that was, stays as well."""
    async with replicas(redis.url, 2) as (one, other):
        same_bucket = next(f"t{n}" for n in range(999) if bucket(f"t{n}") == bucket("acme"))
        for _ in range(3):
            await one.suspend("acme", suspended=True)
        for ledger in (one, other):
            await ledger.sweep(0)
        redis.do("FLUSHALL")
        await one.suspend(same_bucket, suspended=True)
        for ledger in (other, one, other):
            assert (await ledger.sweep(0)).suspended == {"acme", same_bucket}


async def test_a_flip_on_a_server_whose_clock_is_behind_counts(redis):
    async with replicas(redis.url, 2) as (one, other):
        await one.suspend("acme", suspended=True)
        in_an_hour = round(1000 * time.time()) + 3_600_000
        redis.do("HSET", f"swb:{{{bucket('acme')}}}:suspended", "acme", in_an_hour)
        for ledger in (one, other):
            assert (await ledger.sweep(0)).suspended == {"acme"}
        await one.suspend("acme", suspended=False)
        for ledger in (one, other):
            assert (await ledger.sweep(0)).suspended == frozenset()
        assert redis.do("HGET", f"swb:{{{bucket('acme')}}}:suspended", "acme") == str(-in_an_hour - 1)


async def test_the_data_have_a_name_that_is_lost_with_them(redis):
    async with replicas(redis.url, 2) as (one, other):
        generations = []
        for _ in range(2):
            for ledger in (one, other, one):
                await ledger.sweep(0)
                generations.append(ledger.generation)
            redis.do("FLUSHALL")
        assert len(set(generations)) == 2
        assert generations[0] == generations[1] == generations[2] != generations[3]
        redis.do("DEL", "swb:{3}:generation")
        await one.sweep(0)
        assert sum(a != b for a, b in zip(one.generation, generations[3], strict=True)) == BUCKETS


async def test_calls_are_written_back(redis, ledger):
    reservation = offered(user_calls=1, idle_seconds=60, minutes=MINUTES)
    call = await bound(ledger, reservation)
    beating = await bound(ledger, offered(idle_seconds=60))
    await ledger.heard("acme", beating.id)
    beating = await ledger.find("acme", beating.id)
    long_ago = replace(beating, heard_at=beating.started_at - 600)
    redis.do("FLUSHALL")
    for one in (call, long_ago):
        await ledger.restore(one)
    assert await ledger.find("acme", call.id) == call
    assert await ledger.open_calls("acme", USER) == [call, await ledger.find("acme", beating.id)]
    assert await ledger.tenant_of(call.id) == "acme"
    assert (await ledger.reserve(offered(user_calls=2))).full
    # Its heartbeats went unheard while there was nobody to hear them: they have their time anew.
    assert (await ledger.sweep(9)).due == ()
    restored = await ledger.find("acme", beating.id)
    assert restored == replace(beating, heard_at=restored.heard_at)
    assert restored.heard_at == about(time.time(), 5)
    await finished(ledger, call)
    await finished(ledger, restored)
    assert await ledger.count(["acme"]) == [0]


async def test_a_call_that_is_known_is_not_written_over(redis, ledger):
    call = await bound(ledger, offered())
    await ledger.put_off(call, by="owner", seconds=600)
    await ledger.restore(replace(call, preset="another"))
    assert await ledger.find("acme", call.id) == replace(call, ending="owner")
    ended = (await ledger.end(call, by="owner")).call
    await ledger.confirm(ended)
    await ledger.restore(call)
    assert await ledger.find("acme", call.id) == ended
    assert await ledger.open_calls() == []
    assert (await ledger.sweep(9)).due == ()


async def test_heartbeats_that_were_not_heard_while_redis_was_away_do_not_count_as_stopped(redis, ledger):
    """The data are there, and what they say is old."""
    call = await bound(ledger, offered(idle_seconds=60))
    await ledger.heard("acme", call.id)
    tag = f"swb:{{{bucket('acme')}}}"
    long_ago = round(1000 * (time.time() - 600))
    redis.do("HSET", f"{tag}:acme:call:{call.id}", "heard_at", long_ago)
    redis.do("ZADD", f"{tag}:due", long_ago + 60_000, f"acme/{call.id}")
    await ledger.restore(call)  # as its replica knows it: other replicas heard the heartbeats
    assert (await ledger.sweep(9)).due == ()
    due = redis.do("ZSCORE", f"{tag}:due", f"acme/{call.id}")
    assert float(due) == pytest.approx(1000 * (time.time() + 60), abs=5000)


async def test_sets_outlive_what_is_in_them(redis, ledger):
    await bound(ledger, offered(call_seconds=3600))
    ends = [redis.do("PTTL", f"swb:{{{bucket('acme')}}}:acme:{name}") for name in ("open", f"open:{USER}")]
    assert ends == [about(SETS_KEPT_MS, 5000)] * 2


async def test_a_probe_looks_everywhere(redis, ledger):
    await ledger.probe()
    assert len([key for key in redis.do("KEYS", "*") if "switchboard-probe:quota" in key]) == BUCKETS


async def test_a_cluster_that_is_away_in_part_is_away(tmp_path):
    with cluster(tmp_path) as setup:
        async with replicas(setup.url, 1) as (ledger,):
            await ledger.probe()
            setup.master_of("{0}").freeze()
            try:
                with pytest.raises(LedgerAway):
                    await ledger.probe()
            finally:
                next(server for server in setup.servers if server.popen).thaw()


async def test_shadow_mode_is_told_what_was_full_before(ledger):
    """What this very request filled was not exceeded by it."""
    one = Quota("user", 1, 60)
    first = (await ledger.reserve(asked(one, enforce=False))).standing
    assert (first.windows[0].remaining, first.exceeded) == (0, ())
    second = (await ledger.reserve(asked(one, enforce=False))).standing
    assert second == Standing(second.windows, second.windows)
