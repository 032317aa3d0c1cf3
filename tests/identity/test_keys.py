"""Key sets: fetched without waiting twice, kept fresh, served stale, and never fetched more often than allowed."""

import asyncio

import httpx
import pytest

from switchboard.errors import Degraded, InvalidToken
from switchboard.identity.jwks import MAX_BYTES, JwksEndpoint, is_safe_url
from switchboard.identity.keys import COOL_DOWN_SECONDS, FRESH_SECONDS, STALE_SECONDS, KeysUnavailable, RemoteKeys
from tests.support.keys import jwk, private_key
from tests.support.servers import KeyServer

pytestmark = pytest.mark.anyio


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
async def key_server():
    async with KeyServer(jwk(private_key("RSA"), "rsa-1"), jwk(private_key("EC"), "ec-1")).running() as server:
        yield server


@pytest.fixture
async def client():
    async with httpx.AsyncClient(timeout=0.5) as made:
        yield made


def endpoint(server, client, *, discovery=False, algorithms=("RS256", "ES256")):
    return JwksEndpoint(
        issuer=server.url if discovery else "https://login.acme.example/",
        jwks_url=None if discovery else f"{server.url}/jwks.json",
        algorithms=algorithms,
        client=client,
    )


async def test_keys_are_found_by_id_and_algorithm(key_server, client):
    keys = RemoteKeys(endpoint(key_server, client).load)
    found = await keys.key_for("ec-1", "ES256")
    assert found.key_id == "ec-1"
    with pytest.raises(InvalidToken):
        await keys.key_for("ec-1", "RS256")
    assert key_server.fetches == 1


async def test_without_an_id_the_only_fitting_key_is_taken(key_server, client):
    keys = RemoteKeys(endpoint(key_server, client).load)
    assert (await keys.key_for(None, "RS256")).key_id == "rsa-1"
    key_server.keys.append(jwk(private_key("RSA", "second"), "rsa-2"))
    ambiguous = RemoteKeys(endpoint(key_server, client).load)
    with pytest.raises(InvalidToken):
        await ambiguous.key_for(None, "RS256")


async def test_a_burst_of_first_requests_costs_one_fetch(key_server, client):
    key_server.delay = 0.05
    keys = RemoteKeys(endpoint(key_server, client).load)
    found = await asyncio.gather(*(keys.key_for("rsa-1", "RS256") for _ in range(50)))
    assert {one.key_id for one in found} == {"rsa-1"}
    assert key_server.fetches == 1


async def test_a_flood_of_unknown_ids_costs_one_fetch_per_cool_down(key_server, client):
    clock = Clock()
    keys = RemoteKeys(endpoint(key_server, client).load, clock=clock)
    await keys.key_for("rsa-1", "RS256")
    for round_ in range(3):
        clock.now += COOL_DOWN_SECONDS + 1
        for number in range(200):
            with pytest.raises(InvalidToken):
                await keys.key_for(f"unknown-{number}", "RS256")
        assert key_server.fetches == 2 + round_


async def test_a_new_key_is_found_when_a_token_names_it(key_server, client):
    clock = Clock()
    keys = RemoteKeys(endpoint(key_server, client).load, clock=clock)
    await keys.key_for("rsa-1", "RS256")
    key_server.keys[:] = [jwk(private_key("RSA", "second"), "rsa-2")]
    clock.now += COOL_DOWN_SECONDS + 1
    assert (await keys.key_for("rsa-2", "RS256")).key_id == "rsa-2"
    with pytest.raises(InvalidToken):
        await keys.key_for("rsa-1", "RS256")


async def test_stale_keys_serve_while_the_issuer_is_away_for_a_day(key_server, client):
    clock = Clock()
    keys = RemoteKeys(endpoint(key_server, client).load, clock=clock)
    await keys.key_for("rsa-1", "RS256")
    key_server.status = 503
    clock.now += STALE_SECONDS - 1
    assert (await keys.key_for("rsa-1", "RS256")).key_id == "rsa-1"
    clock.now += 2
    with pytest.raises(Degraded):
        await keys.key_for("rsa-1", "RS256")


async def test_nobody_gets_in_before_the_first_key_set(key_server, client):
    key_server.status = 500
    clock = Clock()
    keys = RemoteKeys(endpoint(key_server, client).load, clock=clock)
    with pytest.raises(Degraded):
        await keys.key_for("rsa-1", "RS256")
    key_server.status = 200
    clock.now += COOL_DOWN_SECONDS + 1
    assert (await keys.key_for("rsa-1", "RS256")).key_id == "rsa-1"


