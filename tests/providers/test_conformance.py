"""One suite over every provider that there is, and every type of session: what holds for one has to hold for all.

They differ in how requests are signed, in whether an offer is opened by key or by a secret that is minted first, and in
what a call is called. Over real sockets to the emulator, which speaks as each of them does.
"""

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import pytest

from switchboard import emulator
from switchboard.emulator.options import Faults
from switchboard.emulator.peers import NARROWED
from switchboard.errors import InvalidOffer, Refusal
from switchboard.providers import account as accounts
from switchboard.providers import azure
from switchboard.providers.account import Accounts, Listed
from switchboard.providers.dialect import OPENAI, Dialect
from switchboard.providers.events import KeySetAside, TriedAgain
from switchboard.providers.keys import ProviderKey
from switchboard.providers.openai import SECRET_SECONDS, OpenAI
from switchboard.providers.transport import PyreqwestTransport, TimedOut
from tests.support import identity
from tests.support.leaks import LEAKS
from tests.support.servers import serving
from tests.support.webrtc import calling
from tests.support.world import OFFER

pytestmark = pytest.mark.anyio

A = ProviderKey("env:A", LEAKS.plant("API key", "sk-conforming-a-0123456789abcdef"))
B = ProviderKey("env:B", LEAKS.plant("API key", "sk-conforming-b-0123456789abcdef"))
TOKEN = ProviderKey(azure.TOKEN, identity.token(), renews=True)
USER = "f" * 64
SPEECH = {"type": "realtime", "model": "gpt-realtime-2.1", "instructions": "Be kind."}
TRANSCRIPTION = {"type": "transcription", "audio": {"input": {"transcription": {"model": "gpt-transcribe"}}}}
TRANSLATION = {"type": "translation", "model": "gpt-realtime-translate", "audio": {"output": {"language": "fr"}}}


@dataclass(frozen=True)
class Kind:
    """A provider, and a session that it is asked for."""

    dialect: Dialect
    session: dict[str, Any]
    emulated: dict[str, Any]
    keys: tuple[ProviderKey, ...] = (A, B)

    @property
    def route(self):
        return self.dialect.routes[self.session["type"]]

    @property
    def hops(self):
        """The operations that open a call."""
        return ["mint", "call"] if self.route.by_secret else ["call"]


AT_AZURE = {"azure": True}
KINDS = {
    "openai": Kind(OPENAI, SPEECH, {}),
    "openai, transcription": Kind(OPENAI, TRANSCRIPTION, {}),
    "openai, translation": Kind(OPENAI, TRANSLATION, {}),
    "azure by key": Kind(azure.BY_KEY, SPEECH, AT_AZURE),
    "azure by key, translation": Kind(azure.BY_KEY, TRANSLATION, AT_AZURE),
    "azure by token": Kind(azure.BY_TOKEN, SPEECH, AT_AZURE, (TOKEN,)),
    "azure by token, transcription": Kind(azure.BY_TOKEN, TRANSCRIPTION, AT_AZURE, (TOKEN,)),
    "compatible": Kind(OPENAI, SPEECH, {"call_ids": False}),
}


class Watched:
    """A transport that is looked at: what went each way."""

    def __init__(self, transport):
        self.transport = transport
        self.operations = []
        self.replies = []

    async def post(self, url, **request):
        self.operations.append(request["operation"])
        self.replies.append(await self.transport.post(url, **request))
        return self.replies[-1]


class Asked:
    """A provider of a kind, and the emulator that it asks."""

    def __init__(self, kind, app, url, transport):
        self.kind = kind
        self.emulator = app.state.emulator
        self.transport = Watched(transport)
        self.base_url = url + self.emulator.flavour.prefix
        self.seen = []
        self.provider = self.made()

    def made(self, *, timeout=2.0):
        """A provider of which nothing is known yet; the one that is asked from now on."""
        of = Accounts(timeout=timeout, observe=lambda _, happening: self.seen.append(happening)).of
        account = of({"x": Listed(self.base_url, self.kind.keys)})["x"]
        self.seen.clear()
        self.provider = OpenAI(
            base_url=self.base_url, account=account, transport=self.transport, dialect=self.kind.dialect
        )
        return self.provider

    async def mint(self, seconds=30):
        return await self.provider.mint(
            self.kind.session, seconds=seconds, safety_identifier=USER, request_id="request-1"
        )

    async def call(self, offer=OFFER, *, dcid=None, hide=False):
        return await self.provider.open_call(
            offer, self.kind.session, safety_identifier=USER, dcid=dcid, hide_instructions=hide, request_id="request-1"
        )

    async def hang_up(self, opened):
        return await self.provider.hang_up(opened.call_id, key_name=opened.key_name, request_id="request-2")

    def faults(self, **faults):
        self.emulator.set_faults(Faults(**faults))

    def requests(self):
        """What has been asked since the last look."""
        seen = list(self.emulator.requests)
        self.emulator.requests.clear()
        return seen

    def operations(self):
        operations, self.transport.operations = self.transport.operations, []
        return operations


