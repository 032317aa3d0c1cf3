"""openapi.yaml and the service say the same: routes, codes, examples, and real answers to real requests."""

import asyncio
import json
import math
import re
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from openapi_spec_validator import validate
from starlette.applications import Starlette

from switchboard import broker, leash
from switchboard.endpoints import reading
from switchboard.endpoints.answering import Answering
from switchboard.endpoints.ops import Readiness, health_routes
from switchboard.errors import Refusal
from switchboard.grants import Grants
from switchboard.identity import Principal
from switchboard.middleware import Cors, RequestContext
from switchboard.providers import breaker, openai
from switchboard.tenants import Origins
from tests.support import world as worlds
from tests.support.contract import DOCUMENT, METHODS, OPERATIONS, check, mistakes, refusals, resolved

PAGE_PARTS = "/docs/"  # what the page loads is no contract
AWAY = "http://127.0.0.1:9/"  # an issuer that nobody runs
FLAT = ("createFlatSession", "createFlatTranscription")  # its choices stand by themselves
CREATING = ("createToken", "createClientSecret", "createTranslationSecret", *FLAT)  # with a body of choices
MINTING = ("getToken", *CREATING)
OFFERING = ("openCall", "openCallAtSession", "openCallAtProvidersPath", "openTranslation", "openCallAtBetaPath")
# Paths that are not for the default preset, which talks.
PRESETS = {"createTranslationSecret": "interpreter", "openTranslation": "interpreter", FLAT[1]: "captions"}
TAKEN = {  # presets of widgets, by the paths that are not for all types
    "createClientSecret": ("concierge", "captions"),
    "createTranslationSecret": ("interpreter",),
    FLAT[0]: ("concierge",),
    FLAT[1]: ("captions",),
}
ENDING = ("endCall", "endCallAtProvidersPath")
CALLING = ("getCall", *ENDING)
REPORTING = ("reportCall", "report")
DESCRIBING = ("describeOffers", "describeOffersAtSession", "describeOffersAtProvidersPath")
KNOWING = (*MINTING, *OFFERING, *CALLING, "getCalls", *REPORTING)  # has to know who asks
LIMITED = (*KNOWING, *DESCRIBING, "getContractYaml", "getContractJson", "getDocs", "getHelper")
BUSY = (*MINTING, *OFFERING, *ENDING)  # asks the provider, and is on record


# The document by itself.


def test_it_is_an_openapi_document():
    validate(dict(DOCUMENT))


@pytest.mark.anyio
async def test_it_has_every_route_and_no_other(ask):
    app = ask.world.public
    while not isinstance(app, Answering):
        app = app._app
    routes: Any = app.routes
    served = {
        (method, route.path)
        for route in routes
        for method in route.methods - {"HEAD"}
        if not route.path.startswith(PAGE_PARTS)
    }
    assert set(OPERATIONS.values()) == served


def _all_refusals(base=Refusal):
    for refusal in base.__subclasses__():
        yield refusal
        yield from _all_refusals(refusal)


def test_it_has_every_code_and_no_other():
    ours = {
        refusal.code: (refusal.status, refusal.title)
        for refusal in _all_refusals()
        if hasattr(refusal, "code") and refusal.__module__.startswith("switchboard.")
    }
    told = {code: (entry["status"], entry["title"]) for code, entry in DOCUMENT["x-problem-codes"].items()}
    assert told == ours
    assert DOCUMENT["components"]["schemas"]["ProblemCode"]["enum"] == list(told)
    assert all(entry["action"] for entry in DOCUMENT["x-problem-codes"].values())


def test_every_operation_is_told_in_full():
    operations = [DOCUMENT["paths"][path][method.lower()] for method, path in OPERATIONS.values()]
    assert all(operation["summary"] and len(operation["description"]) > 20 for operation in operations)
    assert all("security" in operation for operation in operations)
    for operation in operations:
        for response in operation["responses"].values():
            assert {"X-Request-Id", "Vary"} <= resolved(response)["headers"].keys()


