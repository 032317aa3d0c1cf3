"""The prober against the real service and the emulator behind it, and against a front that is broken in each way."""

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from switchboard.probe import telling
from switchboard.probe.asking import service_at
from switchboard.probe.credentials import NoCredentials, ReadyTokens
from switchboard.probe.run import (
    NEEDS_CALL,
    NEEDS_KEY,
    NEEDS_OTHER,
    NEEDS_USER,
    NO_CALL,
    NO_GRANT,
    NOT_REACHED,
    UNKNOWN_CALL,
    Prober,
)
from switchboard.probe.steps import OF_A_CALL, REFUSED, STEPS, Plan
from tests.probe import front as fronts
from tests.probe.front import MINE, Front
from tests.support.leaks import LEAKS
from tests.support.servers import serving
from tests.support.world import ORIGIN, example
from tests.support.world import world as a_world

pytestmark = pytest.mark.anyio

CALL = Plan(call=True, step_seconds=5, run_seconds=20)


@asynccontextmanager
async def probing(app, credentials=MINE, plan=CALL, path=""):
    """A prober, and the URL that it is for."""
    async with serving(app) as url, service_at(url + path) as service:
        yield Prober(service, credentials, plan), url + path


async def report_of(app, credentials=MINE, plan=CALL):
    async with probing(app, credentials, plan) as (prober, url):
        report = await prober.run(url)
    for text in (telling.as_text(report), json.dumps(telling.as_json(report)), telling.as_prometheus(report)):
        LEAKS.saw("what a probe says", text)
    return report


def outcomes(report):
    return {result.step: result.outcome for result in report.results}


def details(report, outcome):
    return {result.step: result.detail for result in report.results if result.outcome == outcome}


def states(world):
    return [call.state for call in world.emulator.calls]


# All is well


@pytest.mark.parametrize("origin", [None, ORIGIN])
async def test_a_service_that_is_well_passes_every_step(world, origin):
    front = Front(world.public)
    report = await report_of(front, plan=replace(CALL, origin=origin))
    call_id = next(record["call_id"] for record in world.records if record["action"] == "call.open")
    assert {result.step: result.detail for result in report.results if result.outcome == "passed"} == {
        **{step: str(refused) for step, refused in REFUSED.items()},
        "token": "200, a grant",
        "call": f"201, {call_id}",
        "hang-up": "200, ended",
    }
    assert [result.step for result in report.results] == list(STEPS)
    assert (report.exit_code, report.reached, report.left_open) == (0, True, ())
    assert states(world) == ["ended"]
    assert {asked.origin for asked in front.seen if asked.origin != "https://switchboard-probe.invalid"} == {origin}


async def test_each_request_can_be_found_by_the_id_that_is_told(world):
    front = Front(world.public)
    report = await report_of(front)
    assert {result.request_id for result in report.results} <= set(front.ids)
    reasons = {record["request_id"]: record["reason"] for record in world.records}
    found = {result.step: reasons.get(result.request_id) for result in report.results}
    assert found == {
        **{step: refused.code for step, refused in REFUSED.items()},
        "other-users-call": None,  # the last look is the owner's, and reading is not audited
        "token": "ok",
        "call": "ok",
        "hang-up": None,
    }


async def test_no_credential_is_told(world):
    """Neither those that pass nor those that do not."""
    for front in (
        Front(world.public),
        Front(world.public, fronts.hangs_up_nothing),
        Front(world.public, fronts.nobody),
    ):
        report = await report_of(front)
        told = telling.as_text(report) + json.dumps(telling.as_json(report)) + telling.as_prometheus(report)
        presented = {part for asked in front.seen if asked.bearer for part in (asked.bearer, asked.bearer[-40:])}
        assert len(presented) > 5
        assert [one for one in presented if one in told or one in repr(report)] == []


async def test_a_preset_that_delivers_secrets_takes_the_users_own_token():
    policy = example()
    policy["tenants"]["acme"]["presets"]["support"]["delivery"] = "direct"
    async with a_world(policy) as world:
        report = await report_of(world.public)
        assert details(report, "skipped") == {"used-grant": NO_GRANT}
        assert (report.exit_code, states(world)) == (0, ["ended"])


