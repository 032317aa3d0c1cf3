"""Calls on a leash, as their pages see them: an end is told in words, and what a page cannot tell is noticed."""

import time
from typing import Any

import httpx
import pytest
import ryaml
from playwright.sync_api import expect

from tests.e2e.dev_server import dev_server
from tests.support import world as worlds

pytestmark = pytest.mark.browser

CALL_SECONDS, IDLE_SECONDS = 10, 10  # each the shortest that a policy may say
LATE_SECONDS = 2
SOON_SECONDS = 2
LIMITS: dict[str, dict[str, Any]] = {
    "brief": {"call_seconds": CALL_SECONDS},
    "watched": {"idle_seconds": IDLE_SECONDS},
    "single": {"open_calls": {"user": 1}},
    "stopped": {},
}
SAMPLE = {"preset": "support", "source": "tone"}


@pytest.fixture(scope="module")
def leashing(tmp_path_factory):
    """`switchboard dev` with a tenant for each way a call may end, and a token for operators."""
    policy = worlds.example()
    acme = policy["tenants"]["acme"]
    del acme["limits_by"]
    policy["tenants"] = {name: {**acme, "limits": {"user": [], **limits}} for name, limits in LIMITS.items()}
    folder = tmp_path_factory.mktemp("leash")
    config = folder / "switchboard.yaml"
    config.write_text(ryaml.dumps(policy), encoding="utf-8")
    with dev_server(folder, config=config, admin_token=worlds.ADMIN_TOKEN) as running:
        yield running
        running.metrics()  # for the scan


@pytest.fixture
def demos(leashing, pages):
    """Makes a page, opens it for a tenant and a user, and connects it; gives the call's id as well."""

    def make(tenant, user, path="relay"):
        demo = pages(leashing.url)
        demo.open(**SAMPLE, tenant=tenant, user=user, path=path)
        return demo, demo.connect()

    return make


def test_deadlines_are_told_and_crashed_tabs_are_noticed(leashing, demos):
    """Three calls at a time, because each of them takes ten seconds."""
    brief, brief_id = demos("brief", "deadlined-dorothea-10")
    began = time.monotonic()
    beating, beating_id = demos("watched", "beating-beatrix-11", path="token")
    crashing, crashing_id = demos("watched", "crashing-crescentia-12")
    _expect_heartbeats(crashing, crashing_id, 1, SOON_SECONDS)
    crashing.crash()
    crashed = time.monotonic()

    _expect_heartbeats(beating, beating_id, 2, IDLE_SECONDS / 3 + SOON_SECONDS)  # three in its idle time
    _expect_release(leashing, beating, f"/sdp/{beating_id}", "beating-beatrix-11")

    brief.expect_state("ended")
    assert CALL_SECONDS - 1 < time.monotonic() - began < CALL_SECONDS + LATE_SECONDS
    expect(brief["#reason"]).to_have_text("The time that this call had was used up.")
    assert _ended_by(leashing, "brief", "deadlined-dorothea-10", brief_id) == "deadline"
    assert leashing.record(action="call.end", call_id=brief_id)["reason"] == "deadline"

    idle = leashing.record(timeout=IDLE_SECONDS, action="call.end", call_id=crashing_id)
    assert idle["reason"] == "idle"
    assert time.monotonic() - crashed < IDLE_SECONDS + LATE_SECONDS
    assert _ended_by(leashing, "watched", "crashing-crescentia-12", crashing_id) == "idle"


def _expect_heartbeats(demo, call_id: str, count: int, seconds: float) -> None:
    """So many within this time; whatever else is reported."""
    until = time.monotonic() + seconds
    reports = f"/sdp/{call_id}/report"
    while [one.request.post_data_json["event"] for one in demo.answers("POST", reports)].count("alive") < count:
        assert time.monotonic() < until, f"not {count} heartbeats within {seconds} s"
        demo.page.wait_for_timeout(20)
    assert {answer.status for answer in demo.answers("POST", reports)} == {204}


def _expect_release(server, demo, path: str, user: str) -> None:
    """The other side is gone, and the server does not know: it is told that nobody uses the call any more."""
    token = server.token("watched", user)
    shown = server.call(path.rpartition("/")[2], token)
    demo.page.route(f"**{path}", lambda route: _show(route, shown))
    assert server.client.delete(path, headers={"authorization": f"Bearer {token}"}).status_code == 200
    demo.expect_state("ended")
    expect(demo["#reason"]).to_have_text("The other side closed the call.")
    while not (released := demo.answers("DELETE", path)):
        demo.page.wait_for_timeout(20)
    assert [answer.status for answer in released] == [200]


def test_a_second_tab_takes_the_place_of_the_first(leashing, demos):
    first, first_id = demos("single", "doubled-dietrich-13")
    second, second_id = demos("single", "doubled-dietrich-13")
    first.expect_state("ended")
    expect(first["#reason"]).to_have_text("A newer call of the same user took its place.")
    assert _ended_by(leashing, "single", "doubled-dietrich-13", first_id) == "replaced"
    second.hang_up()
    assert leashing.record(action="call.end", call_id=second_id)["reason"] == "owner"


def test_an_operator_stops_the_tenant(leashing, demos):
    demo, call_id = demos("stopped", "suspended-sieglinde-14")
    _operate(leashing, "suspend")
    demo.expect_state("ended")
    expect(demo["#reason"]).to_have_text("This customer was suspended, which ends its calls.")
    assert _ended_by(leashing, "stopped", "suspended-sieglinde-14", call_id) == "suspended"
    demo.foresee(403, "/sdp")
    demo["#connect"].click()
    demo.expect_refusal("tenant_suspended")
    _operate(leashing, "resume")
    demo["#refusal-retry"].click()
    demo.expect_state("connected")
    demo.hang_up()


def _show(route, shown) -> None:
    if route.request.method == "GET":
        route.fulfill(json=shown)
    else:
        route.continue_()


def _ended_by(server, tenant: str, user: str, call_id: str) -> str:
    return str(server.call(call_id, server.token(tenant, user))["ended_by"])


def _operate(server, deed: str) -> None:
    bearer = {"authorization": f"Bearer {worlds.ADMIN_TOKEN}"}
    httpx.post(f"{server.ops_url}/admin/tenants/stopped/{deed}", headers=bearer, trust_env=False).raise_for_status()
