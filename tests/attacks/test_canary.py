"""Everything that is secret is planted at once, everything is asked and goes wrong, and every place is looked through.

The whole suite is scanned as well (tests/support/leaks.py); this shows that each kind of place is.
"""

import json
import logging

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tests.support import keys
from tests.support import world as worlds
from tests.support.leaks import LEAKS, Leaks
from tests.support.servers import serving
from tests.support.world import OFFER
from tests.test_traces import Seen

pytestmark = pytest.mark.anyio

SUBJECT = "user-canary-of-the-mine-4c1d"
CLAIM = "canary-claim-of-a-user-77aa"
INSTRUCTIONS = "canary-instructions-of-a-caller-31f0"
OFFERED = "canary-line-of-an-offer-9e02"
REQUEST_ID = "canary-request-0815"
SECRET = "ek_canary-between-two-requests-5d20"
AZURE = "https://acme.openai.azure.com/openai/v1"
PLACES = {"answer", "header", "log", "audit", "metric", "trace"}


class Listener(logging.Handler):
    def __init__(self, leaks: Leaks, formatter: logging.Formatter | None) -> None:
        super().__init__()
        self._leaks = leaks
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        self._leaks.saw("log", self.format(record))


@pytest.fixture
def leaks():
    """A scan of its own, with the world's secrets and this test's."""
    made = Leaks()
    for value, kind in LEAKS.secrets.items():
        if not kind.startswith("JWT"):
            made.plant(kind, value)
    for kind, value in {"subject": SUBJECT, "claim": CLAIM, "instructions": INSTRUCTIONS, "offer": OFFERED}.items():
        made.plant(kind, value)
        LEAKS.plant(kind, value)
    listener = Listener(made, logging.getLogger().handlers[0].formatter)
    logging.getLogger().addHandler(listener)
    yield made
    logging.getLogger().removeHandler(listener)


async def _echo(request: Request) -> JSONResponse:
    """A provider whose errors hold whatever it was sent: key, session and offer."""
    told = f"{dict(request.headers)} {(await request.body()).decode()}"
    error = {"message": told, "type": "invalid_request_error", "code": told[:300], "param": told[:300]}
    status = int(request.headers.get("x-status", "400"))
    return JSONResponse(
        {"error": error}, status, {"x-request-id": told[:100].encode("latin-1", "replace").decode("latin-1")}
    )


def _form(session) -> dict[str, tuple[None, bytes, str]]:
    offer = OFFER.replace(b"s=-", b"s=" + OFFERED.encode())
    return {
        "sdp": (None, offer, "application/sdp"),
        "session": (None, json.dumps(session).encode(), "application/json"),
    }


async def _ask_everything(world, leaks: Leaks) -> None:
    """Good and bad requests of every kind, and how each is answered."""
    claims = {"sub": SUBJECT, "name": CLAIM, "plan": "pro", "email": CLAIM}
    good = world.token(**claims)
    strangers = [
        good,
        good[:-4],
        keys.sign(keys.claims(**claims), keys.private_key("RSA", "other"), kid="rsa-1"),
        world.token(**claims, aud=CLAIM),
        world.token(**claims, iss=f"https://{CLAIM}/"),
        world.token(**claims, org_id=CLAIM),
        world.token(**claims, exp=1),
        f"ek_swb_{CLAIM}",
        worlds.API_KEY,
        worlds.ADMIN_TOKEN,
    ]
    session = {"instructions": INSTRUCTIONS}
    for token in strangers:
        leaks.plant("JWT", token[-40:])
        headers = {"authorization": f"Bearer {token}", "x-request-id": REQUEST_ID, "user-agent": "tests"}
        for method, path, content in (
            ("GET", "/token", {}),
            ("GET", "/token?preset=expert", {}),
            ("POST", "/token", {"json": {"session": session}}),
            ("POST", "/token", {"json": {"preset": "expert", "session": session}}),
            ("POST", "/token", {"json": {"preset": "expert", "session": {"tools": [INSTRUCTIONS], "voice": OFFERED}}}),
            ("POST", "/token", {"content": b"{" + INSTRUCTIONS.encode()}),
            ("POST", "/sdp?preset=expert", {"files": _form(session)}),
            ("POST", "/sdp", {"files": _form({})}),
            ("POST", "/v1/realtime/calls", {"files": _form({"tools": [{"type": "mcp", "authorization": CLAIM}]})}),
            ("GET", "/calls", {}),
            ("GET", f"/sdp/{CLAIM}", {}),
            ("DELETE", f"/sdp/{CLAIM}", {}),
            ("POST", "/report", {"json": {"event": INSTRUCTIONS}}),
        ):
            answer = await world.client.request(method, path, headers=headers, **content)
            value = answer.json().get("value", "") if answer.headers.get("content-type") == "application/json" else ""
            body = answer.text.replace(value, "[meant for this answer]") if value else answer.text
            if value:
                leaks.plant("client secret or grant", value)
            leaks.saw("answer", body)
            leaks.saw("header", f"{answer.status_code} {answer.headers.raw}")