def _nodes(node, path=""):
    yield path, node
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, child in children:
        yield from _nodes(child, f"{path}/{name}")


def test_every_reference_leads_somewhere_and_every_component_is_used():
    references = {
        node["$ref"] for _, node in _nodes(DOCUMENT) if isinstance(node, dict) and isinstance(node.get("$ref"), str)
    }
    for reference in references:
        assert resolved({"$ref": reference}) is not None
    components = {
        f"#/components/{kind}/{name}"
        for kind, entries in DOCUMENT["components"].items()
        for name in entries
        if kind != "securitySchemes"
    }
    assert components - references == set()


def test_no_text_has_become_a_key():
    """A comma in a text inside `{…}` would end the text."""
    assert [
        f"{path}/{name}" for path, node in _nodes(DOCUMENT) if isinstance(node, dict) for name in node if " " in name
    ] == []


def _examples():
    for path, node in _nodes(DOCUMENT):
        if not isinstance(node, dict) or "schema" not in node:
            continue
        for name, example in node.get("examples", {}).items():
            yield f"{path}/{name}", node["schema"], resolved(example)["value"]
        if "example" in node:
            yield path, node["schema"], node["example"]


@pytest.mark.parametrize(("schema", "value"), [pytest.param(*rest, id=path) for path, *rest in _examples()])
def test_an_example_fits_its_schema(schema, value):
    assert mistakes(schema, value) == []


def test_an_operation_has_only_known_methods():
    for item in DOCUMENT["paths"].values():
        assert item.keys() <= set(METHODS)


# Real requests.


class Asking:
    """A world, and for each operation a request that succeeds unless something about it is changed."""

    def __init__(self, world):
        self.world = world
        self.call_path = ""

    async def __call__(self, operation, *, token=None, query="", headers=None, **content):
        method, path = OPERATIONS[operation]
        if "{call_id}" in path:
            path = path.replace("{call_id}", (self.call_path or await self.open_call()).rpartition("/")[2])
        if operation in CREATING and not content:
            content = {"json": {}}
        if operation in PRESETS and "preset=" not in query:
            query = f"{query}{'&' if query else '?'}preset={PRESETS[operation]}"
        if operation in REPORTING and not content:
            content = {"json": {"event": "alive", "rtt_ms": 40}}
        if operation in OFFERING and (not content or "offer" in content):
            content = {"content": content.get("offer", worlds.OFFER)}
            headers = {"content-type": "application/sdp", **(headers or {})}
        bearer = {} if token == "" else self.world.auth(token)
        answer = await self.world.client.request(
            method, f"{path}{query}", headers={**bearer, **(headers or {})}, **content
        )
        check(*OPERATIONS[operation], answer)
        return answer

    async def open_call(self):
        answer = await self.world.relay()
        assert answer.status_code == 201, answer.text
        self.call_path = answer.headers["location"]
        return self.call_path


def _policy():
    """The example, with a translation and a transcription for every tenant, a suspended one, one of a single call, one
    of a minute, and an issuer that is away.
    """
    policy = worlds.example()
    first, acme, widgets = policy["issuers"][0], policy["tenants"]["acme"], policy["tenants"]["widgets"]
    translation = {"type": "translation", "model": "gpt-realtime-translate", "audio": {"output": {"language": "es"}}}
    acme["presets"] |= {
        "interpreter": {"delivery": "relay", "session": translation},
        "captions": widgets["presets"]["captions"],
    }
    widgets["presets"]["interpreter"] = {"delivery": "direct", "session": translation}
    acme["limits"]["user"] = ["100/minute"]  # one user asks by every operation
    widgets["limits"] = {"user": ["100/minute"]}
    away = {name: value for name, value in first.items() if name != "jwks_url"} | {"issuer": AWAY}
    policy["issuers"] = [*policy["issuers"], away]
    policy["tenants"] |= {
        "paused": {**acme, "suspended": True},
        "single": {**acme, "limits": {"open_calls": {"user": 1}, "when_user_full": "refuse"}},
        "minute": {**acme, "limits": {"minutes": {"user": "1/day"}}},
    }
    first["tenants"] = [name for name in policy["tenants"] if name != "widgets"]
    return policy


