"""A provider's faults over real sockets: what is tried again, how often, with which key, and what is not sent at all.

Each request that the emulator has seen is counted: what a mint may do three times, an offer does once.
"""

import asyncio
import socket
import time
from collections import Counter
from typing import Any

import pytest

from switchboard import emulator
from switchboard.emulator.options import Faults
from switchboard.errors import InvalidOffer, ProviderBusy, ProviderError, ProviderTimeout, ProviderUnavailable
from switchboard.providers import account as accounts
from switchboard.providers import breaker as breakers
from switchboard.providers import openai
from switchboard.providers.account import Accounts, Listed
from switchboard.providers.events import (
    AccountListed,
    BreakerClosed,
    BreakerOpened,
    KeyBack,
    KeyListed,
    KeySetAside,
    TriedAgain,
)
from switchboard.providers.keys import ProviderKey
from switchboard.providers.openai import OpenAI
from switchboard.providers.transport import PyreqwestTransport
from tests.support.leaks import LEAKS
from tests.support.servers import serving
from tests.support.world import OFFER

pytestmark = pytest.mark.anyio

A = ProviderKey("env:A", LEAKS.plant("API key", "sk-a-0123456789abcdefghij"))
B = ProviderKey("env:B", LEAKS.plant("API key", "sk-b-0123456789abcdefghij"))
SESSION = {"type": "realtime", "model": "gpt-realtime-2.1"}


class Upstream:
    """An emulator, the provider that asks it, and what those who watch saw."""

    def __init__(self, app, url, transport):
        self.app = app
        self.url = url
        self.transport = transport
        self.seen = []
        self.emulator = app.state.emulator
        self.now = 1000.0
        self.accounts = None
        self.provider = self.made()

    def made(self, *, keys=(A, B), timeout=2.0, url=None):
        """A provider; the one that is asked from now on. Its waits for keys and the breaker go by `now`."""
        self.accounts = Accounts(timeout=timeout, observe=self._observe, clock=lambda: self.now)
        url = url or f"{self.url}/v1"
        account = self.accounts.of({"openai": Listed(url, keys)})["openai"]
        account._clock = time.monotonic  # the deadline is real
        self.seen.clear()
        self.provider = OpenAI(base_url=url, account=account, transport=self.transport)
        return self.provider

    def _observe(self, provider, happening):
        assert provider == "openai"
        self.seen.append(happening)

    def faults(self, **faults):
        self.emulator.set_faults(Faults(**faults))

    def asked(self):
        """Operation and key of each request, since the last look."""
        told = [
            ({"client_secrets": "mint", "calls": "call"}.get(one.path.rpartition("/")[2], "hangup"),
             one.headers["authorization"].removeprefix("Bearer sk-")[:1])
            for one in self.emulator.requests
        ]  # fmt: skip
        self.emulator.requests.clear()
        return told

    async def mint(self):
        return await self.provider.mint(SESSION, seconds=30, safety_identifier="u" * 64, request_id="r-1")

    async def call(self):
        return await self.provider.open_call(
            OFFER, SESSION, safety_identifier="u" * 64, dcid=None, hide_instructions=False, request_id="r-1"
        )

    async def hang_up(self, call_id, key_name="env:A"):
        return await self.provider.hang_up(call_id, key_name=key_name, request_id="r-1")


@pytest.fixture
async def upstream(monkeypatch):
    monkeypatch.setattr(accounts, "BACKOFF", lambda _: 0.01)
    app = emulator.create_app(emulator.Options(media=False))
    async with app.router.lifespan_context(app), serving(app) as url, PyreqwestTransport() as transport:
        yield Upstream(app, url, transport)


def unused_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


async def refused(asking):
    """The refusal that comes of it, and how long that took."""
    started = time.perf_counter()
    with pytest.raises(ProviderError) as error:
        await asking
    assert "sk-" not in str(error.value)
    return error.value, time.perf_counter() - started


MENDED: list[tuple[dict[str, Any], str]] = [({"status": status}, str(status)) for status in (408, 409, 429, 500, 529)]
MENDED += [({"reset": True}, "broken"), ({"half_answer": True}, "broken")]


