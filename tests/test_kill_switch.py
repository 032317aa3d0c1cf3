"""The kill switch across replicas: real processes on one Redis, and a provider that sees which calls end, and when."""

import asyncio
import inspect
import json
import time
from contextlib import ExitStack, asynccontextmanager

import httpx
import pytest
import ryaml

from switchboard import emulator
from switchboard.emulator.options import Faults
from tests.support import keys
from tests.support.leaks import LEAKS
from tests.support.process import free_ports, switchboard
from tests.support.redis import redis_server
from tests.support.servers import serving
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

pytestmark = [pytest.mark.anyio, pytest.mark.timing]

REFUSED_SECONDS = 1.0  # everywhere, after a suspension
HUNG_UP_SECONDS = 2.0
ISSUER = "https://legacy.widgets.example/"


class Replica:
    """A server process, and how it is asked."""

    def __init__(self, process, env, client: httpx.AsyncClient) -> None:
        self.process = process
        self.public = f"http://127.0.0.1:{env['SWITCHBOARD_PORT']}"
        self.ops = f"http://127.0.0.1:{env['SWITCHBOARD_OPS_PORT']}"
        self._client = client
        self._callers = 0

    def _user(self, name: str) -> dict[str, str]:
        claims = keys.claims(iss=ISSUER, org_id=None, sub=f"user-{name}-{self.ops[-5:]}")
        return {"authorization": f"Bearer {keys.sign(claims, LEGACY_SECRET, 'HS256')}"}

    async def offer(self) -> httpx.Response:
        """Of another user each time, so that no call makes room for the next."""
        self._callers += 1
        headers = {"content-type": "application/sdp", **self._user(f"caller-{self._callers}")}
        return await self._client.post(f"{self.public}/sdp", headers=headers, content=fresh_offer(self._callers))

    async def code(self) -> str:
        """What a user is told."""
        answer = await self._client.get(f"{self.public}/token", headers=self._user("night"))
        if answer.status_code == 200:
            LEAKS.handed_out("the answer to its user", answer.json()["value"])
        return str(answer.json().get("code", "ok"))

    async def admin(self, method: str, path: str) -> httpx.Response:
        answer = await self._client.request(
            method, f"{self.ops}/admin/{path}", headers={"authorization": f"Bearer {ADMIN_TOKEN}"}
        )
        LEAKS.saw(f"answer of {method} {path}", answer.text)
        return answer

    async def is_refused(self) -> bool:
        return await self.code() == "tenant_suspended"

    async def is_served(self) -> bool:
        return await self.code() == "ok"

    async def is_whole(self) -> bool:
        return "degraded" not in (await self._client.get(f"{self.ops}/readyz")).json()

    def records(self, action: str) -> list[dict[str, object]]:
        """As in its standard output."""
        found = [json.loads(line) for line in self.process.lines["stdout"]]
        return [record for record in found if record["action"] == action]


class Night:
    """Replicas on one Redis, with one provider behind them."""

    def __init__(self, folder, *, redis, provider_url, **around) -> None:
        self.redis = redis
        self.provider = around["provider"]
        self._folder, self._provider_url = folder, provider_url
        self._stack, self._client = around["stack"], around["client"]

    async def replicas(self, count: int, **changes) -> list[Replica]:
        """New processes that take work; changes are to the policy of widgets."""
        policy = example()
        policy["providers"]["openai"]["base_url"] = f"{self._provider_url}/v1"
        policy["issuers"] = policy["issuers"][1:]
        policy["tenants"] = {"widgets": {**policy["tenants"]["widgets"], **changes}}
        file = self._folder / f"policy-{len(changes)}.yaml"
        file.write_text(ryaml.dumps(policy))
        started = []
        for _ in range(count):
            public, ops = free_ports(2)
            env = {
                "SWITCHBOARD_CONFIG": str(file),
                "SWITCHBOARD_HOST": "127.0.0.1",
                "SWITCHBOARD_PORT": str(public),
                "SWITCHBOARD_OPS_PORT": str(ops),
                "SWITCHBOARD_PUBLIC_URL": PUBLIC_URL,
                "SWITCHBOARD_SIGNING_KEYS": SIGNING_KEY,
                "SWITCHBOARD_USER_KEY_SECRET": USER_KEY_SECRET,
                "SWITCHBOARD_ADMIN_TOKEN": ADMIN_TOKEN,
                "SWITCHBOARD_AUDIT_KEY": "none",
                "SWITCHBOARD_REDIS_URL": self.redis.url,
                "OPENAI_API_KEY": API_KEY,
                "LEGACY_JWT_SECRET": LEGACY_SECRET,
            }
            started.append(Replica(self._stack.enter_context(switchboard("serve", env=env)), env, self._client))
        for replica in started:
            await asyncio.to_thread(replica.process.until, f"{replica.public}/readyz")
        return started

    def states(self) -> list[str]:
        """Of all calls, as the provider has them."""
        return [call.state for call in self.provider.calls]