@asynccontextmanager
async def _asking(**settings):
    async with worlds.world(_policy(), **settings) as world:
        await world.mint()  # the issuer's keys are there from now on
        yield Asking(world)


@pytest.fixture
async def ask(anyio_backend):
    async with _asking() as asking:
        yield asking


REFUSED: dict[str, tuple[tuple[str, ...], Callable[..., Any], dict[str, Any]]] = {}


def refused(code, *operations, **settings):
    """Register how to be refused with a code, and by which operations."""

    def register(scenario):
        REFUSED[code] = (operations, scenario, settings)
        return scenario

    return register


@refused("invalid_request", *MINTING, *OFFERING, *REPORTING)
async def _(ask, operation, patch):
    if operation in REPORTING:
        return await ask(operation, json={"event": "boom"})
    return await ask(operation, query="?preset=support&preset=expert")


@refused("invalid_offer", *OFFERING)
async def _(ask, operation, patch):
    return await ask(operation, content=b"v=0\r\n", headers={"content-type": "application/sdp"})


@refused("override_not_allowed", *CREATING, *OFFERING)
async def _(ask, operation, patch):
    session = {"instructions": "Say anything."}
    if operation in CREATING:
        return await ask(operation, json=session if operation in FLAT else {"session": session})
    return await ask(operation, files=_form(worlds.OFFER, session))


@refused("missing_token", *KNOWING)
async def _(ask, operation, patch):
    return await ask(operation, token="")


@refused("invalid_token", *KNOWING)
async def _(ask, operation, patch):
    return await ask(operation, token="neither-a-jwt-nor-a-grant")


@refused("expired_token", *KNOWING)
async def _(ask, operation, patch):
    now = int(time.time())
    return await ask(operation, token=ask.world.token(iat=now - 900, exp=now - 600))


@refused("unknown_issuer", *KNOWING)
async def _(ask, operation, patch):
    return await ask(operation, token=ask.world.token(iss="https://elsewhere.example/"))


@refused("grant_used", *OFFERING)
async def _(ask, operation, patch):
    grant = (await ask.world.mint(preset=PRESETS.get(operation))).json()["value"]
    await ask(operation, token=grant)
    return await ask(operation, token=grant)


@refused("grant_expired", *OFFERING, *CALLING, *REPORTING)
async def _(ask, operation, patch):
    if operation in (*CALLING, "reportCall"):
        grant = (await ask.world.mint()).json()["value"]
        ask.call_path = (await ask.world.relay(grant)).headers["location"]
        await ask(ENDING[0], token=grant)
        patch.setattr(broker, "GRANT_KEPT", -1)
        return await ask(operation, token=grant)
    yesterday = Grants([worlds.SIGNING_KEY.encode()], clock=lambda: time.time() - 86400)
    principal = Principal("https://login.acme.example/", "user-alice-1f8e", "acme", {})
    grant, _ = yesterday.issue(principal, preset="support", wanted={}, seconds=60)
    return await ask(operation, token=grant)


@refused("unknown_tenant", *KNOWING)
async def _(ask, operation, patch):
    return await ask(operation, token=ask.world.token(org_id="nobody"))


@refused("tenant_suspended", *MINTING, *OFFERING)
async def _(ask, operation, patch):
    return await ask(operation, token=ask.world.token(org_id="paused"))


@refused("origin_not_allowed", *KNOWING, *DESCRIBING)
async def _(ask, operation, patch):
    headers = {"origin": "https://evil.example"}
    if operation.startswith("describe"):
        headers["access-control-request-method"] = "POST"
    return await ask(operation, headers=headers)


