"""A mixed run: replicas as in production that live through, in a quarter of a minute, what otherwise takes months."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from itertools import count
from typing import Any, get_args

import httpx

from switchboard.calls import EndedBy
from tests.prove import service
from tests.prove.service import Ground, Replica
from tests.support import keys, world
from tests.support.leaks import LEAKS
from tests.support.servers import KeyServer

ROUNDS = 13
ROUND_SECONDS = 1.0
LATE_ROUNDS = 15
REDIS_LEAVES, REDIS_AWAY = 11.2, 1.6  # a call may be silent for longer after that, so not before
PAGE = "https://app.acme.example"
AWAY = "https://away.example/"
FULL_DISK = "file:/dev/full"
NOWHERE = "file:/nowhere/anchors"
HANGUPS_FAIL = (1, 3)
WORKERS_DIE = (6,)
NONSENSE, SENSE = 2, 4  # when a broken policy is written, and a good one again
# What goes wrong at the provider, by round.
FAULTS: dict[int, dict[str, Any]] = {
    1: {"operations": ["hangup"], "status": 500},
    2: {"operations": ["call", "mint"], "status": 500},
    3: {"status": 500},
    4: {"operations": ["call", "mint"], "status": 404},
    5: {"operations": ["call", "mint"], "status": 404},
    6: {"operations": ["call", "mint"], "status": 404},
    7: {"operations": ["call", "mint"], "status": 429, "retry_after": 1},
    8: {"operations": ["call", "mint"], "status": 429, "retry_after": 1},
    9: {"operations": ["call"], "delay_seconds": 1.2, "times": 2},
    10: {"operations": ["call"], "reset": True, "times": 2},
    11: {"operations": ["mint"], "status": 500, "times": 1},
    12: {"operations": ["call", "mint"], "status": 401},  # the only key, so it is over after that
}

Watch = Callable[[list[str]], Callable[[], object]]


def policy(key_server: KeyServer) -> dict[str, Any]:
    """A tenant for each kind of limit, and an issuer whose key set is away."""
    made = service.policy(
        acme=service.tenant(
            origins=[PAGE],
            limits={
                "tenant": ["1000/minute"],
                "open_calls": {"user": 1, "tenant": 100},
                "when_user_full": "replace",
                "call_seconds": 10,
            },
            preset={"token_ttl": 10},
        ),
        widgets=service.tenant(preset={"delivery": "direct"}, limits={"user": ["1/minute"], "mode": "shadow"}),
        capped=service.tenant(
            limits={
                "open_calls": {"user": 1, "tenant": 99},
                "when_user_full": "refuse",
                "call_seconds": 60,
                "idle_seconds": 10,
            }
        ),
        busy=service.tenant(limits={"tenant": ["6/minute"]}),
        stopped=service.tenant(),
    )
    talk = made["tenants"]["stopped"]["presets"]["talk"]
    made["tenants"]["acme"]["presets"]["expert"] = {**talk, "requires": {"plan": ["pro"]}}
    published = {"audience": keys.AUDIENCE, "algorithms": ["RS256"], "tenant_claim": "org_id", "tenants": ["acme"]}
    made["issuers"] += [
        {**published, "issuer": "https://login.acme.example/", "jwks_url": f"{key_server.url}/jwks.json"},
        {**published, "issuer": AWAY, "jwks_url": f"{key_server.url}/nothing.json"},
    ]
    return made


class User:
    """Somebody with a token, who talks to one replica."""

    def __init__(self, client: httpx.AsyncClient, replica: Replica, token: str) -> None:
        self._client = client
        self._base = f"http://127.0.0.1:{replica.port}"
        self.token = token

    async def ask(self, method: str, path: str, bearer: str | None = None, **request: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {bearer or self.token}", **request.pop("headers", {})}
        try:
            answer = await self._client.request(method, self._base + path, headers=headers, **request)
        except httpx.TransportError:  # who served it has died
            return httpx.Response(503, json={})
        LEAKS.saw(f"answer {method} {path.partition('?')[0]}", f"{answer.status_code} {dict(answer.headers)}")
        return answer

    async def offer(self, bearer: str | None = None, path: str = "/sdp", sdp: bytes | None = None) -> httpx.Response:
        headers = {"content-type": "application/sdp"}
        return await self.ask("POST", path, bearer, content=sdp or service.new_offer(), headers=headers)

    async def call(self, *, tries: int = 1) -> str | None:
        """The path of a new call; None if there is none."""
        path: str | None = (await self.offer()).headers.get("location")
        if path or tries == 1:
            return path
        await asyncio.sleep(0.2)
        return await self.call(tries=tries - 1)

    async def report(self, path: str, event: str, **seen: float) -> bool:
        """Whether it was heard."""
        return (await self.ask("POST", f"{path}/report", json={"event": event, **seen})).status_code == 204


class Run:
    """What happens, strand by strand; all strands go on at the same time."""

    def __init__(self, ground: Ground, client: httpx.AsyncClient) -> None:
        self._ground = ground
        self._client = client
        self._numbers = count(1)
        self._first, self._second, self._full = ground.replicas

    async def live(self) -> None:
        strands: list[Callable[[int], Awaitable[object]]] = [
            self._faults, self._talk, self._mint, self._refused, self._operators, self._workers_die,
            self._full_disk, self._policies,
        ]  # fmt: skip
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ends())
            group.create_task(self._stopped())
            group.create_task(self._redis_away())
            for strand in strands:
                group.create_task(self._repeat(strand))

    async def _repeat(self, strand: Callable[[int], Awaitable[object]]) -> None:
        begin = time.monotonic()
        for number in range(ROUNDS):
            await strand(number)
            await asyncio.sleep(max(0.0, begin + (number + 1) * ROUND_SECONDS - time.monotonic()))

    async def _faults(self, number: int) -> None:
        self._ground.faults(**FAULTS.get(number, {}))

    async def _talk(self, number: int) -> None:
        """Users of both replicas who ask for a grant, call, report and hang up."""
        for replica in (self._first, self._second) * 3:
            user = self._acme(replica)
            grant = (await user.ask("POST", "/token")).json().get("value")
            opened = grant and (await user.offer(grant)).headers.get("location")
            if not opened:
                continue
            if number % 2:
                await user.report(opened, "failed")
            else:
                await user.report(opened, "connected", ms_to_connected=300.0 + number)
            await user.report(opened, "alive", rtt_ms=40.0, jitter_ms=5.0, loss=0.01)
            await user.ask("GET", opened)
            await user.report(opened, "ended", rtt_ms=60.0, jitter_ms=9.0, loss=0.02, audio_seconds=8.0 + number)
            await user.ask("DELETE", opened)

    async def _mint(self, number: int) -> None:
        """A user in shadow mode behind a bad network, and a tenant that uses up its quota."""
        widget, busy = self._user("widgets", "shadow"), self._user("busy")
        await widget.ask("GET", "/token")
        await widget.report("", "connected", ms_to_connected=9000.0, rtt_ms=400.0, loss=0.2)
        await busy.ask("GET", "/token")
        await self._acme(self._first).report("", "failed")

    async def _refused(self, number: int) -> None:
        """Every refusal that a caller can bring about alone, every other round."""
        if number % 2:
            return
        acme = self._acme(self._first)
        capped = self._user("capped", f"full-{number}")
        nobody = "not a token"
        await acme.ask("GET", "/token", nobody)
        await self._client.get(f"http://127.0.0.1:{self._first.port}/token")
        now = int(time.time())
        for changes in ({"exp": now - 600, "iat": now - 900}, {"iss": "https://nobody.example/"}, {"org_id": "nobody"}):
            await acme.ask("GET", "/token", _signed(**changes))
        await acme.ask("GET", "/token", _signed(iss=AWAY))
        await acme.ask("GET", "/token", keys.sign(keys.claims(), keys.private_key("RSA"), kid=f"unknown-{number}"))
        await acme.ask("GET", "/token", headers={"origin": "https://elsewhere.example"})
        await acme.ask("GET", "/token?preset=expert")
        await acme.ask("GET", "/token?preset=nothing")
        await acme.ask("POST", "/token", json={"session": {"instructions": "Sing."}})
        await acme.ask("POST", "/sdp", content=b"{}", headers={"content-type": "application/json"})
        await acme.offer(sdp=b"v=0\r\n")
        await acme.ask("DELETE", "/sdp/rtc_of_nobody")
        grant = (await acme.ask("POST", "/token")).json()["value"]
        await acme.offer(grant, "/sdp?preset=expert")
        await acme.offer(grant)
        await acme.offer(grant)
        if number == 0:
            self._late_grant = (await acme.ask("POST", "/token")).json()["value"]
        await acme.offer(self._late_grant if number > 11 else nobody)
        await capped.call()
        await capped.call()

    async def _operators(self, number: int) -> None:
        """One who lists calls and hangs some up, and one without the token."""
        if number == 0:
            self._kept = [await self._acme(self._first).call(tries=5) for _ in HANGUPS_FAIL]
        opened = self._kept.pop() if number in HANGUPS_FAIL else await self._acme(self._second).call(tries=3)
        await self._admin("GET", "calls")
        await self._admin("GET", "calls", "guessed-0123456789abcdef0123456789")
        if opened:
            if number % 2 == 0:
                self._drop(opened)
            await self._admin("DELETE", f"calls/{opened.rpartition('/')[2]}")

    async def _workers_die(self, number: int) -> None:
        """The second replica has two workers, and loses one."""
        if number in WORKERS_DIE:
            workers = (await self._client.get(f"http://127.0.0.1:{self._second._ops_port}/readyz")).json()["workers"]
            os.kill(workers[0]["pid"], signal.SIGKILL)

    async def _policies(self, number: int) -> None:
        """Somebody breaks the policy's file, which all replicas read, and puts it right."""
        if number == NONSENSE:
            self._policy = self._ground.policy_file.read_text()
            self._ground.policy_file.write_text("tenants: [")
        elif number == SENSE:
            self._ground.policy_file.write_text(self._policy)

    async def _full_disk(self, number: int) -> None:
        """The third replica can put nothing on record; in the end it is gone."""
        if number < 11:
            await self._user("stopped", replica=self._full).ask("GET", "/token")
        else:
            self._full.kill()

    async def _ends(self) -> None:
        """Calls that end without heartbeats, by a newer one, at their deadline, and at the provider."""
        idle = self._user("capped", "idle")
        opened = await idle.call(tries=20)
        assert opened, "a call is opened sooner or later"
        for _ in range(20):
            if await idle.report(opened, "alive"):
                break
            await asyncio.sleep(0.2)
        for number in range(8):
            forgetful = self._acme(self._first)
            await forgetful.call()
            await forgetful.call()  # replaces the first, and ends at its deadline
            dropped = await self._acme(self._first).call(tries=5)
            if dropped:
                self._drop(dropped)
            await asyncio.sleep(0.15 + number * 0.02)

    async def _stopped(self) -> None:
        """A tenant with calls is suspended, serves again, and is suspended again."""
        for _ in range(3):
            for _ in range(2):
                await self._user("stopped").call()
            await asyncio.sleep(0.5)
            await self._admin("POST", "tenants/stopped/suspend")
            await asyncio.sleep(2)
            await self._user("stopped").ask("GET", "/token")
            await self._admin("POST", "tenants/stopped/resume")

    async def _redis_away(self) -> None:
        await asyncio.sleep(REDIS_LEAVES)
        self._ground.redis.freeze()
        await asyncio.sleep(REDIS_AWAY)
        self._ground.redis.thaw()

    def _drop(self, path: str) -> None:
        """The provider ends a call by itself."""
        hangup = f"/v1/realtime/calls/{path.rpartition('/')[2]}/hangup"
        self._ground.provider.post(hangup, headers={"authorization": f"Bearer {world.API_KEY}"})

    def _acme(self, replica: Replica) -> User:
        return User(self._client, replica, _signed(sub=f"user-{next(self._numbers):06}"))

    def _user(self, tenant: str, name: str = "", *, replica: Replica | None = None) -> User:
        token = service.token(name or f"mixed-{next(self._numbers)}", tenant=tenant)
        return User(self._client, replica or self._first, token)

    async def _admin(self, method: str, path: str, token: str = world.ADMIN_TOKEN) -> None:
        url = f"http://127.0.0.1:{self._first._ops_port}/admin/{path}"
        await self._client.request(method, url, headers={"authorization": f"Bearer {token}"})