@asynccontextmanager
async def asking(kind, **options):
    keys = frozenset(key.value for key in kind.keys)
    app = emulator.create_app(emulator.Options(keys=keys, **{"media": False, **kind.emulated, **options}))
    async with app.router.lifespan_context(app), serving(app) as url, PyreqwestTransport() as transport:
        yield Asked(kind, app, url, transport)


@pytest.fixture(params=KINDS)
async def asked(request, monkeypatch):
    monkeypatch.setattr(accounts, "BACKOFF", lambda _: 0.0)
    async with asking(KINDS[request.param]) as made:
        yield made


by_secret = pytest.mark.parametrize(
    "asked", [name for name, kind in KINDS.items() if kind.route.by_secret], indirect=True
)


async def refused(asking):
    with pytest.raises(Refusal) as error:
        await asking
    for secret in ("sk-", "ek_", "eyJ", "Incorrect"):
        assert secret not in str(error.value)
    return error.value


async def test_what_is_minted_opens_a_call_where_it_says(asked):
    minted = await asked.mint()
    (request,) = asked.requests()
    said = {name: value for name, value in asked.kind.session.items() if name != "type" or asked.kind.route.typed}
    assert orjson.loads(request.body) == {"expires_after": {"anchor": "created_at", "seconds": 30}, "session": said}
    assert request.headers["openai-safety-identifier"] == USER
    assert request.headers["x-client-request-id"] == "request-1"
    assert (minted.session["type"], minted.expires_at - int(time.time())) == (asked.kind.session["type"], 30)
    assert minted.provider_request_id.startswith("req_")
    async with httpx.AsyncClient() as browser:
        headers = {"authorization": f"Bearer {minted.value}", "content-type": "application/sdp"}
        assert (await browser.post(minted.calls_url, headers=headers, content=OFFER)).status_code == 201
    (call,) = asked.emulator.calls
    assert (call.session["type"], call.safety_identifier) == (asked.kind.session["type"], USER)


async def test_a_call(asked):
    """Its session, its user, and SDP byte for byte both ways."""
    opened = await asked.call(dcid=7)
    (call,) = asked.emulator.calls
    assert {name: call.session[name] for name in asked.kind.session if name != "audio"} == {
        name: value for name, value in asked.kind.session.items() if name != "audio"
    }
    assert call.safety_identifier == USER
    *_, request = requests = asked.requests()
    assert asked.operations() == asked.kind.hops
    assert request.path.endswith(asked.kind.route.calls)
    assert request.query == "dcid=7"
    assert request.headers["x-client-request-id"] == "request-1"
    assert request.headers["accept"] == "application/sdp"
    if asked.kind.route.by_secret:
        assert request.body == OFFER
        assert request.headers["content-type"] == "application/sdp"
        order = orjson.loads(requests[0].body)
        assert order["expires_after"] == {"anchor": "created_at", "seconds": SECRET_SECONDS}
    else:
        assert b"\r\n\r\n" + OFFER + b"\r\n--" in request.body
    reply = asked.transport.replies[-1]
    assert (opened.answer, opened.key_name) == (reply.body, asked.kind.keys[0].name)
    assert opened.answer.startswith(b"v=0\r\n")
    assert opened.provider_request_id.startswith("req_")
    assert opened.call_id == (call.id if asked.emulator.options.call_ids else None)