async def test_a_preset_is_asked_for_by_its_name(world):
    report = await report_of(world.public, plan=replace(CALL, preset="root"))
    failed = details(report, "failed")
    assert failed["token"] == "answered 404 unknown_preset, not 200"
    assert report.exit_code == 1


async def test_below_a_path_of_the_host(world):
    async def below(scope, receive, send):
        assert scope["path"].startswith("/voice/")
        await world.public({**scope, "path": scope["path"].removeprefix("/voice")}, receive, send)

    async with probing(below, path="/voice/") as (prober, url):
        assert (await prober.run(url)).exit_code == 0


# What was given does not allow everything


async def test_without_a_call_none_is_opened(world):
    report = await report_of(world.public, plan=Plan())
    assert details(report, "skipped") == dict.fromkeys(OF_A_CALL, NEEDS_CALL)
    assert (report.exit_code, world.emulator.calls) == (0, ())


async def test_ready_tokens_cannot_have_expired(world):
    report = await report_of(world.public, ReadyTokens(world.token()))
    assert details(report, "skipped") == {"expired-token": NEEDS_KEY, "other-users-call": NEEDS_OTHER}
    assert (report.exit_code, states(world)) == (0, ["ended"])


async def test_two_ready_tokens_are_two_users(world):
    tokens = ReadyTokens(world.token(), world.token(sub="user-other-8c20"))
    report = await report_of(world.public, tokens)
    assert details(report, "skipped") == {"expired-token": NEEDS_KEY}
    assert report.exit_code == 0


async def test_nobody_tries_what_needs_no_user(world):
    report = await report_of(world.public, NoCredentials())
    assert [step for step, outcome in outcomes(report).items() if outcome == "passed"] == ["no-token", "foreign-issuer"]
    assert details(report, "skipped") == {
        **dict.fromkeys(("forged-token", "expired-token", "wrong-origin", "token", "call"), NEEDS_USER),
        **dict.fromkeys(("other-users-call", "used-grant", "hang-up"), NO_CALL),
    }


async def test_what_is_not_wanted_is_not_tried():
    """A tenant for whom any origin will do."""
    policy = example()
    policy["tenants"]["acme"]["origins"] = "any"
    async with a_world(policy) as world:
        report = await report_of(world.public)
        assert details(report, "failed") == {"wrong-origin": "let through: answered 200, not 403 origin_not_allowed"}
        report = await report_of(world.public, plan=replace(CALL, skip=("wrong-origin",)))
        assert (details(report, "skipped"), report.exit_code) == ({"wrong-origin": "by --skip"}, 0)


# A service that is broken, in each way