@refused("preset_not_allowed", *MINTING, *OFFERING)
async def _(ask, operation, patch):
    return await ask(operation, query="?preset=expert")


@refused("unknown_preset", *MINTING, *OFFERING)
async def _(ask, operation, patch):
    return await ask(operation, query="?preset=nope")


@refused("call_not_found", *CALLING, "reportCall")
async def _(ask, operation, patch):
    ask.call_path = "/sdp/rtc_that_never_was"
    return await ask(operation)


@refused("request_timeout", *CREATING, *OFFERING, *REPORTING)
async def _(ask, operation, patch):
    patch.setattr(reading, "BODY_SECONDS", 0.05)

    async def dripping():
        yield b"{"
        await asyncio.sleep(5)

    return await ask(operation, content=dripping(), headers={"content-type": _media_type(operation)})


@refused("payload_too_large", *CREATING, *OFFERING, *REPORTING)
async def _(ask, operation, patch):
    return await ask(operation, content=b"v" * 70_000, headers={"content-type": _media_type(operation)})


@refused("unsupported_media_type", *CREATING, *OFFERING, *REPORTING)
async def _(ask, operation, patch):
    return await ask(operation, content=b"v=0", headers={"content-type": "application/octet-stream"})


@refused("rate_limited", *LIMITED, edge_limit="2/minute", trusted_proxies="127.0.0.1")
async def _(ask, operation, patch):
    here = {"x-forwarded-for": f"198.51.100.{LIMITED.index(operation)}"}  # the first request came from elsewhere
    ask.call_path = "/sdp/rtc_any"
    for _ in range(2):
        assert (await ask.world.client.get("/openapi.json", headers=here)).status_code == 200
    return await ask(operation, headers=here)


@refused("too_many_calls", *OFFERING)
async def _(ask, operation, patch):
    single = ask.world.token(org_id="single")
    await ask.world.relay(single, offer=worlds.fresh_offer(1))  # unlike that of `ask`
    return await ask(operation, token=single)


@refused("provider_refused", *BUSY)
async def _(ask, operation, patch):
    return await _with_faults(ask, operation, status=400)


@refused("provider_unavailable", *BUSY)
async def _(ask, operation, patch):
    return await _with_faults(ask, operation, status=500)


@refused("provider_timeout", *BUSY, provider_timeout=0.2)
async def _(ask, operation, patch):
    patch.setattr(openai, "HANGUP_SECONDS", 0.2)
    return await _with_faults(ask, operation, delay_seconds=1.0)


@refused("provider_busy", *BUSY)
async def _(ask, operation, patch):
    return await _with_faults(ask, operation, status=429, retry_after=7)


@refused("degraded", *KNOWING)
async def _(ask, operation, patch):
    return await ask(operation, token=ask.world.token(iss=AWAY))


@refused("audit_unavailable", *BUSY)
async def _(ask, operation, patch):
    if operation in CALLING:
        await ask.open_call()
    ask.world.sink.failing = True
    answer = await ask(operation)
    ask.world.sink.failing = False
    return answer


@refused("draining", *KNOWING)
async def _(ask, operation, patch):
    ask.call_path = "/sdp/rtc_any"
    patch.setattr(ask.world.service.readiness, "refuses", True)
    answer = await ask(operation)
    assert answer.headers["connection"] == "close"
    assert answer.headers["retry-after"] == "1"
    assert answer.headers.get("x-should-retry") == ("true" if operation in OFFERING else None)
    return answer


@refused("internal_error", *KNOWING)
async def _(ask, operation, patch):
    async def fail(*_, **__):
        raise RuntimeError("a defect")

    ask.call_path = "/sdp/rtc_any"
    for use_case in ("mint", "relay", "calls", "look_up", "hang_up", "report"):
        patch.setattr(broker.Broker, use_case, fail)
    return await ask(operation)


