"""One contract, two ledgers: in memory and in a real Redis; and Redis held against the library `limits`."""

import asyncio
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import pytest
from limits import parse
from limits.aio.storage import RedisStorage
from limits.aio.strategies import FixedWindowRateLimiter

from switchboard.calls import Call
from switchboard.errors import GrantUsed
from switchboard.ledger import Ending, LedgerAway, Reservation
from switchboard.ledger.connection import RedisUrlError, connect
from switchboard.ledger.memory import MemoryLedger
from switchboard.ledger.redis import RedisLedger, Script
from switchboard.ledger.resilient import ResilientLedger
from switchboard.ratelimit import UNLIMITED, Quota, Standing, Window

pytestmark = pytest.mark.anyio

MINUTE, DAY, ALL = Quota("user", 3, 60), Quota("user", 4, 86400), Quota("tenant", 5, 60)
SECOND = Quota("user", 2, 1)
CALL = Call("rtc_1", "acme", "u" * 64, "support", "openai", "env:K", 1000.125, 9e9, "g-1")


@pytest.fixture(params=["memory", "redis"])
async def ledger(request):
    if request.param == "memory":
        yield MemoryLedger()
        return
    client = connect(request.getfixturevalue("redis").url)
    yield RedisLedger(client, wait=2)
    await client.aclose()


def asked(*quotas, user="u" * 64, tenant="acme", **changes) -> Reservation:
    return Reservation(tenant=tenant, user_key=user, quotas=quotas, grant_seconds=60, **changes)


def shape(standing: Standing):
    """A standing without the milliseconds that have passed."""
    return (
        [(window.quota.name, window.remaining, round(window.resets_in)) for window in standing.windows],
        [window.quota.name for window in standing.exceeded],
    )


async def test_windows_are_charged_together_or_not_at_all(ledger):
    for remaining in (2, 1, 0):
        standing = await ledger.reserve(asked(MINUTE, DAY))
        assert shape(standing) == ([("user-minute", remaining, 60), ("user-day", remaining + 1, 86400)], [])
    for _ in range(3):
        refused = await ledger.reserve(asked(MINUTE, DAY))
        assert shape(refused) == ([("user-minute", 0, 60), ("user-day", 1, 86400)], ["user-minute"])


async def test_two_exceeded_windows_are_both_named(ledger):
    both = replace(DAY, limit=3)
    for _ in range(3):
        await ledger.reserve(asked(MINUTE, both))
    assert shape(await ledger.reserve(asked(MINUTE, both)))[1] == ["user-minute", "user-day"]


async def test_users_share_the_tenants_window_and_nothing_else(ledger):
    for number in range(5):
        standing = await ledger.reserve(asked(MINUTE, ALL, user=f"u{number}"))
        assert [window.remaining for window in standing.windows] == [2, 4 - number]
    assert shape(await ledger.reserve(asked(MINUTE, ALL, user="u9")))[1] == ["tenant-minute"]
    assert not (await ledger.reserve(asked(ALL, tenant="widgets"))).exceeded


async def test_a_window_ends(ledger):
    for _ in range(2):
        assert not (await ledger.reserve(asked(SECOND))).exceeded
    refused = await ledger.reserve(asked(SECOND))
    assert refused.exceeded
    await asyncio.sleep(refused.exceeded[0].resets_in + 0.02)
    assert shape(await ledger.reserve(asked(SECOND))) == ([("user-second", 1, 1)], [])


async def test_shadow_mode_charges_what_fits_and_says_what_does_not(ledger):
    for _ in range(3):
        await ledger.reserve(asked(MINUTE, enforce=False))
    standing = await ledger.reserve(asked(MINUTE, enforce=False, grant_id="g-1"))
    assert shape(standing) == ([("user-minute", 0, 60)], ["user-minute"])
    # It is let through: its grant is used.
    with pytest.raises(GrantUsed):
        await ledger.reserve(asked(grant_id="g-1"))


async def test_a_grant_is_used_once_whoever_asks(ledger):
    results = await asyncio.gather(*(ledger.reserve(asked(grant_id="g-1")) for _ in range(50)), return_exceptions=True)
    assert sum(isinstance(one, Standing) for one in results) == 1
    assert sum(isinstance(one, GrantUsed) for one in results) == 49