@pytest.mark.parametrize(
    ("change", "step", "detail"),
    [
        (fronts.anybody, "no-token", "let through: answered 200, not 401 missing_token"),
        (fronts.any_issuer, "foreign-issuer", "let through: answered 200, not 401 unknown_issuer"),
        (fronts.any_signature, "forged-token", "let through: answered 200, not 401 invalid_token"),
        (fronts.any_time, "expired-token", "let through: answered 200, not 401 expired_token"),
        (fronts.any_origin, "wrong-origin", "let through: answered 200, not 403 origin_not_allowed"),
        (fronts.anybody_reads, "other-users-call", "let through: answered 200, not 404 call_not_found"),
        (fronts.anybody_hangs_up, "other-users-call", "let through: answered 200, not 404 call_not_found"),
        (
            fronts.hangs_up_and_denies_it(),
            "other-users-call",
            "another user was refused, and the call is not open any more: 200",
        ),
        (fronts.grants_again(), "used-grant", "let through: answered 201, not 401 grant_used"),
        (fronts.for_another_reason, "expired-token", "answered 401 invalid_token, not 401 expired_token"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_what_is_let_through_is_named(world, change, step, detail):
    report = await report_of(Front(world.public, change))
    assert details(report, "failed") == {step: detail}
    assert report.exit_code == 1
    assert set(states(world)) <= {"ended"}


async def test_a_call_that_does_not_end_is_named(world):
    report = await report_of(Front(world.public, fronts.hangs_up_nothing))
    (call_id,) = [call.id for call in world.emulator.calls]
    assert details(report, "failed") == {"hang-up": "answered 200, and the call is not over: 200"}
    assert (report.left_open, report.exit_code) == ((call_id,), 1)
    assert f"Not hung up: {call_id}." in telling.as_text(report)


async def test_a_service_that_lets_nobody_in(world):
    report = await report_of(Front(world.public, fronts.nobody))
    failed = details(report, "failed")
    assert failed["token"] == "answered 401 missing_token, not 200"
    assert failed["forged-token"] == "answered 401 missing_token, not 401 invalid_token"
    assert outcomes(report)["call"] == "skipped"
    assert report.exit_code == 1


async def test_a_service_that_opens_no_calls(world):
    report = await report_of(Front(world.public, fronts.no_calls))
    assert details(report, "failed") == {"call": "answered 404 not_found, not 201"}
    assert details(report, "skipped") == dict.fromkeys(("other-users-call", "used-grant", "hang-up"), NO_CALL)


async def test_a_provider_that_is_down(world):
    await world.faults(status=500)
    report = await report_of(world.public)
    assert details(report, "failed") == {"call": "answered 502 provider_unavailable, not 201"}
    assert report.left_open == ()


async def test_an_answer_that_a_page_may_not_read(world):
    async def without_cors(scope, receive, send):
        async def stripped(message):
            headers = [one for one in message.get("headers", ()) if not one[0].startswith(b"access-control")]
            await send({**message, "headers": headers} if "headers" in message else message)

        await world.public(scope, receive, stripped)

    report = await report_of(without_cors, plan=replace(CALL, origin=ORIGIN))
    assert details(report, "failed")["token"] == f"answered 200, and a page of {ORIGIN} may not read it"


def without_location(message):
    headers = [one for one in message.get("headers", ()) if one[0] != b"location"]
    return {**message, "headers": headers} if "headers" in message else message


def without_sdp(message):
    return {**message, "body": b"x" * len(message["body"])} if message.get("body") else message


@pytest.mark.parametrize(
    ("spoil", "detail"),
    [(without_location, "answered 201, and no `Location` of the call"), (without_sdp, "answered 201, and no SDP")],
)
async def test_an_answer_to_an_offer_that_is_none(world, spoil, detail):
    """The call is there all the same, and is hung up."""
    report = await report_of(Front(world.public, spoilt={("POST", "sdp"): spoil}))
    assert details(report, "failed") == {"call": detail}
    assert (states(world), report.left_open) == (["ended"], ())


async def test_a_hang_up_that_is_never_answered(world):
    """The call cannot be known to be over."""
    stuck = Front(world.public, before={("DELETE", "sdp"): 60})
    report = await report_of(stuck, plan=replace(CALL, step_seconds=1.0, skip=("other-users-call",)))
    (call_id,) = [call.id for call in world.emulator.calls]
    assert details(report, "failed") == {"hang-up": "no answer within 1 s"}
    assert (report.left_open, report.exit_code, report.seconds < 5) == ((call_id,), 1, True)


# Something else altogether


def answering(status, body=b"", **headers):
    async def app(scope, receive, send):
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": body})

    return app


@pytest.mark.parametrize(
    ("app", "no_token", "token"),
    [
        (answering(200, b"<html>"), "let through: answered 200, not 401 missing_token", "no token with an expiry"),
        (answering(302, location="https://elsewhere.example/"), "answered 302, not 401", "answered 302, not 200"),
        (answering(503, b'{"code": "<b>"}'), "answered 503, not 401", "answered 503, not 200"),
        (answering(200, b'{"value": "sk-leaked-0123456789", "expires_at": 1}'), "let through", "no token with an"),
    ],
)
async def test_what_is_no_switchboard(app, no_token, token):
    report = await report_of(app)
    failed = details(report, "failed")
    assert no_token in failed["no-token"]
    assert token in failed["token"]
    assert "sk-leaked" not in telling.as_text(report)
    assert report.exit_code == 1


async def test_an_answer_without_end_is_none():
    report = await report_of(answering(200, b"x" * 300_000))
    assert details(report, "failed") == {"no-token": "answered more than 262144 bytes"}
    assert report.exit_code == 3


async def test_nobody_is_there():
    report = await report_of_nobody()
    (first, *others) = report.results
    assert first.detail.startswith("cannot be reached (")
    assert {result.detail for result in others} == {NOT_REACHED}
    assert (report.reached, report.exit_code) == (False, 3)


async def report_of_nobody():
    async with service_at("http://127.0.0.1:9") as service:
        return await Prober(service, MINE, CALL).run("http://127.0.0.1:9")


# Time


async def test_a_service_that_says_nothing_is_given_up():
    async def silent(scope, receive, send):
        await asyncio.sleep(60)

    report = await report_of(silent, plan=replace(CALL, step_seconds=0.2))
    assert details(report, "failed") == {"no-token": "no answer within 0.2 s"}
    assert (report.exit_code, report.seconds < 2) == (3, True)


async def test_the_whole_run_is_bounded_and_its_call_is_hung_up(world):
    slow = Front(world.public, before={("GET", "sdp"): 0.8})
    report = await report_of(slow, plan=replace(CALL, run_seconds=1.0))
    failed = details(report, "failed")
    assert "other-users-call" in failed
    assert failed["used-grant"] == "not tried: the time of the run was over"
    assert outcomes(report)["hang-up"] == "passed"
    assert (states(world), report.left_open) == (["ended"], ())


async def test_an_offer_whose_answer_comes_too_late_opens_no_call_for_ever(world):
    late = Front(world.public, after={("POST", "sdp"): 1.2})
    report = await report_of(late, plan=replace(CALL, step_seconds=1.0))
    assert details(report, "failed") == {"call": "no answer within 1 s"}
    assert (states(world), report.left_open) == (["ended"], ())


async def test_an_offer_whose_answer_is_lost_opens_no_call_for_ever(world):
    report = await report_of(Front(world.public, lost=frozenset({("POST", "sdp")})))
    assert details(report, "failed") == {"call": "broke off (RemoteProtocolError)"}
    assert (states(world), report.left_open) == (["ended"], ())


async def test_an_offer_that_a_proxy_answers_opens_no_call_for_ever(world):
    report = await report_of(Front(world.public, failing=frozenset({("POST", "sdp")})))
    assert details(report, "failed") == {"call": "answered 502, not 201"}
    assert (states(world), report.left_open) == (["ended"], ())


async def test_what_nobody_can_tell_is_said(world):
    lost = Front(world.public, lost=frozenset({("POST", "sdp"), ("GET", "calls")}))
    report = await report_of(lost)
    assert (report.left_open, report.exit_code) == ((UNKNOWN_CALL,), 1)


async def test_an_interrupted_run_hangs_up(world):
    stuck = Front(world.public, before={("GET", "sdp"): 60})
    async with probing(stuck) as (prober, url):
        running = asyncio.ensure_future(prober.run(url))
        await stuck.holding.wait()
        assert states(world) == ["open"]
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert (states(world), prober.left_open) == (["ended"], ())


async def test_a_clean_up_that_is_interrupted_goes_on(world):
    stuck = Front(world.public, fronts.hangs_up_nothing, after={("DELETE", "sdp"): 0.5})
    async with probing(stuck, plan=replace(CALL, skip=("other-users-call", "used-grant", "hang-up"))) as (prober, url):
        running = asyncio.ensure_future(prober.run(url))
        await stuck.holding.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert prober.left_open == tuple(call.id for call in world.emulator.calls)


async def test_an_offer_that_is_interrupted_is_hung_up(world):
    stuck = Front(world.public, after={("POST", "sdp"): 0.5})
    async with probing(stuck) as (prober, url):
        running = asyncio.ensure_future(prober.run(url))
        await stuck.holding.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert (states(world), prober.left_open) == (["ended"], ())
