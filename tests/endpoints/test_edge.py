"""The ceiling per client address: over all routes together, before anything that costs, and by nobody else's word."""

import asyncio
import logging
import time
from types import SimpleNamespace

import httpx
import pytest

from switchboard.endpoints import edge
from switchboard.endpoints.edge import Edge
from switchboard.identity.verifier import Verifier
from tests.support import world as worlds
from tests.support.contract import check
from tests.support.process import switchboard
from tests.support.world import ORIGIN
from tests.test_cli import serve_environment

pytestmark = pytest.mark.anyio

ROUTES = ("/token", "/sdp/rtc_1", "/openapi.yaml", "/openapi.json", "/docs", "/docs/docs.css")


def behind(limit: str, **settings):
    """A world behind a proxy, so that `of` can name any client."""
    return worlds.world(edge_limit=limit, trusted_proxies="127.0.0.1", **settings)


def of(address: str, **headers: str) -> dict[str, str]:
    return {"x-forwarded-for": address, **headers}


async def statuses(world, *requests: tuple[str, str]) -> list[int]:
    return [(await world.client.get(path, headers=of(address))).status_code for path, address in requests]


async def test_all_routes_share_one_count():
    async with behind("6/minute") as world:
        answers = [await world.client.get(path, headers=of("203.0.113.9")) for path in ROUTES]
        assert 429 not in [answer.status_code for answer in answers]
        for path in ROUTES:
            answer = await world.client.get(path, headers=of("203.0.113.9"))
            assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
        for method, path in (("POST", "/sdp"), ("POST", "/session"), ("OPTIONS", "/sdp"), ("DELETE", "/sdp/rtc_1")):
            answer = await world.client.request(method, path, headers=of("203.0.113.9"))
            assert answer.status_code == 429
        other = await world.client.get("/docs", headers=of("203.0.113.10"))
        assert other.status_code == 200


async def test_no_route_is_left_out(world):
    """What is added to the app is counted, except what probes ask."""
    app = world.public._app._app._app
    uncounted = {route.path for route in app.routes if route.endpoint.__module__ != Edge.__module__}
    assert uncounted == {"/healthz", "/readyz"}


async def test_probes_pass_in_a_flood():
    async with behind("1/minute") as world:
        paths = ["/docs", "/docs", *["/healthz", "/readyz"] * 5]
        assert await statuses(world, *((path, "203.0.113.9") for path in paths)) == [200, 429, *[200] * 10]


async def test_preflights_and_what_is_not_there_are_not_counted():
    async with behind("1/minute") as world:
        preflight = of("203.0.113.9", origin=ORIGIN, **{"access-control-request-method": "POST"})
        for _ in range(5):
            assert (await world.client.options("/sdp", headers=preflight)).status_code == 200
            assert (await world.client.get("/nowhere", headers=of("203.0.113.9"))).status_code == 404
            assert (await world.client.put("/token", headers=of("203.0.113.9"))).status_code == 405
        assert await statuses(world, ("/docs", "203.0.113.9")) == [200]


async def test_ipv6_is_counted_by_its_64():
    async with behind("2/minute") as world:
        asked = [("/docs", address) for address in ("2001:db8:1:2::1", "2001:db8:1:2:ffff::", "2001:db8:1:2::3")]
        assert await statuses(world, *asked) == [200, 200, 429]
        assert await statuses(world, ("/docs", "2001:db8:1:3::1"), ("/docs", "::ffff:203.0.113.9")) == [200, 200]
        assert await statuses(world, ("/docs", "203.0.113.9"), ("/docs", "203.0.113.9")) == [200, 429]


async def test_who_is_exempt_is_not_counted():
    async with behind("1/minute", edge_exempt="198.51.100.0/24, 2001:db8:1:2::7") as world:
        for address in ("198.51.100.4", "198.51.100.200", "2001:db8:1:2::7"):
            assert await statuses(world, *[("/docs", address)] * 4) == [200] * 4
        assert await statuses(world, *[("/docs", "2001:db8:1:2::8")] * 2) == [200, 429]


