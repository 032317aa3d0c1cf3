"""Reports from browsers: authenticated, bounded, shown in metrics, and good for nothing else."""

import pytest

from tests.support.contract import check

pytestmark = pytest.mark.anyio

CONNECTED = {
    "event": "connected",
    "ms_to_connected": 250,
    "rtt_ms": 40,
    "jitter_ms": 3.5,
    "loss": 0.01,
    "audio_seconds": 0,
}


async def test_a_report_on_ones_own_call(world):
    location = (await world.relay()).headers["location"]
    answer = await world.client.post(f"{location}/report", headers=world.auth(), json=CONNECTED)
    assert (answer.status_code, answer.content) == (204, b"")
    check("POST", "/sdp/{call_id}/report", answer)
    assert await world.metric("switchboard_client_connections_total", tenant="acme", outcome="connected") == 1
    assert await world.metric("switchboard_client_time_to_connected_seconds_sum") == 0.25
    assert await world.metric("switchboard_client_rtt_seconds_sum") == 0.04
    for event in ("alive", "ended", "failed"):
        assert (
            await world.client.post(f"{location}/report", headers=world.auth(), json={"event": event})
        ).status_code == 204
    assert await world.metric("switchboard_client_connections_total", tenant="acme", outcome="failed") == 1


async def test_the_grant_that_opened_a_call_reports_on_it_and_on_no_other(world):
    grant = (await world.mint()).json()["value"]
    mine = (await world.relay(grant)).headers["location"]
    other = (await world.relay()).headers["location"]
    assert (await world.client.post(f"{mine}/report", headers=world.auth(grant), json=CONNECTED)).status_code == 204
    refused = await world.client.post(f"{other}/report", headers=world.auth(grant), json=CONNECTED)
    assert refused.status_code == 404
    check("POST", "/sdp/{call_id}/report", refused)


async def test_a_report_on_a_call_by_client_secret(world):
    answer = await world.client.post("/report", headers=world.auth(world.widgets_token()), json=CONNECTED)
    assert answer.status_code == 204
    check("POST", "/report", answer)
    assert await world.metric("switchboard_client_connections_total", tenant="widgets", outcome="connected") == 1


async def test_strangers_report_nothing(world):
    location = (await world.relay()).headers["location"]
    for path in ("/report", f"{location}/report"):
        assert (await world.client.post(path, json=CONNECTED)).status_code == 401
    theirs = await world.client.post(f"{location}/report", headers=world.auth(world.widgets_token()), json=CONNECTED)
    assert theirs.status_code == 404
    page = world.auth(origin="https://evil.example")
    assert (await world.client.post("/report", headers=page, json=CONNECTED)).status_code == 403
    assert await world.metric("switchboard_client_connections_total") == 0


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"event": "boom"}, "event"),
        ({"event": None}, "event"),
        ({"ms_to_connected": -1}, "ms_to_connected"),
        ({"ms_to_connected": 120_001}, "ms_to_connected"),
        ({"rtt_ms": "40"}, "rtt_ms"),
        ({"rtt_ms": True}, "rtt_ms"),
        ({"loss": 1.01}, "loss"),
        ({"audio_seconds": 3601}, "audio_seconds"),
        ({"user": "alice"}, "user"),
    ],
)
async def test_odd_reports(world, change, param):
    answer = await world.client.post("/report", headers=world.auth(), json={**CONNECTED, **change})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    check("POST", "/report", answer)


async def test_a_report_is_small(world):
    answer = await world.client.post("/report", headers=world.auth(), json={"event": "x" * 2000})
    assert answer.status_code == 413


async def test_a_report_is_no_decision(world):
    await world.client.post("/report", headers=world.auth(), json=CONNECTED)
    assert world.records == []
