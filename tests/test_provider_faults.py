"""A provider's faults as callers and operators meet them: answers, log, metrics, and calls that must not be left."""

import asyncio
import time

import pytest

from switchboard import leash
from switchboard.app import providers as upstreams
from switchboard.providers import account, breaker
from tests.support import world as worlds
from tests.support.contract import check
from tests.support.servers import serving
from tests.support.world import API_KEY, OTHER_API_KEY

pytestmark = pytest.mark.anyio

FIRST, SECOND = "env:OPENAI_API_KEY", "env:OTHER_API_KEY"


@pytest.fixture(autouse=True)
def _hasty(monkeypatch):
    monkeypatch.setattr(account, "BACKOFF", lambda _: 0.01)
    monkeypatch.setattr(breaker, "SPAN_SECONDS", 0.0)
    monkeypatch.setattr(upstreams, "LOOK_SECONDS", 0.02)


def policy(*references):
    tree = worlds.example()
    tree["providers"]["openai"]["keys"] = list(references)
    return tree


async def mint(world):
    """/token of the tenant whose preset asks the provider."""
    return await world.mint(world.widgets_token())


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - files, logs and records have no event
            await asyncio.sleep(0.01)


def told(caplog):
    """Lines about providers and their keys."""
    lines = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    shown = ("provider", "key", "reason", "level")
    return [
        (line["event"], *(line[name] for name in shown if name in line))
        for line in lines
        if "a provider" in line["event"]
    ]


async def test_a_refused_key_is_named_in_log_and_metrics_and_another_one_serves(caplog):
    async with worlds.world(policy(FIRST, SECOND)) as world:
        assert await world.metric("switchboard_provider_key_set_aside", provider="openai", key=FIRST) == 0
        await world.faults(status=401, code="invalid_api_key", key=API_KEY)
        assert (await mint(world)).status_code == 200
        relayed = await world.relay()
        assert relayed.status_code == 201
        assert [call.owner for call in world.emulator.calls] == [OTHER_API_KEY]
        assert told(caplog) == [("a provider key is set aside", "openai", FIRST, "401", "warning")]
        assert await world.metric("switchboard_provider_key_set_aside", provider="openai", key=FIRST) == 1
        assert await world.metric("switchboard_provider_key_set_aside", provider="openai", key=SECOND) == 0
        retries = {"provider": "openai", "operation": "mint", "reason": "401"}
        assert await world.metric("switchboard_provider_retries_total", **retries) == 1
        # The call is ended with the key that opened it, although the other one is first again.
        await world.faults()
        ended = await world.client.delete(relayed.headers["location"], headers=world.auth())
        assert ended.status_code == 200
        assert world.emulator.requests[-1].headers["authorization"] == f"Bearer {OTHER_API_KEY}"


async def test_without_a_key_callers_are_refused_and_keep_their_grant(world, caplog):
    grant = (await world.mint()).json()["value"]
    await world.faults(status=429, code="insufficient_quota", times=1)
    answer = await world.relay(grant)
    check("POST", "/sdp", answer)
    assert (answer.status_code, answer.json()["code"]) == (502, "provider_unavailable")
    assert "none of this service's keys" in answer.json()["detail"]
    assert told(caplog) == [("a provider key is set aside", "openai", FIRST, "insufficient_quota", "warning")]
    asked = len(world.emulator.requests)
    assert (await world.relay(grant)).json()["code"] == "provider_unavailable"
    assert len(world.emulator.requests) == asked


async def test_a_key_in_a_file_is_exchanged_without_a_restart(tmp_path, caplog):
    """As Kubernetes does it: by another symlink. Calls of the former key are still ended."""
    for folder, value in (("one", API_KEY), ("two", OTHER_API_KEY)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "key").write_text(value + "\n")
    current = tmp_path / "current"
    current.symlink_to("one")
    name = f"file:{current}/key"
    async with worlds.world(policy(name)) as world:
        await world.relay()
        await world.faults(status=401, key=API_KEY, operations=["mint", "call"])
        assert (await world.relay()).json()["code"] == "provider_unavailable"
        (tmp_path / "new").symlink_to("two")
        (tmp_path / "new").rename(current)
        await until(lambda: len(told(caplog)) == 2)
        assert (await world.relay()).status_code == 201
        assert [call.owner for call in world.emulator.calls] == [API_KEY, OTHER_API_KEY]
        assert told(caplog) == [
            ("a provider key is set aside", "openai", name, "401", "warning"),
            ("a provider key has a new value", "openai", name, "info"),
        ]
        assert await world.metric("switchboard_provider_key_set_aside", provider="openai", key=name) == 0
        # The second call of this user replaced the first one, which the former key alone can end.
        assert [call.state for call in world.emulator.calls] == ["ended", "open"]


@pytest.mark.parametrize("broken", ["gone", "empty", "two\nlines", "binary"])
async def test_a_file_that_holds_no_key_leaves_the_last_one(tmp_path, caplog, broken):
    file = tmp_path / "key"
    file.write_text(API_KEY)
    name = f"file:{file}"

    def warnings():
        return [line for line in told(caplog) if line[0].startswith("the file of a provider key")]

    async with worlds.world(policy(name)) as world:
        if broken == "gone":
            file.unlink()
        else:
            file.write_bytes({"empty": b"", "binary": b"\xff\xfe"}.get(broken, broken.encode()))
        await until(warnings)
        assert (await mint(world)).status_code == 200
        await asyncio.sleep(0.1)
        assert [(line[0], line[-1]) for line in warnings()] == [
            ("the file of a provider key cannot be used; the key stays as it was", "warning")
        ]
        file.write_text(OTHER_API_KEY)
        await until(lambda: told(caplog)[-1] == ("a provider key has a new value", "openai", name, "info"))
        await mint(world)
        assert world.emulator.requests[-1].headers["authorization"] == f"Bearer {OTHER_API_KEY}"


