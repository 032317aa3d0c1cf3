"""OpenAI's SDKs before the running service: the user's token as their key, and nothing else of theirs changed."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jwt
import orjson
import pytest

from tests.e2e import sdks
from tests.prove.service import ISSUER, Ground, Replica, ground, new_offer, new_user, policy, tenant
from tests.support import keys
from tests.support.contract import DOCUMENT
from tests.support.leaks import LEAKS
from tests.support.world import LEGACY_SECRET

EXAMPLES = {"python": "openai/call.py", "node": "openai/call.js"}  # what `sdks` runs
SESSION = {"type": "realtime", "model": "gpt-realtime-2.1", "audio": {"output": {"voice": "marin"}}}
INSTRUCTIONS = LEAKS.plant("instructions", "You are kind to callers who come by an SDK.")


def tenants() -> dict[str, Any]:
    session = {**SESSION, "instructions": INSTRUCTIONS}
    voices = {"audio.output.voice": ["marin", "cedar"]}
    presets = {
        "support": {"delivery": "relay", "session": session, "overrides": voices},
        "expert": {"delivery": "relay", "session": session, "requires": {"plan": ["pro"]}},
    }
    acme = {"default_preset": "support", "presets": presets}
    one_call = {"open_calls": {"user": 1}, "when_user_full": "refuse"}
    return {
        "acme": tenant(**acme),
        "direct": tenant(preset={"delivery": "direct"}),
        "single": tenant(**acme, limits=one_call),
        "scarce": tenant(**acme, limits={"user": ["1/minute"]}),
        "slow": tenant(**acme, limits={"user": ["1/second"]}),
        "paused": tenant(**acme, suspended=True),
    }


@dataclass
class Place:
    """The service, and the provider behind it."""

    ground: Ground
    service: Replica

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.service.port}"

    @property
    def provider_url(self) -> str:
        return str(self.ground.provider.base_url).rstrip("/")

    def call(self, call_id: str) -> dict[str, Any]:
        """A call as the provider knows it."""
        rows = orjson.loads(self.ground.provider.get("/_emulator/calls").content)["calls"]
        (found,) = [row for row in rows if row["id"] == call_id]
        return dict(found)

    def calls_of(self, user_key: str) -> list[str]:
        """The states of a user's calls at the provider."""
        calls = self.ground.calls().values()
        return ["open" if call.ended_at is None else "ended" for call in calls if call.user_key == user_key]

    def records(self, user_key: str, many: int) -> list[tuple[str, ...]]:
        """A user's audit records, as soon as there are so many; more of them come at once."""
        until = time.monotonic() + 5
        while True:
            mine = [one for one in self.service.records if one.get("user_key") == user_key]
            if len(mine) >= many or time.monotonic() > until:
                return [(one["action"], one["outcome"], one["reason"]) for one in mine]
            time.sleep(0.02)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with ground(policy(**tenants())) as made:
        service = made.add(provider_timeout="5")
        made.start()
        yield Place(made, service)
        LEAKS.saw("metrics of serve", service.metrics)


@pytest.fixture(autouse=True)
def _no_faults(place):
    yield
    place.ground.faults()


@pytest.fixture(scope="module", params=EXAMPLES)
def sdk(request, tmp_path_factory: pytest.TempPathFactory) -> Iterator[sdks.Sdk]:
    if request.param == "python":
        yield sdks.Python()
        return
    with sdks.node(tmp_path_factory.mktemp("node")) as running:
        yield running


def gave(outcome: sdks.Outcome) -> Any:
    assert "gave" in outcome, outcome
    return outcome["gave"]


def offer() -> str:
    return new_offer().decode()


def call_id_of(given: dict[str, Any]) -> str:
    below, _, call_id = str(given["location"]).rpartition("/")
    assert below == "/v1/realtime/calls"
    assert given["answer"].startswith("v=0\r\n")
    return call_id


# What works.


def test_the_examples_open_a_call_and_hang_up(place, sdk):
    user = new_user("acme")
    given = gave(sdk.ask("open_by_example", place.url, user.token, offer=offer()))
    opened = place.call(given["call_id"])
    assert (opened["state"], opened["safety_identifier"]) == ("open", user.key)
    assert opened["session"]["instructions"] == INSTRUCTIONS
    assert given["answer"].startswith("v=0\r\n")
    assert gave(sdk.ask("hang_up_by_example", place.url, user.token, call_id=given["call_id"])) is None
    assert place.call(given["call_id"])["state"] == "ended"
    assert place.records(user.key, 2) == [("call.open", "allowed", "ok"), ("call.end", "allowed", "owner")]


