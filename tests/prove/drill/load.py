"""Clients who use two replicas at the same time, as frontends behind a proxy do, and note every answer."""

import asyncio
import contextlib
import hashlib
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt

from tests.prove import service
from tests.prove.client import Caller, Reply
from tests.prove.drill.judging import ASKS_PROVIDER, Answer
from tests.support import keys, world

TENANT = "drill"
JWKS_ISSUER = "https://login.drill.example/"
KEY_ID = "rsa-1"

CLIENTS = 12
PAUSE_SECONDS = 0.06  # between two requests of a client: this load is to be answered in passing
PATIENT_SECONDS = {True: 8.0, False: 3.0}  # until a client gives up, by whether the provider is asked
AVOID_SECONDS = 1.0  # a replica that gave no answer is left alone for so long, as proxies do
LEFT_OPEN = 0.4  # share of the calls that nobody ends, so that the leash has to

_numbers = itertools.count(1)


def new_token() -> str:
    """A token of somebody who has never called before: of the issuer with a secret, or of the one with a key set."""
    number = next(_numbers)
    if number % 2:
        return service.token(f"driller-{number}", tenant=TENANT)
    return jwt.encode(_claims(JWKS_ISSUER, number), keys.private_key("RSA"), "RS256", headers={"kid": KEY_ID})


def _claims(issuer: str, number: int, **changes: int) -> dict[str, Any]:
    content = keys.claims(iss=issuer, sub=f"driller-{number}", org_id=TENANT)
    return {**content, "iat": content["iat"] - 60, **changes}


def bad_token(kind: str) -> str:
    """A token that must never be taken."""
    number, now = next(_numbers), int(time.time())
    if kind == "forged":
        return jwt.encode(_claims(JWKS_ISSUER, number), keys.private_key("RSA", "forger"), "RS256", {"kid": KEY_ID})
    if kind == "unknown key":
        return jwt.encode(_claims(JWKS_ISSUER, number), keys.private_key("RSA", "forger"), "RS256", {"kid": "nobody"})
    if kind == "expired":
        old = {"iat": now - 7200, "exp": now - 3600}
        return jwt.encode(_claims(service.ISSUER, number, **old), world.LEGACY_SECRET, "HS256")
    return jwt.encode(_claims("https://elsewhere.example/", number), world.LEGACY_SECRET, "HS256")


@dataclass
class Load:
    """What all clients together asked and hold.

    Args:
        ports: of the replicas.
    """

    ports: Sequence[int]
    answers: list[Answer] = field(default_factory=list)
    credentials: set[str] = field(default_factory=set)
    """SHA-256 of what was handed out."""
    calls: set[str] = field(default_factory=set)
    """Ids of calls whose answer was handed out."""
    is_over: bool = False
    leaves_calls: bool = True
    """Whether some calls are left to their deadlines."""

    async def run(self, clients: int = CLIENTS) -> None:
        """Ask until it is over."""
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(Client(self, number).run())

    def unaccounted(self, records: Sequence[dict[str, Any]]) -> set[str]:
        """What was handed out and is not on record as allowed."""
        allowed = [one for one in records if one.get("outcome") == "allowed"]
        on_record = {one.get("credential_sha256") for one in allowed} | {one.get("call_id") for one in allowed}
        return (self.credentials | self.calls) - on_record


class NoAnswer(Exception):
    """Nothing came; what there was to do with it is given up."""