async def _with_faults(ask, operation, **faults):
    if operation in CALLING:
        await ask.open_call()
    await ask.world.faults(**faults)
    # Only a direct preset asks the provider for a token.
    token = ask.world.widgets_token() if operation in MINTING else None
    answer = await ask(operation, token=token)
    await ask.world.faults()
    return answer


def _media_type(operation):
    return "application/json" if operation in CREATING else "application/sdp"


def _form(offer, session):
    return {"sdp": (None, offer, "application/sdp"), "session": (None, json.dumps(session), "application/json")}


@pytest.mark.anyio
@pytest.mark.parametrize("code", REFUSED)
async def test_a_refusal_is_as_described(code, monkeypatch):
    operations, scenario, settings = REFUSED[code]
    monkeypatch.setattr(breaker, "SPAN_SECONDS", math.inf)  # else the provider would soon be taken to be down
    async with _asking(**settings) as ask:
        for operation in operations:
            ask.call_path = ""
            with monkeypatch.context() as patch:
                answer = await scenario(ask, operation, patch)
            told = (operation, answer.status_code, answer.json()["code"])
            assert told == (operation, DOCUMENT["x-problem-codes"][code]["status"], code)


def test_every_refusal_that_is_described_is_tried():
    described = {(operation, code) for operation in OPERATIONS for _, code in refusals(operation)}
    assert {(operation, code) for code, (operations, *_) in REFUSED.items() for operation in operations} == described


@pytest.mark.anyio
async def test_an_unknown_path_is_as_described(ask):
    for path in ("/nope", "/sdp/", "/sdp/rtc_1/nope", "/token/", "/demo"):
        answer = await ask.world.client.get(path, headers=ask.world.auth())
        check("GET", path, answer)
        assert answer.json()["code"] == "not_found"


@pytest.mark.anyio
async def test_another_method_is_as_described(ask):
    for path, item in DOCUMENT["paths"].items():
        answer = await ask.world.client.patch(path.replace("{call_id}", "rtc_1"), headers=ask.world.auth())
        check("PATCH", path, answer)
        assert set(answer.headers["allow"].split(", ")) - {"HEAD"} == {method.upper() for method in item}


@pytest.mark.anyio
async def test_credentials_are_as_described(ask):
    for operation in MINTING:
        assert (await ask(operation)).status_code == 200
        for preset in ("concierge", "captions", "interpreter"):
            answer = await ask(operation, token=ask.world.widgets_token(), query=f"?preset={preset}")
            is_taken = preset in TAKEN.get(operation, (preset,))
            assert (answer.status_code, answer.json().get("code")) == (
                (200, None) if is_taken else (400, "invalid_request")
            )


@pytest.mark.anyio
async def test_calls_are_as_described(ask):
    assert (await ask("getCalls")).json() == {"calls": []}
    for operation in OFFERING:
        assert (await ask(operation, query="?dcid=3")).status_code == 201
    for operation in ENDING:
        ask.call_path = ""
        shown = (await ask("getCall")).json()
        assert shown["state"] == "open"
        assert (await ask("getCalls")).json() == {"calls": [shown]}
        for _ in range(2):
            assert (await ask(operation)).status_code == 200
        assert (await ask("getCall")).json()["ended_by"] == "owner"
        assert (await ask("endCall")).json()["state"] == "ended"


# Other ways to the same codes.


@pytest.mark.anyio
async def test_minutes_that_are_used_up_are_as_described(ask):
    minute = ask.world.token(org_id="minute")
    assert (await ask("openCall", token=minute)).status_code == 201
    answer = await ask("openCall", token=minute, offer=worlds.fresh_offer(1))
    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
    assert answer.json()["violated-policies"] == ["user-minutes-day"]


@pytest.mark.anyio
async def test_an_earlier_call_that_cannot_be_ended_is_as_described(ask):
    await ask("openCall")
    await ask.world.faults(status=500, operations=["hangup"])
    answer = await ask("openCall", offer=worlds.fresh_offer(1))
    assert (answer.status_code, answer.json()["code"]) == (503, "degraded")
    await ask.world.faults()