async def test_nobody_escapes_by_a_header():
    async with worlds.world(edge_limit="3/minute") as world:
        for name, value in (("x-forwarded-for", "203.0.113.{}"), ("forwarded", "for=203.0.113.{}")):
            codes = [
                (await world.client.get("/docs", headers={name: value.format(number)})).status_code
                for number in range(3)
            ]
            assert codes == ([200] * 3 if name == "x-forwarded-for" else [429] * 3)
    async with behind("3/minute") as world:
        claims = [of(f"198.51.100.{number}, 203.0.113.9", forwarded=f"for=192.0.2.{number}") for number in range(5)]
        codes = [(await world.client.get("/docs", headers=one)).status_code for one in claims]
        assert codes == [200, 200, 200, 429, 429]


async def test_a_flood_ends_before_cryptography_and_before_its_body(monkeypatch):
    verified = []
    genuine = Verifier.verify

    async def counting(self, unverified_token):
        verified.append(unverified_token)
        return await genuine(self, unverified_token)

    monkeypatch.setattr(Verifier, "verify", counting)
    async with behind("2/minute") as world:
        for _ in range(2):
            assert (await world.mint()).status_code == 200
        told = len(world.records), world.key_server.fetches, len(verified)
        assert told[2] == 2

        for number in range(50):
            token = world.token(sub=f"user-flood-{number:04}")
            method, path = (("GET", "/token"), ("POST", "/token"), ("POST", "/sdp"))[number % 3]
            answer = await world.client.request(method, path, headers=world.auth(token))
            assert answer.status_code == 429
        slow = asyncio.create_task(world.client.post("/sdp", headers=world.auth(), content=endless()))
        assert (await asyncio.wait_for(slow, 5)).status_code == 429
        assert (len(world.records), world.key_server.fetches, len(verified)) == told
        assert await world.metric("switchboard_http_request_duration_seconds_count", route="/sdp", status="429") == 17


async def endless():
    yield b"v"
    await asyncio.sleep(60)


async def test_the_refusal_tells_a_page_what_to_do():
    async with behind("1/minute") as world:
        await world.client.get("/docs", headers=of("203.0.113.9"))
        headers = of("203.0.113.9", origin=ORIGIN, **{"x-request-id": "r-1"})
        answer = await world.client.post("/sdp", headers=headers)
        check("POST", "/sdp", answer)
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "Retry-After" in answer.headers["access-control-expose-headers"]
        assert answer.headers["x-should-retry"] == "false"
        seconds = int(answer.headers["retry-after"])
        assert 58 <= seconds <= 60
        detail = f"This address may send 1 per 1 minute; try again in {seconds} s."
        assert answer.json() == {
            "type": "urn:switchboard:problem:rate_limited",
            "title": "Too many requests",
            "status": 429,
            "detail": detail,
            "instance": "urn:switchboard:request:r-1",
            "code": "rate_limited",
            "request_id": "r-1",
            "error": {"message": detail, "type": "rate_limit_error", "code": "rate_limited", "param": None},
        }


async def test_retry_after_is_honest():
    async with behind("2/second") as world:
        codes: list[int] = []
        while 429 not in codes:
            answer = await world.client.get("/docs", headers=of("203.0.113.9"))
            codes.append(answer.status_code)
        assert answer.headers["retry-after"] == "1"
        await asyncio.sleep(1)
        assert await statuses(world, ("/docs", "203.0.113.9")) == [200]


async def test_of_several_limits_the_longest_that_is_used_up_is_waited_for():
    async with behind("2/minute;3/hour") as world:
        assert await statuses(world, *[("/docs", "203.0.113.9")] * 2) == [200, 200]
        answer = await world.client.get("/docs", headers=of("203.0.113.9"))
        assert 58 <= int(answer.headers["retry-after"]) <= 60
    async with behind("3/minute;3/hour") as world:
        assert await statuses(world, *[("/docs", "203.0.113.9")] * 3) == [200] * 3
        answer = await world.client.get("/docs", headers=of("203.0.113.9"))
        assert 3598 <= int(answer.headers["retry-after"]) <= 3600


async def test_refused_requests_do_not_make_it_longer(monkeypatch):
    async with behind("2/hour") as world:
        await statuses(world, *[("/docs", "203.0.113.9")] * 2)
        answers = [await world.client.get("/docs", headers=of("203.0.113.9")) for _ in range(2)]
        late = time.monotonic() + 600
        monkeypatch.setattr(edge, "time", SimpleNamespace(monotonic=lambda: late))
        answers.append(await world.client.get("/docs", headers=of("203.0.113.9")))
        waits = [int(answer.headers["retry-after"]) for answer in answers]
        assert waits[0] == waits[1] == pytest.approx(3600, abs=2)
        assert waits[2] == pytest.approx(3000, abs=2)