@asynccontextmanager
async def night(folder):
    emulated = emulator.create_app(emulator.Options(keys=frozenset({API_KEY}), media=False))
    with ExitStack() as stack:
        server = stack.enter_context(redis_server(folder))
        async with (
            emulated.router.lifespan_context(emulated),
            serving(emulated) as url,
            httpx.AsyncClient(timeout=5, trust_env=False) as client,
        ):
            yield Night(
                folder, redis=server, provider_url=url, provider=emulated.state.emulator, stack=stack, client=client
            )


async def until(holds, begin, seconds):
    """Wait for something that has to come true within so many seconds of the begin; gives what came true."""
    while True:
        result = holds()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return result
        assert time.monotonic() < begin + seconds, f"not within {seconds} s"
        await asyncio.sleep(0.02)


async def ends(replicas, count, begin):
    """The records of so many ends, whoever wrote them."""
    found = await until(
        lambda: (them := [one for replica in replicas for one in replica.records("call.end")])[count - 1 :] and them,
        begin,
        4,
    )
    assert len(found) == count
    return found


async def stays_refused(replicas, seconds):
    """Asked again and again, all that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for replica in replicas:
            assert await replica.is_refused()
        await asyncio.sleep(0.05)


async def test_a_tenant_is_stopped_everywhere_and_stays_so(anyio_backend, tmp_path):
    async with night(tmp_path) as around:
        both = first, second = await around.replicas(2)
        for replica in both:
            assert await replica.code() == "ok"
            assert (await replica.offer()).status_code == 201
        # One more is on its way: the provider takes its time, and answers after the suspension.
        around.provider.set_faults(Faults(delay_seconds=0.7, operations=frozenset({"call"}), times=1))
        asked = len(around.provider.requests)
        between = asyncio.create_task(second.offer())
        await until(lambda: len(around.provider.requests) > asked, time.monotonic(), 2)

        begin = time.monotonic()
        answer = await first.admin("POST", "tenants/widgets/suspend")
        assert (answer.status_code, answer.json()["open_calls"]) == (200, 3)
        assert await first.code() == "tenant_suspended"
        await until(second.is_refused, begin, REFUSED_SECONDS)
        refusal = await between
        assert (refusal.status_code, refusal.json()["code"]) == (403, "tenant_suspended")
        await until(lambda: around.states() == ["ended"] * 3, begin, HUNG_UP_SECONDS)
        records = await ends(both, 3, begin)
        assert {record["reason"] for record in records} == {"suspended"}
        assert {record["call_id"] for record in records} == {call.id for call in around.provider.calls}
        (record,) = first.records("admin.suspend")
        assert record == {
            **{name: record[name] for name in ("time", "id", "request_id", "user_agent", "duration_ms")},
            "action": "admin.suspend",
            "outcome": "allowed",
            "reason": "ok",
            "tenant": "widgets",
            "client_ip": "127.0.0.1",
        }

        around.redis.do("FLUSHALL")
        await stays_refused(both, 1.5)
        assert around.redis.do("KEYS", "swb:*:suspended"), "it has been written back"
        around.redis.kill()
        refused = await second.admin("POST", "tenants/widgets/resume")
        assert (refused.status_code, refused.json()["code"]) == (503, "degraded")
        await stays_refused(both, 1)
        await asyncio.to_thread(around.redis.start)  # without data
        for replica in both:
            await until(replica.is_whole, time.monotonic(), 5)
        await stays_refused(both, 1.5)
        (third,) = await around.replicas(1)
        assert await third.code() == "tenant_suspended", "who comes later hears of it"

        begin = time.monotonic()
        answer = await second.admin("POST", "tenants/widgets/resume")
        assert (answer.status_code, answer.json()["suspended"]) == (200, False)
        for replica in (*both, third):
            await until(replica.is_served, begin, REFUSED_SECONDS)
        assert (await first.offer()).status_code == 201


async def test_what_the_policy_suspends_ends_though_other_replicas_have_the_old_policy(anyio_backend, tmp_path):
    async with night(tmp_path) as around:
        (old,) = await around.replicas(1)
        assert (await old.offer()).status_code == 201
        (new,) = await around.replicas(1, suspended=True)
        await until(lambda: around.states() == ["ended"], time.monotonic(), 3)
        assert await new.code() == "tenant_suspended"
        # A rolling restart: the old one goes on opening calls, and none of them lasts.
        assert (await old.offer()).status_code == 201
        begin = time.monotonic()
        await until(lambda: around.states() == ["ended"] * 2, begin, 3)
        assert {record["reason"] for record in await ends((old, new), 2, begin)} == {"suspended"}
        refused = await new.admin("POST", "tenants/widgets/resume")
        assert (refused.status_code, refused.json()["code"]) == (403, "tenant_suspended")


async def test_a_replica_hangs_up_what_another_opened(anyio_backend, tmp_path):
    async with night(tmp_path) as around:
        both = first, second = await around.replicas(2)
        assert (await first.offer()).status_code == 201
        (call,) = (await second.admin("GET", "calls")).json()["calls"]
        ended = (await second.admin("DELETE", f"calls/{call['id']}")).json()
        assert (ended["state"], ended["ended_by"], around.states()) == ("ended", "admin", ["ended"])
        assert (await first.admin("DELETE", f"calls/{call['id']}")).json() == ended
        (record,) = await ends(both, 1, time.monotonic())
        assert (record["reason"], record["call_id"]) == ("admin", call["id"])