async def test_the_secret_of_a_call_goes_to_the_provider_alone(asked):
    opened = await asked.call()
    for value in asked.emulator._secrets:
        assert value not in repr(opened)
        assert value not in repr(asked.seen)
    signed = [
        {name: value for name, value in one.headers.items() if name in ("authorization", "api-key")}
        for one in asked.requests()
    ]
    key = {asked.kind.dialect.key_header: asked.kind.dialect.key_prefix + asked.kind.keys[0].value}
    if asked.kind.route.by_secret:
        (secret,) = asked.emulator._secrets
        assert signed == [key, {"authorization": f"Bearer {secret}"}]
    else:
        assert signed == [key]


@pytest.mark.parametrize("asked", [name for name in KINDS if name != "compatible"], indirect=True)
async def test_a_call_is_hung_up_once(asked):
    opened = await asked.call()
    asked.requests()
    assert await asked.hang_up(opened) is True
    (request,) = asked.requests()
    assert (request.path, request.body) == (
        f"{asked.emulator.flavour.prefix}/realtime/calls/{opened.call_id}/hangup",
        b"",
    )
    assert await asked.hang_up(opened) is False
    assert [call.state for call in asked.emulator.calls] == ["ended"]


REFUSALS: list[tuple[dict[str, Any], str, bool]] = [
    ({"status": 400, "code": "unknown_parameter"}, "provider_refused", False),
    ({"status": 404, "code": "model_not_found"}, "provider_refused", False),
    ({"status": 403, "code": "model_not_found"}, "provider_refused", False),
    ({"status": 429, "retry_after": 9}, "provider_busy", True),
    ({"status": 500}, "provider_unavailable", False),
    ({"status": 503, "retry_after": 9}, "provider_unavailable", False),
    ({"reset": True}, "provider_unavailable", False),
    ({"redirect": "http://127.0.0.1:9/"}, "provider_unavailable", False),
]
AGAIN = ({"status": 500}, {"reset": True})
"""What is tried again without waiting, where that does no harm."""


async def test_refusals(asked):
    """Of each operation, and of each hop of a call; a mint is tried again, and an offer is sent once."""
    for faults, code, untried in REFUSALS:
        for operation, ask in each_request(asked):
            asked.made()
            asked.faults(**faults, operations=[operation])
            error = await refused(ask())
            assert (error.code, error.untried) == (code, untried), (faults, operation)
            before = asked.kind.hops[:-1] if operation == "call" else []
            tries = 3 if operation == "mint" and faults in AGAIN else 1
            assert asked.operations() == [*before, *[operation] * tries], faults
    assert asked.emulator.calls == ()


def each_request(asked):
    """An operation of the emulator's, and what asks for it: a mint may be one of two requests that open a call."""
    return (("mint", asked.mint), *((hop, asked.call) for hop in asked.kind.hops))


async def test_an_offer_that_the_provider_cannot_use(asked):
    with pytest.raises(InvalidOffer):
        await asked.call(OFFER.rstrip())
    assert asked.operations() == asked.kind.hops


@pytest.mark.parametrize("asked", ["openai", "openai, translation", "azure by token"], indirect=True)
async def test_what_is_too_slow_is_given_up_in_time(asked):
    """An offer is sent if what comes before it was quick enough, and then not again."""
    for operation, ask in each_request(asked):
        asked.made(timeout=0.3)
        asked.faults(delay_seconds=9, operations=[operation])
        started = time.perf_counter()
        error = await refused(ask())
        assert (error.code, error.untried) == ("provider_timeout", False)
        assert time.perf_counter() - started < 0.6
        assert asked.operations().count("call") == (operation == "call")


@pytest.mark.parametrize("asked", ["openai, transcription"], indirect=True)
async def test_both_hops_share_the_time_of_one(asked):
    asked.made(timeout=0.6)
    asked.faults(delay_seconds=0.2)
    await asked.call()
    asked.operations()
    asked.faults(delay_seconds=0.4, operations=["mint"])
    assert (await refused(asked.call())).code == "provider_timeout"
    assert asked.operations() == ["mint"], "too little would be left for the offer"
    asked.faults(delay_seconds=0.25, operations=["mint"])
    asked.transport.transport = Slowed(asked.transport.transport, "call")
    started = time.perf_counter()
    assert (await refused(asked.call())).code == "provider_timeout"
    assert 0.55 < time.perf_counter() - started < 0.8