def test_a_secret_with_choices_opens_one_call_here(place, sdk):
    user = new_user("acme")
    session = {"type": "realtime", "model": "support", "audio": {"output": {"voice": "cedar"}}}
    body = {"session": session, "expires_after": {"anchor": "created_at", "seconds": 30}}
    secret = gave(sdk.ask("create_secret", place.url, user.token, body=body))
    assert secret == {
        "value": secret["value"],
        "expires_at": pytest.approx(time.time() + 30, abs=5),
        "session": {**SESSION, "audio": {"output": {"voice": "cedar"}}},
    }
    assert secret["value"].startswith("ek_swb_")
    # Without a session the packages send the offer alone.
    given = gave(sdk.ask("create_call", place.url, secret["value"], body={"sdp": offer()}))
    call_id = call_id_of(given)
    opened = place.call(call_id)["session"]
    assert (opened["audio"]["output"]["voice"], opened["instructions"]) == ("cedar", INSTRUCTIONS)
    again = sdk.ask("create_call", place.url, secret["value"], body={"sdp": offer()})
    assert (again["threw"], again["code"]) == ("AuthenticationError", "grant_used")
    assert place.calls_of(user.key) == ["open"]
    for _ in range(2):  # a second time is no mistake
        assert gave(sdk.ask("hang_up", place.url, secret["value"], call_id=call_id)) is None
    assert place.calls_of(user.key) == ["ended"]


def test_a_secret_needs_no_choice(place, sdk):
    secret = gave(sdk.ask("create_secret", place.url, new_user("acme").token))
    assert (secret["value"][:7], secret["session"]) == ("ek_swb_", SESSION)
    named = gave(sdk.ask("create_secret", place.url, new_user("acme").token, query={"preset": "support"}))
    assert named["session"] == SESSION


def test_a_direct_secret_opens_its_call_at_the_provider(place, sdk):
    user = new_user("direct")
    secret = gave(sdk.ask("create_secret", place.url, user.token))
    assert secret["value"].startswith("ek_")
    assert not secret["value"].startswith("ek_swb_")
    assert secret["session"].keys() == {"id", "type", "model", "audio"}
    given = gave(sdk.ask("create_call", place.provider_url, secret["value"], body={"sdp": offer()}))
    assert place.call(call_id_of(given))["session"]["id"] == secret["session"]["id"]
    # Here it is nobody's: the provider has given it out, and no call by it is known.
    refused = sdk.ask("create_call", place.url, secret["value"], body={"sdp": offer()})
    assert (refused["threw"], refused["code"]) == ("AuthenticationError", "invalid_token")


@pytest.mark.parametrize("session", [None, {"type": "realtime", "model": "support"}, SESSION], ids=str)
def test_a_call_with_the_users_token_with_and_without_a_session(place, sdk, session):
    user = new_user("acme")
    body = {"sdp": offer()} if session is None else {"sdp": offer(), "session": session}
    call_id = call_id_of(gave(sdk.ask("create_call", place.url, user.token, body=body)))
    opened = place.call(call_id)["session"]
    assert (opened["model"], opened["instructions"]) == (SESSION["model"], INSTRUCTIONS)
    assert gave(sdk.ask("hang_up", place.url, user.token, call_id=call_id)) is None
    assert place.calls_of(user.key) == ["ended"]


# What is refused, and how the packages say so.


def refused_as(outcome: sdks.Outcome, name: str, code: str, param: str | None = None) -> None:
    """The whole exception, as the contract describes the refusal."""
    message = outcome["body"]["message"]
    status = DOCUMENT["x-problem-codes"][code]["status"]
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error", 502: "api_error"}
    kind = kinds.get(status, "invalid_request_error")
    assert outcome == {
        "threw": name,
        "status": status,
        "code": code,
        "param": param,
        "type": kind,
        "message": outcome["message"],
        "request_id": outcome["request_id"],
        "body": {"message": message, "type": kind, "code": code, "param": param},
    }
    assert len(message) > 20
    assert message in outcome["message"] or repr(message)[1:-1] in outcome["message"]
    assert len(outcome["request_id"]) >= 16


def user(name: str = "acme") -> str:
    return new_user(name).token


def too_late() -> str:
    now = int(time.time())
    claims = keys.claims(iss=ISSUER, sub="prover-late", org_id="acme", iat=now - 900, exp=now - 600)
    return jwt.encode(claims, LEGACY_SECRET, "HS256")


NAMED = {"session": {"type": "realtime", "model": "expert"}}
WRITTEN = {"session": {"type": "realtime", "instructions": "Say anything."}}
REFUSED: tuple[tuple[str, Callable[[], str], str, str | None, dict[str, Any]], ...] = (
    ("AuthenticationError", lambda: "nonsense", "invalid_token", None, {}),
    ("AuthenticationError", too_late, "expired_token", None, {}),
    ("PermissionDeniedError", user, "preset_not_allowed", None, NAMED),
    ("PermissionDeniedError", lambda: user("paused"), "tenant_suspended", None, {}),
    ("BadRequestError", user, "override_not_allowed", "session.instructions", WRITTEN),
)