async def test_a_flood_writes_a_line_for_each_request_and_no_more(caplog):
    async with behind("1/minute") as world:
        with caplog.at_level(logging.DEBUG):
            await statuses(world, *[("/docs", "203.0.113.9")] * 20)
        told = [record.name for record in caplog.records if record.levelno >= logging.INFO]
        assert told == ["switchboard.http"] * 20


async def test_a_limit_that_cannot_be_read_starts_nothing():
    with pytest.raises(ValueError, match="couldn't parse"):
        Edge("300")


# By nobody else's word: slowapi reads `.env` and RATELIMIT_* of its own accord.

ELSEWHERE = {
    "RATELIMIT_ENABLED": "false",
    "RATELIMIT_STORAGE_URL": "redis://127.0.0.1:1/0",
    "RATELIMIT_STORAGE_OPTIONS": "nonsense",
    "RATELIMIT_STRATEGY": "no-such-strategy",
    "RATELIMIT_DEFAULT": "1/hour",
    "RATELIMIT_APPLICATION": "1/hour",
    "RATELIMIT_GLOBAL": "1/hour",
    "RATELIMIT_SWALLOW_ERRORS": "true",
    "RATELIMIT_HEADERS_ENABLED": "true",
    "RATELIMIT_IN_MEMORY_FALLBACK": "1/hour",
    "RATELIMIT_IN_MEMORY_FALLBACK_ENABLED": "true",
    "RATELIMIT_KEY_PREFIX": "other",
    "RATELIMIT_HEADER_RETRY_AFTER": "X-Other",
    "RATELIMIT_HEADER_RETRY_AFTER_VALUE": "http-date",
}


@pytest.fixture
def elsewhere(request, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    if request.param == "environment":
        for name, value in ELSEWHERE.items():
            monkeypatch.setenv(name, value)
    elif request.param == ".env":
        (tmp_path / ".env").write_text("\n".join(f"{name}={value}" for name, value in ELSEWHERE.items()))
    else:
        (tmp_path / ".env").write_bytes(b"\xff\xfe no text at all")
    return request.param


@pytest.mark.parametrize("elsewhere", ["environment", ".env", "unreadable .env"], indirect=True)
async def test_neither_a_dotenv_file_nor_ratelimit_variables_change_it(elsewhere, recwarn):
    async with behind("3/minute") as world:
        answers = [await world.client.get("/docs", headers=of("203.0.113.9")) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert answers[-1].headers["retry-after"].isdigit()
        assert not [name for answer in answers for name in answer.headers if "x-ratelimit" in name or name == "x-other"]
    assert recwarn.list == []


def test_the_process_is_as_deaf(tmp_path):
    (tmp_path / ".env").write_text("RATELIMIT_ENABLED=false\nSWITCHBOARD_EDGE_LIMIT=1000/second\n")
    env = serve_environment(SWITCHBOARD_EDGE_LIMIT="3/minute", **ELSEWHERE)
    with switchboard("serve", env=env, cwd=tmp_path) as process:
        url = f"http://127.0.0.1:{env['SWITCHBOARD_PORT']}"
        process.until(f"{url}/readyz")
        codes = [httpx.get(f"{url}/openapi.json", trust_env=False).status_code for _ in range(4)]
        assert codes == [200, 200, 200, 429]


# The address that was found is the one on record, and a proxy that nobody named is spoken of.


async def test_the_audit_has_the_clients_address():
    async with behind("9/minute") as world:
        await world.client.get("/token", headers={**world.auth(), **of("1.2.3.4, 203.0.113.9")})
        assert world.records[0]["client_ip"] == "203.0.113.9"


async def test_a_proxy_that_nobody_named_is_told_to_the_operator_once(caplog):
    async with worlds.world() as world:
        await statuses(world, *[("/docs", "203.0.113.9")] * 3)
    warned = [record.getMessage() for record in caplog.records if "TRUSTED_PROXIES" in record.getMessage()]
    assert len(warned) == 1
    assert "127.0.0.1" in warned[0]