@pytest.mark.parametrize(("faults", "why"), MENDED)
async def test_a_mint_is_tried_again_but_three_times_in_all(upstream, faults, why):
    upstream.faults(**faults, times=2)
    assert (await upstream.mint()).value.startswith("ek_")
    assert upstream.asked() == [("mint", "a")] * 3
    upstream.faults(**faults)
    await refused(upstream.mint())
    assert upstream.asked() == [("mint", "a")] * 3
    assert upstream.seen == [TriedAgain("mint", why)] * 4


NOT_MENDED: list[tuple[dict[str, Any], str]] = [
    ({"status": 400}, "provider_refused"),
    ({"status": 404, "code": "model_not_found"}, "provider_refused"),
    ({"status": 403, "code": "model_not_found"}, "provider_refused"),
    ({"redirect": "http://127.0.0.1:9/"}, "provider_unavailable"),
    ({"huge": 2_000_000}, "provider_unavailable"),
    ({"drip": 0.1}, "provider_timeout"),
    ({"delay_seconds": 5}, "provider_timeout"),
    ({"not_json": True}, "provider_unavailable"),
    ({"wrong_type": "text/html"}, "provider_unavailable"),
]


@pytest.mark.parametrize(("faults", "code"), NOT_MENDED)
async def test_what_would_be_the_same_again_is_asked_once(upstream, faults, code):
    upstream.made(timeout=0.4)
    upstream.faults(**faults)
    error, seconds = await refused(upstream.mint())
    assert error.code == code
    assert upstream.asked() == [("mint", "a")]
    assert upstream.seen == []
    assert seconds < 2


ANSWERS = [*MENDED, *((faults, None) for faults, _ in NOT_MENDED if "wrong_type" not in faults)]


@pytest.mark.parametrize(("faults", "_why"), ANSWERS)
async def test_an_offer_that_may_have_arrived_is_sent_once(upstream, faults, _why):
    upstream.made(timeout=0.4)
    upstream.faults(**faults)
    error, seconds = await refused(upstream.call())
    assert upstream.asked() == [("call", "a")]
    assert upstream.seen == []
    assert seconds < 2
    # Where a call came of it, whoever asked learns which, to hang it up.
    left_behind = [(call.id, "env:A") for call in upstream.emulator.calls]
    assert left_behind == ([(error.call_id, error.key_name)] if error.call_id else [])
    assert bool(left_behind) == any(fault in faults for fault in ("half_answer", "huge", "drip", "not_json"))


async def test_an_sdp_answer_is_known_by_what_it_holds(upstream):
    """Live servers say text/plain."""
    upstream.faults(wrong_type="text/html")
    assert (await upstream.call()).answer.startswith(b"v=0")


async def test_an_offer_that_found_no_connection_is_sent_again(upstream):
    """Nobody listens at first, and nothing was sent; then somebody does."""
    answer = b"HTTP/1.1 201 Created\r\nLocation: /v1/realtime/calls/rtc_1\r\nContent-Length: %d\r\n\r\n%s"
    sdp = b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"
    offers = 0

    async def respond(reader, writer):
        nonlocal offers
        offers += (await reader.readuntil(b"\r\n\r\n")).startswith(b"POST /v1/realtime/calls ")
        await reader.readuntil(b"--\r\n")  # the end of the form
        writer.write(answer % (len(sdp), sdp))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    servers = []

    async def then_listen(seconds):
        servers.append(await asyncio.start_server(respond, "127.0.0.1", port))

    port = unused_port()
    provider = upstream.made(url=f"http://127.0.0.1:{port}/v1")
    provider._account._sleep = then_listen
    assert (await upstream.call()).call_id == "rtc_1"
    assert (offers, upstream.seen) == (1, [TriedAgain("call", "unreachable")])
    servers[0].close()
    await servers[0].wait_closed()


async def test_nobody_listens(upstream):
    upstream.made(url=f"http://127.0.0.1:{unused_port()}/v1")
    for asking, operation in ((upstream.mint, "mint"), (upstream.call, "call")):
        upstream.seen.clear()
        error, _ = await refused(asking())
        assert (error.code, error.untried) == ("provider_unavailable", True)
        assert upstream.seen == [TriedAgain(operation, "unreachable")] * 2