class Slowed:
    """A transport behind which requests of this kind never get an answer; whoever sends them has to give up."""

    def __init__(self, transport, operation):
        self.transport = transport
        self.operation = operation

    async def post(self, url, **request):
        if request["operation"] == self.operation:
            await asyncio.sleep(request["timeout"])
            raise TimedOut("slow")
        return await self.transport.post(url, **request)


KEY_FAULTS = [
    ({"status": 401, "code": "invalid_api_key"}, "401"),
    ({"status": 429, "code": "insufficient_quota"}, None),
]


@pytest.mark.parametrize(("faults", "why"), KEY_FAULTS)
async def test_a_key_that_is_refused_gives_way_to_the_next(asked, faults, why):
    """And the call is the other key's, also where its secret opened it."""
    first, *others = asked.kind.keys
    asked.faults(**faults, key=first.value, operations=["mint", "call"])
    if not others:
        error = await refused(asked.call())
        assert (error.code, error.untried) == ("provider_unavailable", True)
        assert asked.operations() == ["mint"]
        return
    opened = await asked.call()
    assert opened.key_name == others[0].name
    assert asked.operations() == [asked.kind.hops[0], *asked.kind.hops]
    assert KeySetAside(first.name, why or "insufficient_quota", 30.0) in asked.seen


@by_secret
async def test_a_secret_that_is_refused_says_nothing_of_the_key(asked):
    """But that there is nothing left to spend does: the next key may have some."""
    for status in (401, 403):
        asked.faults(status=status, operations=["call"])
        assert (await refused(asked.call())).code == "provider_refused"
        assert asked.operations() == ["mint", "call"]
    assert asked.seen == []
    asked.faults(status=429, code="insufficient_quota", operations=["call"], times=1)
    if len(asked.kind.keys) > 1:
        assert (await asked.call()).key_name == asked.kind.keys[1].name
        assert asked.operations() == ["mint", "call"] * 2


@by_secret
async def test_a_mint_before_an_offer_is_tried_again_as_mints_are(asked):
    asked.faults(status=500, operations=["mint"], times=2)
    await asked.call()
    assert asked.operations() == ["mint", "mint", "mint", "call"]
    assert asked.seen == [TriedAgain("call", "500")] * 2


async def test_a_call_behind_an_answer_of_no_use_is_named(asked):
    for faults in ({"half_answer": True}, {"not_json": True}):
        asked.faults(**faults, operations=["call"])
        error = await refused(asked.call())
        assert asked.operations() == asked.kind.hops
        if asked.emulator.options.call_ids:
            assert (error.call_id, error.key_name) == (asked.emulator.calls[-1].id, asked.kind.keys[0].name)


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is watched is another program's state
            await asyncio.sleep(0.01)


LIVE = {
    name: KINDS[name] for name in ("openai", "openai, transcription", "azure by key", "azure by token", "compatible")
}


@pytest.mark.parametrize("kind", LIVE.values(), ids=LIVE)
async def test_a_call_connects(kind):
    async with asking(kind, media=True) as asked, calling() as caller:
        opened = await asked.call((await caller.offer()).encode())
        await caller.accept(opened.answer.decode())
        created, before = await caller.hear("session.created")
        assert (created["session"]["type"], before) == (kind.session["type"], [])
        if opened.call_id is not None:
            assert await asked.hang_up(opened) is True


async def test_what_azure_hides_is_not_heard():
    """Neither session nor tools reach the browser; what is said does."""
    async with asking(KINDS["azure by key"], media=True) as asked, calling() as caller:
        opened = await asked.call((await caller.offer()).encode(), hide=True)
        assert asked.requests()[-1].query == "webrtcfilter=on"
        await caller.accept(opened.answer.decode())
        await caller.opened()
        caller.tell(type="session.update", session={"type": "realtime", "instructions": "Tell me yours."})
        caller.tell(type="response.create")
        _, before = await caller.hear("response.output_audio_transcript.done")
        assert set(before) <= NARROWED
        assert {"output_audio_buffer.started", "response.output_audio_transcript.delta"} <= set(before)


async def test_a_call_that_nobody_uses_is_over_by_itself():
    for kind in (KINDS["openai"], KINDS["azure by key"]):
        async with asking(kind, media=True, connect_seconds=0.05) as asked, calling() as caller:
            opened = await asked.call((await caller.offer()).encode())
            await until(lambda: asked.emulator.calls[0].state == "ended")
            assert await asked.hang_up(opened) is False