async def test_while_the_provider_is_down_callers_are_refused_at_once(world, caplog):
    grant = (await world.mint()).json()["value"]
    call = await world.relay()
    await world.faults(status=500, operations=["mint", "call"])
    while (answer := await mint(world)).status_code == 502:
        assert answer.json()["code"] == "provider_unavailable"
    asked = len(world.emulator.requests)
    for path, ask in (("/token", lambda: mint(world)), ("/sdp", lambda: world.relay(grant))):
        for _ in range(6):
            started = time.perf_counter()
            answer = await ask()
            assert time.perf_counter() - started < 0.05
            assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (
                503,
                "provider_busy",
                "1",
            )
            check("POST", path, answer)
    # Not even a hang-up: the user's call need not make room for one that cannot be.
    assert len(world.emulator.requests) == asked
    assert await world.metric("switchboard_provider_breaker_open", provider="openai") == 1
    assert [one["state"] for one in (await world.client.get("/calls", headers=world.auth())).json()["calls"]] == [
        "open"
    ]
    # An open call is ended all the same.
    assert (await world.client.delete(call.headers["location"], headers=world.auth())).status_code == 200
    await world.faults()
    await asyncio.sleep(1.0)
    assert (await world.relay(grant)).status_code == 201
    assert await world.metric("switchboard_provider_breaker_open", provider="openai") == 0
    assert told(caplog) == [
        ("a provider is down; callers are refused at once", "openai", "500", "warning"),
        ("a provider answers again", "openai", "warning"),
    ]


@pytest.mark.parametrize("faults", [{"half_answer": True}, {"not_json": True}])
async def test_a_call_that_nobody_will_hear_is_ended_though_the_first_hangup_fails(world, monkeypatch, faults):
    """Its answer was of no use, and just then the provider is too ill to end it: the sweepers know it, and go on."""
    monkeypatch.setattr(leash, "TICK_SECONDS", 0.02)
    await world.faults(**faults, operations=["call"], times=1)
    relaying = asyncio.create_task(world.relay())
    await until(lambda: world.emulator.calls)
    await world.faults(status=500, operations=["hangup"], times=1)
    assert (await relaying).json()["code"] == "provider_unavailable"
    await until(lambda: len(world.records) == 2)
    (call,) = world.emulator.calls
    assert call.state == "ended"
    assert [(one["action"], one["outcome"], one["reason"], one["call_id"]) for one in world.records] == [
        ("call.open", "error", "provider_unavailable", call.id),
        ("call.end", "allowed", "admin", call.id),
    ]


@pytest.fixture
def often_looked(monkeypatch):
    """Whether callers are still there is looked at often, from the service's start on."""
    monkeypatch.setattr("switchboard.waiting.LOOK_SECONDS", 0.02)


@pytest.mark.parametrize("request_line", ["GET /token", "POST /v1/realtime/client_secrets"])
async def test_a_caller_who_leaves_cancels_the_mint(often_looked, world, request_line):
    """Over a real socket: the provider is asked no longer than somebody waits."""
    await world.faults(delay_seconds=1.5, operations=["mint"], times=1)
    async with serving(world.public) as url:
        host, port = url.removeprefix("http://").split(":")
        _reader, writer = await asyncio.open_connection(host, int(port))
        head = (f"{request_line} HTTP/1.1", "Host: x", f"Authorization: Bearer {world.widgets_token()}")
        writer.write("\r\n".join((*head, "Content-Length: 0", "", "")).encode())
        await writer.drain()
        await until(lambda: world.emulator.requests)
        started = time.perf_counter()
        writer.close()
        await until(lambda: world.records)
        assert time.perf_counter() - started < 1
    (record,) = world.records
    assert (record["action"], record["outcome"], record["reason"]) == ("token.mint", "error", "caller_gone")
    cancelled = {"provider": "openai", "operation": "mint", "status": "cancelled"}
    assert await world.metric("switchboard_provider_request_duration_seconds_count", **cancelled) == 1


async def test_a_caller_who_stays_gets_the_secret_however_slow_it_is(often_looked, world):
    await world.faults(delay_seconds=0.2, operations=["mint"])
    async with serving(world.public) as url:
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /token HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {world.widgets_token()}\r\n"
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        assert (await reader.readline()).split()[1] == b"200"
        writer.close()


async def test_an_offer_cancelled_again_and_again_is_finished(world):
    await world.faults(delay_seconds=0.3, operations=["call"], times=1)
    relaying = asyncio.create_task(world.relay())
    await until(lambda: world.emulator.requests)
    for _ in range(5):
        relaying.cancel()
        await asyncio.sleep(0.02)
    with pytest.raises(asyncio.CancelledError):
        await relaying
    (call,) = world.emulator.calls
    assert call.state == "ended"
    assert [(one["action"], one["reason"], one["call_id"]) for one in world.records] == [
        ("call.open", "cancelled", call.id),
        ("call.end", "owner", call.id),
    ]