@pytest.mark.parametrize("operation", ["create_secret", "create_call"])
@pytest.mark.parametrize("refused", REFUSED, ids=[row[2] for row in REFUSED])
def test_a_refusal_is_the_packages_own_exception(place, sdk, operation, refused):
    name, who, code, param, body = refused
    whole = body if operation == "create_secret" else {"sdp": offer(), **body}
    refused_as(sdk.ask(operation, place.url, who(), body=whole), name, code, param)


def test_what_is_not_there_is_not_found(place, sdk):
    for operation, body in (("create_secret", {}), ("create_call", {"sdp": offer()})):
        refused = sdk.ask(operation, place.url, user(), body=body, query={"preset": "nope"})
        refused_as(refused, "NotFoundError", "unknown_preset")
    given = gave(sdk.ask("create_call", place.url, user(), body={"sdp": offer()}))
    somebody_elses = sdk.ask("hang_up", place.url, user(), call_id=call_id_of(given))
    refused_as(somebody_elses, "NotFoundError", "call_not_found")


def test_an_offer_that_cannot_start_a_call_is_refused(place, sdk):
    refused_as(sdk.ask("create_call", place.url, user(), body={"sdp": "v=0\r\n"}), "BadRequestError", "invalid_offer")


def test_a_status_without_a_class_of_its_own_is_the_general_exception(place, sdk):
    name = "APIStatusError" if isinstance(sdk, sdks.Python) else "APIError"
    refused = sdk.ask("create_call", place.url, user(), body={"sdp": offer() + "a=x\r\n" * 20_000})
    refused_as(refused, name, "payload_too_large")


# What is tried again by the packages, which they do twice unless told not to.


def test_a_second_call_is_refused_at_once(place, sdk):
    single = new_user("single")
    gave(sdk.ask("create_call", place.url, single.token, body={"sdp": offer()}))
    refused_as(
        sdk.ask("create_call", place.url, single.token, body={"sdp": offer()}), "RateLimitError", "too_many_calls"
    )
    assert place.calls_of(single.key) == ["open"]
    assert place.records(single.key, 2) == [("call.open", "allowed", "ok"), ("call.open", "denied", "too_many_calls")]


def test_a_call_over_quota_is_refused_at_once(place, sdk):
    scarce = new_user("scarce")
    outcomes = [sdk.ask("create_call", place.url, scarce.token, body={"sdp": offer()}) for _ in range(3)]
    refused_as(next(one for one in outcomes if "threw" in one), "RateLimitError", "rate_limited")


def test_a_secret_over_quota_is_waited_for(place, sdk):
    slow = new_user("slow")
    for _ in range(3):  # the second may fall into the next window, the third then not
        gave(sdk.ask("create_secret", place.url, slow.token))
    told = place.records(slow.key, 4)
    assert told.count(("grant.issue", "allowed", "ok")) == 3
    assert set(told) == {("grant.issue", "allowed", "ok"), ("grant.issue", "denied", "rate_limited")}


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"status": 500}, "provider_unavailable"),
        ({"reset": True}, "provider_unavailable"),
        ({"half_answer": True}, "provider_unavailable"),  # of a call that was opened
        ({"status": 429, "retry_after": 1}, "provider_busy"),
    ],
    ids=str,
)
def test_an_offer_that_failed_is_not_sent_again(place, sdk, fault, code):
    caller = new_user("acme")
    place.ground.faults(operations=["call"], times=1, **fault)
    refused = sdk.ask("create_call", place.url, caller.token, body={"sdp": offer()})
    assert (refused["threw"], refused["code"]) == ("InternalServerError", code)  # a second try would have got through
    tries = [one for one in place.records(caller.key, 1) if one[0] == "call.open"]
    assert tries == [("call.open", "error", code)]
    assert "open" not in place.calls_of(caller.key)


def test_an_offer_whose_answer_was_not_waited_for_leaves_no_call_open(place, sdk):
    caller = new_user("acme")
    place.ground.faults(operations=["call"], times=1, delay_seconds=2.2)
    # The package gives up, and sends the same offer again by itself, which finds the first still on its way.
    body = {"sdp": offer()}
    refused = sdk.ask("create_call", place.url, caller.token, body=body, timeout=0.8)
    refused_as(refused, "RateLimitError", "too_many_calls")
    until = time.monotonic() + 5
    while place.calls_of(caller.key) != ["ended"] and time.monotonic() < until:
        time.sleep(0.05)
    assert place.calls_of(caller.key) == ["ended"]


def test_a_mint_that_failed_is_tried_again_until_it_succeeds(place, sdk):
    minter = new_user("direct")
    place.ground.faults(operations=["mint"], times=1, status=500)
    assert gave(sdk.ask("create_secret", place.url, minter.token))["value"].startswith("ek_")