async def test_a_used_grant_charges_nothing(ledger):
    await ledger.reserve(asked(grant_id="g-1"))
    with pytest.raises(GrantUsed):
        await ledger.reserve(asked(MINUTE, grant_id="g-1"))
    assert (await ledger.reserve(asked(MINUTE))).windows[0].remaining == 2


async def test_a_refused_request_keeps_its_grant(ledger):
    for _ in range(3):
        await ledger.reserve(asked(MINUTE))
    assert (await ledger.reserve(asked(MINUTE, grant_id="g-1"))).exceeded
    assert not (await ledger.reserve(asked(grant_id="g-1"))).exceeded


async def test_a_released_grant_can_be_used(ledger):
    await ledger.reserve(asked(grant_id="g-1"))
    await ledger.release(asked(grant_id="g-1"))
    await ledger.release(asked())
    await ledger.reserve(asked(grant_id="g-1"))


async def test_nothing_asked_is_nothing_charged(ledger):
    assert await ledger.reserve(asked()) == UNLIMITED


async def test_calls(ledger):
    assert await ledger.find("acme", "rtc_1") is None
    assert await ledger.end("acme", "rtc_1", by="owner") is None
    await ledger.bind(CALL)
    assert await ledger.find("acme", "rtc_1") == CALL
    assert await ledger.find("widgets", "rtc_1") is None
    ended = await ledger.end("acme", "rtc_1", by="owner")
    assert ended == Ending(replace(CALL, ended_at=ended.call.ended_at, ended_by="owner"), is_ours=True)
    assert ended.call.ended_at == pytest.approx(time.time(), abs=2)
    assert await ledger.end("acme", "rtc_1", by="admin") == Ending(ended.call, is_ours=False)
    assert await ledger.find("acme", "rtc_1") == ended.call


async def test_one_of_many_ends_a_call(ledger):
    await ledger.bind(CALL)
    endings = await asyncio.gather(*(ledger.end("acme", "rtc_1", by="owner") for _ in range(20)))
    assert sum(one.is_ours for one in endings) == 1
    assert len({one.call for one in endings}) == 1


async def test_a_call_past_its_deadline_has_ended(ledger):
    past = replace(CALL, deadline=2000.0)
    await ledger.bind(past)
    by_provider = replace(past, ended_at=2000.0, ended_by="provider")
    assert await ledger.end("acme", "rtc_1", by="owner") == Ending(by_provider, is_ours=False)


async def test_a_call_past_its_deadline_is_found_ended(ledger):
    await ledger.bind(replace(CALL, deadline=2000.0))
    assert await ledger.find("acme", "rtc_1") == replace(CALL, deadline=2000.0, ended_at=2000.0, ended_by="provider")


async def test_redis_agrees_with_the_library(redis):
    """The same hits, one window at a time, decided by `limits.aio` on the same server."""
    client = connect(redis.url)
    ledger = RedisLedger(client, wait=2)
    library = FixedWindowRateLimiter(RedisStorage(f"async+{redis.url}", implementation="redispy"))
    for limit, seconds, hits in ((1, 1, 3), (3, 60, 5), (7, 3600, 9)):
        item, quota = parse(f"{limit}/{seconds} second"), Quota("user", limit, seconds)
        for _ in range(hits):
            theirs = await library.hit(item, "u")
            stats = await library.get_window_stats(item, "u")
            ours = await ledger.reserve(asked(quota))
            assert (not ours.exceeded) == theirs
            assert ours.windows[0].remaining == stats.remaining
            assert ours.windows[0].resets_in == pytest.approx(stats.reset_time - time.time(), abs=1.1)
    await client.aclose()
    await library.storage.bridge.storage.aclose()  # type: ignore[attr-defined]


async def test_one_wait_whatever_the_number_of_windows(redis):
    client = connect(redis.url)
    ledger = RedisLedger(client, wait=2)
    await ledger.reserve(asked(MINUTE))
    redis.do("CONFIG", "RESETSTAT")
    await ledger.reserve(asked(MINUTE, DAY, ALL, grant_id="g-1"))
    stats = redis.do("INFO", "commandstats")
    assert stats["cmdstat_evalsha"]["calls"] == 1
    sent = {
        name: one["calls"] for name, one in stats.items() if name not in ("cmdstat_config|resetstat", "cmdstat_info")
    }
    inside = {"cmdstat_get", "cmdstat_pttl", "cmdstat_set", "cmdstat_incr", "cmdstat_exists", "cmdstat_evalsha"}
    assert set(sent) <= inside | {"cmdstat_client|setinfo", "cmdstat_hello"}
    await client.aclose()