def _signed(**changes: Any) -> str:
    return keys.sign(keys.claims(**changes), keys.private_key("RSA"), kid="rsa-1")


def live(stack: ExitStack, watch: Watch) -> tuple[float, float]:
    """Live through it; gives its begin and end in unix seconds.

    Args:
        stack: the processes end with it.
        watch: is told where the replicas' metrics will be; gives what waits until they are seen.
    """
    return asyncio.run(_live(stack, watch))


async def _live(stack: ExitStack, watch: Watch) -> tuple[float, float]:
    key_server = KeyServer(keys.jwk(keys.private_key("RSA"), "rsa-1"))
    limits = httpx.Limits(max_keepalive_connections=32)
    async with key_server.running(), httpx.AsyncClient(trust_env=False, timeout=10, limits=limits) as client:
        ground = await asyncio.to_thread(stack.enter_context, service.ground(policy(key_server)))
        shared = {"admin_token": world.ADMIN_TOKEN, "provider_timeout": "1", "expected_replicas": "3"}
        for own in ({}, {"audit_anchors": NOWHERE, "workers": "2"}, {"audit": FULL_DISK}):
            ground.add(**shared, **own)
        until_seen = await asyncio.to_thread(watch, [f"127.0.0.1:{replica._ops_port}" for replica in ground.replicas])
        await asyncio.to_thread(ground.start)
        await asyncio.to_thread(until_seen)
        begin = time.time()
        await Run(ground, client).live()
        for _ in range(LATE_ROUNDS):  # on a machine that has other things to do
            if _has_ended_in_every_way(ground):
                break
            await asyncio.sleep(ROUND_SECONDS)
        await asyncio.sleep(2 * ROUND_SECONDS)  # until the last of it has been scraped
        return begin, time.time()


def _has_ended_in_every_way(ground: Ground) -> bool:
    return {record["reason"] for record in ground.records if record["action"] == "call.end"} >= set(get_args(EndedBy))
