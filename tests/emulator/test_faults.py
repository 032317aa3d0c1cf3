import asyncio
import time

import httpx
import pytest
import uvicorn

from switchboard.emulator import Faults, Options, create_app

pytestmark = pytest.mark.anyio
CONTROL = "http://upstream/_emulator/faults"


@pytest.mark.parametrize(
    ("faults", "expected", "retry"),
    [
        ({"status": 429, "retry_after": 3}, (429, "rate_limit_exceeded", "rate_limit_exceeded"), "3"),
        ({"status": 429, "code": "insufficient_quota"}, (429, "insufficient_quota", "insufficient_quota"), None),
        ({"status": 503}, (503, None, "server_error"), None),
        ({"status": 403, "code": "region"}, (403, "region", "invalid_request_error"), None),
    ],
)
async def test_it_refuses(upstream, faults, expected, retry):
    await upstream.faults(**faults)
    answer = await upstream.mint()
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == expected
    assert answer.headers.get("retry-after") == retry
    assert answer.headers["x-request-id"]


async def test_only_for_the_operations_named_and_so_often(upstream):
    await upstream.faults(status=500, operations=["call"], times=2)
    assert (await upstream.mint()).status_code == 200
    assert [(await upstream.call()).status_code for _ in range(3)] == [500, 500, 201]


async def test_only_for_a_key(upstream):
    await upstream.faults(status=401, key="sk-of-somebody-else")
    assert (await upstream.mint()).status_code == 200
    (seen,) = upstream.emulator.requests
    await upstream.faults(status=401, key=seen.headers["authorization"].removeprefix("Bearer "))
    assert (await upstream.mint()).status_code == 401


async def test_hang_ups_fail_too(upstream):
    location = (await upstream.call()).headers["location"]
    await upstream.faults(status=500, operations=["hangup"], times=1)
    assert [(await upstream.hang_up(location)).status_code for _ in range(2)] == [500, 200]


async def test_it_is_slow(upstream):
    await upstream.faults(delay_seconds=0.05)
    started = time.perf_counter()
    assert (await upstream.mint()).status_code == 200
    assert time.perf_counter() - started >= 0.05


async def test_it_redirects(upstream):
    await upstream.faults(redirect="http://elsewhere.example/")
    answer = await upstream.mint()
    assert (answer.status_code, answer.headers["location"]) == (307, "http://elsewhere.example/")


async def test_it_answers_a_page_under_the_true_status(upstream):
    await upstream.faults(not_json=True)
    answer = await upstream.mint()
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.text.startswith("<html>")


async def test_it_answers_under_another_type(upstream):
    await upstream.faults(wrong_type="text/html")
    answer = await upstream.mint()
    assert (answer.headers["content-type"], answer.json()["value"][:3]) == ("text/html", "ek_")


async def test_it_answers_hugely(upstream):
    await upstream.faults(huge=100_000)
    answer = await upstream.call()
    assert (answer.status_code, len(answer.content)) == (201, 100_000)
    assert "content-length" not in answer.headers


async def test_it_drips(upstream):
    await upstream.faults(drip=0.0000001)
    answer = await upstream.call()
    assert (answer.status_code, answer.text[:5]) == (201, "v=0\r\n")


async def test_a_spoilt_answer_to_an_offer_leaves_a_call_behind(upstream):
    await upstream.faults(half_answer=True)
    with pytest.raises(ConnectionResetError):
        await upstream.call()
    assert [call["state"] for call in await upstream.calls()] == ["open"]


async def test_a_reset_leaves_nothing_behind(upstream):
    await upstream.faults(reset=True)
    with pytest.raises(ConnectionResetError):
        await upstream.call()
    assert await upstream.calls() == []


async def test_faults_can_be_read_and_ended(upstream):
    told = await upstream.faults(reset=True, times=3, operations=["mint"])
    assert told == (await upstream.http.get(CONTROL)).json()
    assert (told["reset"], told["times"], told["operations"]) == (True, 3, ["mint"])
    assert upstream.emulator.faults == Faults(reset=True, times=3, operations=frozenset({"mint"}))
    await upstream.faults()
    assert (await upstream.mint()).status_code == 200


@pytest.mark.parametrize("faults", [{"resett": True}, {"status": 200}, {"operations": ["sing"]}, {"times": 0}, []])
async def test_an_impossible_fault_is_refused(upstream, faults):
    answer = await upstream.http.put(CONTROL, json=faults)
    assert answer.status_code == 422
    assert upstream.emulator.faults == Faults()


async def test_faults_may_be_there_from_the_start(run):
    async with run(Options(media=False, faults=Faults(status=500))) as upstream:
        assert (await upstream.mint()).status_code == 500


@pytest.fixture
async def server(anyio_backend):
    """A real server: only there do connections break."""
    app = create_app(Options(media=False))
    config = uvicorn.Config(app, port=0, log_level="warning", ws="none", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn sets a flag, no event
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        yield http
    server.should_exit = True
    await task


@pytest.mark.parametrize("faults", [{"reset": True}, {"half_answer": True}])
async def test_connections_break_on_the_wire(server, caplog, faults):
    await server.put("/_emulator/faults", json=faults)
    headers = {"authorization": "Bearer sk-acme"}
    with pytest.raises(httpx.RemoteProtocolError):
        await server.post("/v1/realtime/client_secrets", json={}, headers=headers)
    await server.put("/_emulator/faults", json={})
    answer = await server.post("/v1/realtime/client_secrets", json={}, headers=headers)
    assert answer.status_code == 200
    assert caplog.records == []