@pytest.mark.parametrize("status", [429, 503])
async def test_the_providers_wish_to_wait_is_kept(upstream, status):
    upstream.faults(status=status, retry_after=1, times=1)
    await upstream.mint()
    first, second = (one.time for one in upstream.emulator.requests)
    assert second - first >= 1.0


async def test_without_room_for_that_wish_nothing_is_waited_for(upstream):
    upstream.faults(status=429, retry_after=2)
    error, seconds = await refused(upstream.mint())
    assert isinstance(error, ProviderBusy)
    assert error.retry_after == 2
    assert upstream.asked() == [("mint", "a")]
    assert seconds < 1


@pytest.mark.timing
@pytest.mark.parametrize(
    "faults",
    [
        {"status": 500, "delay_seconds": 0.2},
        {"status": 401, "delay_seconds": 0.2},  # with one key after the other
        {"status": 503, "delay_seconds": 0.1, "retry_after": 1},
        {"delay_seconds": 9},
        {"drip": 0.1},
    ],
)
@pytest.mark.parametrize("operation", ["mint", "call"])
async def test_all_tries_together_keep_to_the_deadline(upstream, faults, operation):
    keys = [ProviderKey(f"env:K{number}", f"sk-{number}-0123456789") for number in range(9)]
    upstream.made(keys=keys, timeout=0.5)
    upstream.faults(**faults)
    _, seconds = await refused(getattr(upstream, operation)())
    assert seconds < 0.7
    assert len(upstream.emulator.requests) <= 3


KEY_FAULTS = [
    ({"status": 401, "code": "invalid_api_key"}, "401"),
    ({"status": 403}, "403"),
    ({"status": 403, "code": "unsupported_country_region_territory"}, "403"),
    ({"status": 429, "code": "insufficient_quota"}, "insufficient_quota"),
]


@pytest.mark.parametrize("operation", ["mint", "call"])
@pytest.mark.parametrize(("faults", "why"), KEY_FAULTS)
async def test_a_key_that_is_refused_is_set_aside_and_the_next_one_used(upstream, faults, why, operation):
    upstream.faults(**faults, key=A.value)
    for _ in range(2):
        await getattr(upstream, operation)()
    assert upstream.asked() == [(operation, "a"), (operation, "b"), (operation, "b")]
    assert upstream.seen == [KeySetAside("env:A", why, 30.0), TriedAgain(operation, why)]
    assert [call.owner for call in upstream.emulator.calls] == ([B.value] * 2 if operation == "call" else [])


@pytest.mark.timing
@pytest.mark.parametrize("operation", ["mint", "call"])
@pytest.mark.parametrize(("faults", "why"), KEY_FAULTS[::3])
async def test_if_all_are_refused_nothing_is_sent_for_a_while(upstream, faults, why, operation):
    upstream.faults(**faults)
    error, _ = await refused(getattr(upstream, operation)())
    assert (error.code, error.untried, error.provider_request_id[:4]) == ("provider_unavailable", True, "req_")
    assert upstream.asked() == [(operation, "a"), (operation, "b")]
    for _ in range(20):
        error, seconds = await refused(getattr(upstream, operation)())
        assert (error.code, error.untried) == ("provider_unavailable", True)
        assert seconds < 0.05
    assert upstream.asked() == []
    # Then one request looks, with one key after the other; those beside it do not.
    upstream.now += 30
    results = await asyncio.gather(*(getattr(upstream, operation)() for _ in range(10)), return_exceptions=True)
    assert {type(one) for one in results} == {ProviderUnavailable}
    assert sorted(upstream.asked()) == [(operation, "a"), (operation, "b")]
    assert [one.seconds for one in upstream.seen if isinstance(one, KeySetAside)] == [30, 30, 60, 60]
    upstream.faults()
    upstream.now += 60
    await getattr(upstream, operation)()
    assert upstream.seen[-1] == KeyBack("env:A")


async def test_a_refusal_that_names_what_it_is_about_says_nothing_of_the_key(upstream):
    upstream.faults(status=403, code="model_not_found")
    for asking in (upstream.mint, upstream.call):
        error, _ = await refused(asking())
        assert error.code == "provider_refused"
    assert upstream.seen == []