async def _look_everywhere(world, seen: Seen, leaks: Leaks) -> None:
    for accept in ("text/plain", "application/openmetrics-text; version=1.0.0"):
        leaks.saw("metric", (await world.ops.get("/metrics", headers={"accept": accept})).text)
    leaks.saw("answer", (await world.ops.get("/readyz")).text)
    for record in world.records:
        leaks.saw("audit", json.dumps(record))
    for span in seen.finished:
        leaks.saw("trace", span.to_json())


@pytest.mark.parametrize("provider", ["as it should", "one that echoes", "one that fails"])
async def test_nothing_that_is_planted_is_said_anywhere(leaks, monkeypatch, provider):
    seen = Seen()
    policy = worlds.example()
    policy["tenants"]["acme"]["limits"] = {"user": ["1000/minute"], "call_seconds": 900}
    policy["tenants"]["acme"].pop("limits_by")
    async with serving(Starlette(routes=[Route("/{path:path}", _echo, methods=["GET", "POST"])])) as echoing:
        if provider == "one that echoes":
            configured = worlds._config
            monkeypatch.setattr(worlds, "_config", lambda tree, key_server, _: configured(tree, key_server, echoing))
        async with worlds.world(policy, tracing=seen.spans) as world:
            if provider == "one that fails":
                await world.faults(status=500)
            await _ask_everything(world, leaks)
            await _look_everywhere(world, seen, leaks)
            outcomes = {record["outcome"] for record in world.records}
    assert leaks.found() == []
    assert outcomes == {"allowed", "denied", "error"} if provider != "as it should" else {"allowed", "denied"}
    # The scan sees every place: what is no secret is found in each of them.
    leaks.plant("request id", REQUEST_ID)
    assert {line.partition(" in ")[2].partition(":")[0] for line in leaks.found()} == PLACES


async def test_the_secret_between_two_requests_is_said_nowhere(leaks, monkeypatch):
    """Where a provider takes an offer by a client secret alone, one is minted that nobody else gets."""
    seen, statuses = Seen(), [400, 401, 403, 404, 500, 201]
    for one in (leaks, LEAKS):
        one.plant("client secret", SECRET)

    async def mint(_: Request) -> JSONResponse:
        return JSONResponse({"value": SECRET, "expires_at": 9, "session": {"type": "realtime", "model": SECRET}})

    async def call(request: Request) -> JSONResponse:
        told = request.headers["authorization"]
        error = {"message": told, "type": told, "code": told, "param": told}
        return JSONResponse({"error": error}, statuses.pop(0), {"retry-after": told})

    policy = worlds.example()
    policy["providers"]["openai"] = {"kind": "azure", "base_url": AZURE, "keys": ["env:OPENAI_API_KEY"]}
    routes = [Route(f"/openai/v1/realtime/{path}", ask, methods=["POST"]) for path, ask in
              (("client_secrets", mint), ("calls", call))]  # fmt: skip
    async with serving(Starlette(routes=routes)) as telling:
        configured, base_url = worlds._config, f"{telling}/openai/v1"
        monkeypatch.setattr(worlds, "_config", lambda tree, key_server, _: configured(tree, key_server, base_url))
        async with worlds.world(policy, tracing=seen.spans) as world:
            while statuses:
                answer = await world.relay()
                leaks.saw("answer", answer.text)
                leaks.saw("header", f"{answer.status_code} {answer.headers.raw}")
            await _look_everywhere(world, seen, leaks)
            assert {record["outcome"] for record in world.records} == {"error"}
    assert leaks.found() == []


@pytest.mark.parametrize("place", sorted(PLACES))
def test_each_kind_is_found_in_each_place(leaks, place):
    for value, kind in list(leaks.secrets.items()):
        alone = Leaks()
        alone.plant(kind, value)
        alone.saw(place, f"before {value} behind")
        assert len(alone.found()) == 1, kind
    assert {"API key", "signing key", "user key secret", "audit key", "admin token", "shared secret"} < set(
        leaks.secrets.values()
    )
    assert {"subject", "instructions", "offer", "claim"} < set(leaks.secrets.values())