async def test_keys_are_refreshed_ahead_of_need(key_server, client):
    clock = Clock()
    slept = []

    async def sleep(seconds):
        slept.append(seconds)
        clock.now += seconds
        if len(slept) == 3:
            raise asyncio.CancelledError

    keys = RemoteKeys(endpoint(key_server, client).load, clock=clock, sleep=sleep)
    with pytest.raises(asyncio.CancelledError):
        await keys.run()
    assert key_server.fetches == 3
    assert all(FRESH_SECONDS <= seconds <= FRESH_SECONDS * 1.1 for seconds in slept)


async def test_a_caller_who_leaves_does_not_cancel_the_fetch(key_server, client):
    key_server.delay = 0.1
    keys = RemoteKeys(endpoint(key_server, client).load)
    first = asyncio.create_task(keys.key_for("rsa-1", "RS256"))
    await asyncio.sleep(0.02)
    second = asyncio.create_task(keys.key_for("rsa-1", "RS256"))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).key_id == "rsa-1"
    assert key_server.fetches == 1


async def test_discovery(key_server, client):
    key_server.issuer = key_server.url
    keys = RemoteKeys(endpoint(key_server, client, discovery=True).load)
    assert (await keys.key_for("rsa-1", "RS256")).key_id == "rsa-1"


async def test_discovery_of_another_issuer_is_refused(key_server, client):
    key_server.issuer = "https://evil.example"
    with pytest.raises(KeysUnavailable, match="another issuer"):
        await endpoint(key_server, client, discovery=True).load()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "JSONDecodeError"),
        (b"<html>", "JSONDecodeError"),
        (b"[]", "not a JSON object"),
        (b'{"keys": []}', "holds no key"),
        (b'{"keys": {}}', "holds no key"),
        (b'{"keys": [7, {}, {"kty": "RSA"}, {"kty": "RSA", "n": "x", "e": "AQAB"}]}', "holds no key"),
        (b'{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "rsa-1"}]}', "holds no key"),
        (b'{"x": "' + b"x" * MAX_BYTES + b'"}', "more than"),
    ],
)
async def test_unusable_key_sets(key_server, client, body, reason):
    key_server.body = body
    with pytest.raises(KeysUnavailable, match=reason):
        await endpoint(key_server, client).load()


async def test_keys_for_encryption_and_weak_keys_are_left_out(key_server, client):
    from cryptography.hazmat.primitives.asymmetric import rsa

    weak = rsa.generate_private_key(65537, 1024)
    key_server.keys[:] = [
        jwk(private_key("RSA"), "enc", use="enc"),
        jwk(weak, "weak"),
        jwk(private_key("RSA"), "other-alg", alg="RS512"),
        jwk(private_key("RSA"), "good", use="sig", alg="RS256"),
    ]
    assert list(await endpoint(key_server, client).load()) == [("good", "RS256")]


async def test_an_issuer_that_hangs_is_given_up(key_server, client):
    key_server.delay = 3
    with pytest.raises(KeysUnavailable, match="ReadTimeout"):
        await endpoint(key_server, client).load()


async def test_an_issuer_that_drips_is_given_up(client, monkeypatch):
    monkeypatch.setattr("switchboard.identity.jwks.FETCH_SECONDS", 0.3)

    given_up = asyncio.Event()

    async def drip(reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n")
        for _ in range(100):
            writer.write(b" ")
            await asyncio.sleep(0.05)
            if writer.transport.is_closing() or reader.at_eof():
                break
        writer.close()
        given_up.set()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        slow = JwksEndpoint(issuer="https://x.example", jwks_url=url, algorithms=("RS256",), client=client)
        with pytest.raises(KeysUnavailable, match="TimeoutError"):
            await slow.load()
        await given_up.wait()


@pytest.mark.parametrize("jwks_uri", ["https://[", "https://a:b/", "https://a\x00b/", "https://xn--/", 7, None])
async def test_nonsense_in_a_discovery_document(key_server, client, jwks_uri):
    key_server.issuer = key_server.url
    key_server.jwks_uri = jwks_uri
    keys = RemoteKeys(endpoint(key_server, client, discovery=True).load)
    with pytest.raises(Degraded):
        await keys.key_for("rsa-1", "RS256")


async def test_keys_gone_stale_are_fetched_again_when_the_issuer_is_back(key_server, client):
    clock = Clock()
    keys = RemoteKeys(endpoint(key_server, client).load, clock=clock)
    await keys.key_for("rsa-1", "RS256")
    clock.now += STALE_SECONDS + 1
    assert (await keys.key_for("rsa-1", "RS256")).key_id == "rsa-1"
    assert key_server.fetches == 2


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://login.example/jwks", True),
        ("http://127.0.0.1:8000/jwks", True),
        ("http://localhost/jwks", True),
        ("http://login.example/jwks", False),
        ("file:///etc/passwd", False),
        ("https://", False),
        ("", False),
        ("https://login.example:port/jwks", False),
        ("https://[", False),
    ],
)
async def test_keys_travel_by_https(url, safe):
    assert is_safe_url(url) is safe