async def break_down(upstream):
    """As many requests in vain as open the breaker."""
    while not any(isinstance(one, BreakerOpened) for one in upstream.seen):
        with pytest.raises(ProviderError):
            await upstream.mint()
        upstream.now += 0.5


@pytest.mark.timing
@pytest.mark.parametrize("fault", [None, {"reset": True}, {"status": 500}, {"not_json": True}])
async def test_a_provider_that_is_down_is_not_asked(upstream, fault):
    if fault is None:
        upstream.made(url=f"http://127.0.0.1:{unused_port()}/v1")
    else:
        upstream.faults(**fault)
    await break_down(upstream)
    upstream.asked()
    for asking in [upstream.mint, upstream.call] * 20:
        error, seconds = await refused(asking())
        assert (error.code, error.retry_after, error.untried) == ("provider_busy", 1, True)
        assert seconds < 0.05
    assert upstream.asked() == []


async def test_a_mint_under_way_stops_trying_when_the_provider_is_found_down(upstream):
    upstream.faults(status=500)
    for _ in range(3):
        await refused(upstream.mint())
    upstream.asked()
    upstream.now += 5
    error, _ = await refused(upstream.mint())
    assert error.code == "provider_unavailable"
    assert upstream.asked() == [("mint", "a")]


@pytest.mark.parametrize("operation", ["mint", "call"])
async def test_one_probe_goes_out_at_a_time(upstream, operation):
    upstream.faults(status=500)
    await break_down(upstream)
    upstream.asked()
    upstream.now += 1
    upstream.faults(status=500, delay_seconds=0.2)
    results = await asyncio.gather(*(getattr(upstream, operation)() for _ in range(20)), return_exceptions=True)
    assert Counter(type(one) for one in results) == {ProviderBusy: 19, ProviderUnavailable: 1}
    assert upstream.asked() == [(operation, "a")]
    await refused(upstream.mint())  # it failed, so the wait is longer
    assert upstream.asked() == []
    upstream.faults(delay_seconds=0.2, times=1)
    upstream.now += 2
    results = await asyncio.gather(*(getattr(upstream, operation)() for _ in range(20)), return_exceptions=True)
    assert [type(one) for one in results].count(ProviderBusy) == 19
    assert upstream.asked() == [(operation, "a")]
    assert isinstance(upstream.seen[-1], BreakerClosed)
    await asyncio.gather(*(upstream.mint() for _ in range(20)))
    assert len(upstream.asked()) == 20


async def test_a_refusal_closes_it_as_well(upstream):
    upstream.faults(status=500)
    await break_down(upstream)
    upstream.now += 1
    upstream.faults(status=400, code="invalid_offer")
    with pytest.raises(InvalidOffer):
        await upstream.call()
    assert isinstance(upstream.seen[-1], BreakerClosed)


async def test_a_hangup_goes_past_breaker_and_standing(upstream):
    """An open call costs: it is ended with its own key, whatever is known of that, and of the provider."""
    call_id = (await upstream.call()).call_id
    upstream.faults(status=401, key=A.value, operations=["mint"])
    await upstream.mint()
    upstream.faults(status=500, operations=["mint"])
    await break_down(upstream)
    assert (await refused(upstream.mint()))[0].code == "provider_busy"
    upstream.asked()
    assert await upstream.hang_up(call_id) is True
    assert await upstream.hang_up(call_id) is False
    assert upstream.asked() == [("hangup", "a")] * 2
    assert upstream.emulator.calls[0].state == "ended"
    assert (await refused(upstream.mint()))[0].code == "provider_busy"


@pytest.mark.parametrize(
    "faults",
    [
        *({"status": status} for status in (400, 401, 403, 408, 429, 500, 503)),
        {"status": 429, "code": "insufficient_quota"},
        {"redirect": "http://127.0.0.1:9/"},
        {"reset": True},
        {"huge": 2_000_000},
        {"delay_seconds": 5},
    ],
)
async def test_a_hangup_that_is_not_confirmed_is_asked_once_and_bounded(upstream, faults, monkeypatch):
    """Once: those who sweep ask again. It changes neither keys nor breaker."""
    monkeypatch.setattr(openai, "HANGUP_SECONDS", 0.3)
    call_id = (await upstream.call()).call_id
    upstream.faults(**faults, operations=["hangup"])
    upstream.asked()
    for _ in range(3):
        _, seconds = await refused(upstream.hang_up(call_id))
        assert seconds < 2
        upstream.now += 5
    assert upstream.asked() == [("hangup", "a")] * 3
    assert upstream.seen == []