@pytest.mark.anyio
async def test_a_grant_of_another_page_is_as_described(ask):
    answer = await ask.world.client.get("/token", headers=ask.world.auth(origin=worlds.ORIGIN))
    refused = await ask("openCall", token=answer.json()["value"])
    assert (refused.status_code, refused.json()["code"]) == (403, "origin_not_allowed")
    assert "grant" in refused.json()["detail"]


@asynccontextmanager
async def _while_opening(ask):
    """An offer that the provider takes its time with."""
    await ask.world.faults(delay_seconds=0.5, operations=["call"], times=1)
    opening = asyncio.create_task(ask("openCall"))
    while not ask.world.emulator.requests:  # noqa: ASYNC110 - the emulator has no event for it
        await asyncio.sleep(0.01)
    yield opening


@pytest.mark.anyio
async def test_the_same_offer_at_once_is_as_described(ask):
    async with _while_opening(ask) as opening:
        refused = await ask("openCall")
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_calls")
        assert "offer" in refused.json()["detail"]
        assert (await opening).status_code == 201


@pytest.mark.anyio
async def test_a_tenant_that_is_suspended_meanwhile_is_as_described(ask):
    async with _while_opening(ask) as opening:
        await ask.world.broker._ledger.suspend("acme", suspended=True)
        refused = await opening
        assert (refused.status_code, refused.json()["code"]) == (403, "tenant_suspended")
    assert [call.state for call in ask.world.emulator.calls] == ["ended"]


@pytest.mark.anyio
async def test_users_of_a_suspended_tenant_may_still_ask_and_hang_up(ask):
    grant = (await ask.world.mint()).json()["value"]
    ask.call_path = (await ask.world.relay(grant)).headers["location"]
    await ask.world.faults(status=500, operations=["hangup"])  # so that it is not ended at once
    await ask.world.broker._ledger.suspend("acme", suspended=True)
    await asyncio.sleep(2 * leash.TICK_SECONDS)
    assert (await ask("createToken")).json()["code"] == "tenant_suspended"
    await ask.world.faults()
    for token in (None, grant):
        for operation in (*CALLING, "reportCall"):
            assert (await ask(operation, token=token)).status_code < 300
    assert (await ask("getCalls")).json() == {"calls": []}


@pytest.mark.anyio
async def test_without_redis_it_is_as_described():
    async with _asking(redis_url="redis://127.0.0.1:9/0") as ask:
        grant = (await ask.world.mint()).json()["value"]
        ask.call_path = "/sdp/rtc_that_nobody_can_look_up"
        for operation in (*OFFERING, *CALLING, "getCalls", "reportCall"):
            answer = await ask(operation)
            assert (answer.status_code, answer.json()["code"]) == (503, "degraded")
        assert (await ask("openCall", token=grant)).json()["code"] == "degraded"
        # A tenant that limits no calls may open them all the same.
        assert (await ask("openCall", token=ask.world.widgets_token())).status_code == 201


@pytest.mark.anyio
async def test_options_are_as_described(ask):
    preflight = {"origin": worlds.ORIGIN, "access-control-request-method": "POST"}
    for operation in DESCRIBING:
        plain = await ask(operation, token="")
        assert "accept-post" in plain.headers
        answer = await ask(operation, token="", headers=preflight)
        assert answer.headers["access-control-allow-origin"] == worlds.ORIGIN


@pytest.mark.anyio
async def test_health_is_as_described(ask):
    for operation in ("getHealth", "getReadiness"):
        assert (await ask(operation, token="")).status_code == 200


