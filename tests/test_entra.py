"""A service that is somebody at Entra ID: what callers, operators and a reload meet, with a token and without."""

import asyncio
import json
import logging
import sys

import pytest
from starlette.responses import Response

from switchboard.app import providers as upstreams
from switchboard.app.needs import CannotServe
from switchboard.config import schema
from switchboard.config.secrets import Secrets
from switchboard.errors import ProviderUnavailable
from switchboard.metrics import Metrics
from switchboard.providers import azure
from switchboard.providers.transport import PyreqwestTransport
from tests.support import identity as identities
from tests.support import world as worlds
from tests.support.contract import check
from tests.support.identity import IDENTITY_HEADER, Identity
from tests.support.world import example

pytestmark = pytest.mark.anyio

BY_TOKEN = {"kind": "azure", "base_url": "https://acme.openai.azure.com/openai/v1", "entra": True}


@pytest.fixture
async def identity(monkeypatch):
    monkeypatch.setattr(azure, "AGAIN_SECONDS", 0.02)
    async with Identity().running() as running:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{running.url}/msi")
        monkeypatch.setenv("IDENTITY_HEADER", IDENTITY_HEADER)
        monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
        yield running


def at_azure():
    tree = example()
    tree["providers"]["openai"] = BY_TOKEN
    return worlds.world(tree, emulated={"azure": True})


async def until(condition):
    async with asyncio.timeout(5):
        while not await condition():  # noqa: ASYNC110 - what is watched is a metric
            await asyncio.sleep(0.01)


async def test_the_first_caller_finds_a_token(identity):
    async with at_azure() as world:
        answer = await world.relay()
        assert answer.status_code == 201
        minted, _ = world.emulator.requests
        assert minted.headers["authorization"] == f"Bearer {identity.given[0]}"
        assert (await world.client.delete(answer.headers["location"], headers=world.auth())).status_code == 200
        assert len(identity.asked) == 1


async def test_without_a_token_nothing_is_sent_and_no_grant_is_lost(identity, caplog):
    identity.status = 400
    async with at_azure() as world:
        grant = (await world.mint()).json()["value"]
        for _ in range(8):
            refused = await world.relay(grant)
            assert (refused.status_code, refused.json()["code"]) == (502, "provider_unavailable")
            check("POST", "/sdp", refused)
        assert not world.emulator.requests
        aside = {"provider": "openai", "key": "entra"}
        assert await world.metric("switchboard_provider_key_set_aside", **aside) == 1
        identity.status = 200

        async def is_back():
            return await world.metric("switchboard_provider_key_set_aside", **aside) == 0

        await until(is_back)
        assert (await world.relay(grant)).status_code == 201
    told = [one.msg for one in caplog.records if one.name == "switchboard" and isinstance(one.msg, dict)]
    assert [(one["event"], one["level"]) for one in told] == [
        ("Entra ID gives no token; the last one is used until it ends", "warning"),
        ("a provider key has a new value", "info"),
    ]
    assert "AADSTS90002" in told[0]["reason"]
    assert not [one for one in caplog.records if one.name.startswith("azure") and one.levelno >= logging.INFO]


async def test_a_variable_that_the_library_does_not_understand_is_told_once(identity, monkeypatch, caplog):
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentity")
    async with at_azure() as world:
        await asyncio.sleep(0.1)
        assert (await world.relay()).json()["code"] == "provider_unavailable"
    (told,) = [one.msg for one in caplog.records if one.name == "switchboard" and isinstance(one.msg, dict)]
    assert "AZURE_TOKEN_CREDENTIALS" in told["reason"]


async def test_a_token_in_an_answer_that_makes_no_sense_is_not_told(identity, monkeypatch, caplog):
    """azure-core quotes the whole answer."""
    token = identities.token()

    async def without_its_end(**_):
        return Response(json.dumps({"access_token": token, "token_type": "Bearer"}, indent="\t"))

    monkeypatch.setattr(identity, "_answer", without_its_end)
    async with at_azure() as world:
        assert (await world.relay()).json()["code"] == "provider_unavailable"
    (told,) = [one.msg for one in caplog.records if one.name == "switchboard" and isinstance(one.msg, dict)]
    assert "ManagedIdentityCredential: Unexpected response" in told["reason"]
    assert token[:20] not in str(told), "before the log's own last line of defence"


async def test_a_reload_goes_on_with_the_token_of_the_day(identity):
    """What a thread has read of the policy may be older than the token is."""
    async with PyreqwestTransport() as transport:
        made = upstreams.Upstreams(transport, lambda inner, _: inner, Metrics(max_tenants=1), timeout=1.0)
        policy = {"azure": schema.Provider.model_validate(BY_TOKEN)}
        running = asyncio.create_task(made.keep_token())
        read = upstreams.read(policy, Secrets({}))
        with pytest.raises(ProviderUnavailable):
            made.of(read)["azure"].check_available()
        await made.first_token()
        made.of(read)["azure"].check_available()
        running.cancel()
        await asyncio.wait([running])


def test_without_the_library_a_policy_that_needs_it_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "azure.identity.aio", None)
    policy = {"azure": schema.Provider.model_validate(BY_TOKEN)}
    with pytest.raises(CannotServe, match=r"realtime-switchboard\[azure\]"):
        upstreams.read(policy, Secrets({}))