@pytest.mark.parametrize("faults", [{"half_answer": True}, {"drip": 0.1}])
async def test_half_a_404_does_not_say_that_a_call_is_over(upstream, faults, monkeypatch):
    monkeypatch.setattr(openai, "HANGUP_SECONDS", 0.3)
    upstream.faults(**faults, operations=["hangup"])
    _, seconds = await refused(upstream.hang_up("rtc_1"))
    assert seconds < 2


async def test_a_hangup_finds_the_value_that_opened_the_call(upstream):
    """A key's file was exchanged while the call was open; to the new key it is a call that never was."""
    call_id = (await upstream.call()).call_id
    upstream.accounts.learn([ProviderKey("env:A", "sk-new-0123456789")])
    other_id = (await upstream.call()).call_id
    upstream.asked()
    assert await upstream.hang_up(call_id) is True
    assert await upstream.hang_up(other_id) is True
    assert upstream.asked() == [("hangup", "n"), ("hangup", "a"), ("hangup", "n")]
    assert await upstream.hang_up(call_id) is False
    upstream.faults(status=401, key=A.value)  # revoked: nobody can say whether it is over
    with pytest.raises(ProviderError):
        await upstream.hang_up("rtc_1")


async def test_what_a_reload_drops_still_ends_its_calls(upstream):
    call_id = (await upstream.call()).call_id
    account = upstream.accounts.of({"openai": Listed(f"{upstream.url}/v1", [B])})["openai"]
    upstream.provider = OpenAI(base_url=f"{upstream.url}/v1", account=account, transport=upstream.transport)
    upstream.asked()
    await upstream.mint()
    assert await upstream.hang_up(call_id) is True
    assert upstream.asked() == [("mint", "b"), ("hangup", "a")]


async def test_a_reload_keeps_what_is_known(upstream):
    upstream.faults(status=401, key=A.value)
    await upstream.mint()
    upstream.faults(status=500)
    await break_down(upstream)
    upstream.seen.clear()
    account = upstream.accounts.of({"openai": Listed(f"{upstream.url}/v1", [A, B])})["openai"]
    assert upstream.seen == [
        KeyListed("env:A", is_set_aside=True),
        KeyListed("env:B", is_set_aside=False),
        AccountListed(is_down=True),
    ]
    upstream.provider = OpenAI(base_url=f"{upstream.url}/v1", account=account, transport=upstream.transport)
    assert (await refused(upstream.mint()))[0].code == "provider_busy"
    # Elsewhere it is another account.
    account = upstream.accounts.of({"openai": Listed("http://127.0.0.1:9/v1", [A, B])})["openai"]
    assert upstream.seen[-1] == AccountListed(is_down=False)
    assert breakers.FAILURES == 5


async def test_a_mint_that_is_cancelled_is_not_tried_again(upstream):
    upstream.faults(delay_seconds=5)
    minting = asyncio.create_task(upstream.mint())
    while not upstream.emulator.requests:  # noqa: ASYNC110 - the emulator has no event for it
        await asyncio.sleep(0.005)
    minting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await minting
    assert upstream.asked() == [("mint", "a")]
    assert upstream.seen == []


async def test_silence_is_bounded_apart_from_the_whole(upstream, monkeypatch):
    """The whole answer has more time than a single byte."""
    monkeypatch.setattr("switchboard.providers.transport.READ_SECONDS", 0.2)
    async with PyreqwestTransport() as upstream.transport:
        upstream.made(timeout=5)
        upstream.faults(delay_seconds=3)
        error, seconds = await refused(upstream.mint())
        assert isinstance(error, ProviderTimeout)
        assert seconds < 1
        upstream.faults(drip=0.0005, operations=["call"])  # slow, and not silent
        started = time.perf_counter()
        await upstream.call()
        assert time.perf_counter() - started > 0.3