class Client:
    """One who does one thing after the other, each at any replica."""

    def __init__(self, load: Load, number: int) -> None:
        self._load = load
        self._number = number
        self._callers: dict[int, Caller] = {}
        self._avoid: dict[int, float] = {}

    async def run(self) -> None:
        """Until the load is over."""
        await asyncio.sleep(self._number * PAUSE_SECONDS / CLIENTS)
        deeds = (self._own_call, self._call_by_grant, self._secret, self._bad_token)
        try:
            while not self._load.is_over:
                with contextlib.suppress(NoAnswer):
                    await random.choices(deeds, (5, 3, 2, 2))[0]()
                await asyncio.sleep(PAUSE_SECONDS)
        finally:
            for caller in self._callers.values():
                await _closed(caller)

    async def _own_call(self) -> None:
        token = new_token()
        offered = await self._ask("offer", "POST", "/sdp", token, service.new_offer())
        if offered.status == 201:
            location = offered.headers["location"]
            await self._ask("read", "GET", location, token)
            await self._ask("second offer", "POST", "/sdp", token, service.new_offer())
            await self._ask("list", "GET", "/calls", token, location=location)
            await self._perhaps_end(location, token)

    async def _call_by_grant(self) -> None:
        token = new_token()
        minted = await self._ask("grant", "GET", "/token", token)
        if minted.status == 200:
            grant = minted.json["value"]
            offered = await self._ask("offer by grant", "POST", "/sdp", grant, service.new_offer())
            if offered.status == 201:
                await self._perhaps_end(offered.headers["location"], grant)
                await self._ask("used grant", "POST", "/sdp", grant, service.new_offer())

    async def _secret(self) -> None:
        await self._ask("secret", "GET", "/token?preset=direct", new_token())

    async def _bad_token(self) -> None:
        kind = random.choice(("forged", "unknown key", "expired", "foreign"))
        if random.random() < 0.5:
            await self._ask(kind, "GET", random.choice(("/token", "/token?preset=direct", "/calls")), bad_token(kind))
        else:
            await self._ask(kind, "POST", "/sdp", bad_token(kind), service.new_offer())

    async def _perhaps_end(self, location: str, bearer: str) -> None:
        if not (self._load.leaves_calls and random.random() < LEFT_OPEN):
            await self._ask("end", "DELETE", location, bearer)

    async def _ask(
        self, kind: str, method: str, path: str, bearer: str, body: bytes = b"", *, location: str = ""
    ) -> Reply:
        """One request, noted.

        Raises:
            NoAnswer: there was none.
        """
        await asyncio.sleep(PAUSE_SECONDS)
        replica = self._choose()
        sent, text, reply = time.monotonic(), "not connected", None
        try:
            async with asyncio.timeout(PATIENT_SECONDS[kind in ASKS_PROVIDER]):
                if replica not in self._callers:
                    self._callers[replica] = await Caller(self._load.ports[replica]).__aenter__()
                text = "cut off"
                reply = await self._callers[replica].ask(method, path, bearer, "application/sdp", body)
                text = _text(kind, reply, location)
        except TimeoutError:
            text = "no answer in time"
        except (OSError, EOFError):
            pass
        self._load.answers.append(Answer(kind, replica, sent, time.monotonic(), text))
        if reply is None:
            self._avoid[replica] = time.monotonic() + AVOID_SECONDS
            if replica in self._callers:
                await _closed(self._callers.pop(replica))
            raise NoAnswer
        self._keep(reply)
        if reply.headers.get("connection") == "close":
            await _closed(self._callers.pop(replica))
        return reply

    def _choose(self) -> int:
        now = time.monotonic()
        every = range(len(self._load.ports))
        return random.choice([one for one in every if self._avoid.get(one, 0) <= now] or list(every))

    def _keep(self, reply: Reply) -> None:
        if reply.status == 201:
            self._load.calls.add(reply.headers["location"].rpartition("/")[2])
        elif reply.status == 200 and "value" in (content := reply.json):
            self._load.credentials.add(hashlib.sha256(content["value"].encode()).hexdigest())


async def _closed(caller: Caller) -> None:
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(1):
            await caller.__aexit__()


def _text(kind: str, reply: Reply, location: str) -> str:
    """An answer in words, as the judge reads it."""
    if reply.status == 200 and kind in ("read", "end"):
        return f"200 {reply.json['state']}"
    if reply.status == 200 and kind == "list":
        is_listed = location.rpartition("/")[2] in [call["id"] for call in reply.json["calls"]]
        return f"200 {'listed' if is_listed else 'missing'}"
    return str(reply.status) if reply.status < 300 else f"{reply.status} {reply.json['code']}"