@pytest.mark.anyio
async def test_not_being_ready_is_as_described():
    readiness = Readiness()
    inner = Starlette(routes=health_routes(readiness, details=False))
    app = RequestContext(Cors(inner, origins=Origins), observe=lambda *_: None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for status in ("starting", "draining"):
            answer = await client.get("/readyz")
            check("GET", "/readyz", answer)
            assert (answer.status_code, answer.json()) == (503, {"status": status})
            readiness.drain()


@pytest.mark.anyio
async def test_the_contract_is_served(ask):
    assert (await ask("getContractJson", token="")).json() == DOCUMENT
    for operation in ("getContractYaml", "getDocs"):
        assert (await ask(operation, token="")).status_code == 200


@pytest.mark.anyio
async def test_what_a_browser_has_already_is_not_sent_again(ask):
    for operation in ("getDocs", "getHelper"):
        whole = await ask(operation, token="", headers={"origin": worlds.ORIGIN})
        assert whole.headers["access-control-allow-origin"] == worlds.ORIGIN  # so that its page may import it
        again = await ask(operation, token="", headers={"if-none-match": f'W/"older", {whole.headers["etag"]}'})
        assert (again.status_code, again.content) == (304, b"")
        other = await ask(operation, token="", headers={"if-none-match": '"older"'})
        assert (other.status_code, other.content) == (200, whole.content)


@pytest.mark.anyio
async def test_the_page_loads_only_its_own_files_and_holds_nothing_inline(ask):
    page = (await ask("getDocs", token="")).text
    loaded = re.findall(r'(?:src|<link[^>]* href)="([^"]+)"', page)
    assert set(loaded) == {"/docs/docs.css", "/docs/docs.js", "/docs/favicon.svg", "/docs/tokens.css"}
    for path in loaded:
        assert (await ask.world.client.get(path)).status_code == 200
    assert not re.search(r"<style|<script(?![^>]* src=)| style=| on[a-z]+=", page)


@pytest.mark.anyio
async def test_a_request_id_comes_back(ask):
    example = DOCUMENT["components"]["parameters"]["RequestId"]["example"]
    answer = await ask("getHealth", headers={"x-request-id": example})
    assert answer.headers["x-request-id"] == example
    assert (await ask("getHealth", headers={"x-request-id": "a b"})).headers["x-request-id"] != "a b"


@pytest.mark.anyio
async def test_the_examples_of_requests_work(ask):
    for operation in CREATING:
        described = DOCUMENT["paths"][OPERATIONS[operation][1]]["post"]["requestBody"]
        for wish in described["content"]["application/json"]["examples"].values():
            assert (await ask(operation, json=wish["value"])).status_code == 200
    offers = DOCUMENT["components"]["requestBodies"]["Offer"]["content"]
    offer = resolved(offers["application/sdp"]["examples"]["offer"])["value"]
    for media_type in ("application/sdp", "text/plain"):
        answer = await ask("openCall", content=offer.encode(), headers={"content-type": media_type})
        assert answer.status_code == 201
    form = offers["multipart/form-data"]["examples"]["voice"]["value"]
    answer = await ask("openCall", files=_form(form["sdp"].encode(), form["session"]))
    assert answer.status_code == 201


def test_check_refuses_what_is_not_described():
    right = {"x-request-id": "abc", "cache-control": "no-store", "vary": "Origin", "content-type": "application/json"}
    check("GET", "/healthz", httpx.Response(200, headers=right, json={"status": "ok"}))
    for wrong in (
        httpx.Response(201, headers=right, json={"status": "ok"}),
        httpx.Response(200, headers=right, json={"status": "ready"}),
        httpx.Response(200, headers=right, json={"status": "ok", "version": "1"}),
        httpx.Response(200, headers={**right, "cache-control": "public"}, json={"status": "ok"}),
        httpx.Response(200, headers={**right, "x-request-id": "a b"}, json={"status": "ok"}),
        httpx.Response(200, headers={**right, "retry-after": "5"}, json={"status": "ok"}),
        httpx.Response(200, headers={**right, "content-type": "text/html"}, text="ok"),
        httpx.Response(200, headers={"cache-control": "no-store", "vary": "Origin"}, json={"status": "ok"}),
    ):
        with pytest.raises(AssertionError):
            check("GET", "/healthz", wrong)