async def test_keys_have_a_hash_tag_and_an_end_and_hold_no_subject(redis):
    client = connect(redis.url)
    ledger = RedisLedger(client, wait=2)
    await ledger.reserve(asked(MINUTE, ALL, grant_id="g-1"))
    await ledger.bind(CALL)
    keys = set(redis.do("KEYS", "*"))
    assert keys == {
        f"swb:{{acme}}:quota:user:{'u' * 64}:60",
        "swb:{acme}:quota:tenant:60",
        "swb:{acme}:grant:g-1",
        "swb:{acme}:call:rtc_1",
    }
    assert all(redis.do("PTTL", key) > 0 for key in keys)
    await client.aclose()


async def test_a_window_begins_with_one(redis):
    """Also in the last millisecond of the window before, when its counter is still there."""
    client = connect(redis.url)
    script = Script("reserve.lua")
    begun, last_ttl = 0, -1
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        _, count, ttl = await script.run(client, ["swb:{acme}:quota:tenant:0"], [1, 0, 1_000_000, 20])
        if ttl > last_ttl:
            begun += 1
            assert count == 1
        last_ttl = ttl
    assert begun > 50
    await client.aclose()


async def test_a_counter_without_an_end_gets_one(redis):
    client = connect(redis.url)
    redis.do("SET", f"swb:{{acme}}:quota:user:{'u' * 64}:60", "1")
    standing = await RedisLedger(client, wait=2).reserve(asked(MINUTE))
    assert shape(standing) == ([("user-minute", 1, 60)], [])
    assert redis.do("PTTL", f"swb:{{acme}}:quota:user:{'u' * 64}:60") > 0
    await client.aclose()


async def test_a_script_that_was_flushed_is_sent_again(redis):
    client = connect(redis.url)
    ledger = RedisLedger(client, wait=2)
    await ledger.reserve(asked(MINUTE))
    redis.do("SCRIPT", "FLUSH")
    assert (await ledger.reserve(asked(MINUTE))).windows[0].remaining == 1
    await client.aclose()


async def test_a_step_that_was_given_up_does_not_spoil_the_connection(redis):
    """The answer that comes late must not be taken for the answer to the next question."""
    client = connect(redis.url)
    ledger = RedisLedger(client, wait=0.05)
    await ledger.bind(CALL)
    redis.do("CLIENT", "PAUSE", "200", "ALL")
    for _ in range(3):
        with pytest.raises(LedgerAway):
            await ledger.reserve(asked(MINUTE))
    await asyncio.sleep(0.25)
    assert await ledger.find("acme", "rtc_1") == CALL
    assert (await ledger.reserve(asked(DAY))).windows[0].quota == DAY
    await client.aclose()


@pytest.mark.timing
async def test_two_replicas_let_exactly_the_quota_through(redis):
    primaries = [RedisLedger(connect(redis.url), wait=2) for _ in range(2)]
    # As the service has them: so many at once ask in turns.
    ledgers = [
        ResilientLedger(primary, None, on_error=lambda _: None, on_switch=lambda *_: None) for primary in primaries
    ]
    quotas = (Quota("user", 50, 60), Quota("tenant", 70, 3600))
    for round_ in range(5):
        user = f"user-{round_}"
        tenant = f"tenant-{round_}"
        standings = await asyncio.gather(
            *(ledgers[number % 2].reserve(asked(*quotas, user=user, tenant=tenant)) for number in range(200))
        )
        assert sum(not standing.exceeded for standing in standings) == 50
    for primary in primaries:
        await primary.aclose()


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
            standings = [await RedisLedger(client, wait=2).reserve(asked) for _ in range(8)]
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


def test_a_window_is_told_in_whole_seconds():
    assert Window(MINUTE, 0, 0.2).seconds == 1
    assert Window(MINUTE, 0, 59.01).seconds == 60
