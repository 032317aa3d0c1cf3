"""A token of Entra ID, by azure-identity itself from a managed identity's endpoint: at hand, renewed, and gone."""

import asyncio
import time

import pytest
from azure.core.credentials import AccessToken

from switchboard.errors import ProviderUnavailable
from switchboard.providers import azure
from switchboard.providers.account import Accounts, Listed
from switchboard.providers.azure import Entra
from switchboard.providers.events import AccountListed, Happening, KeyChanged, KeyListed, KeySetAside
from switchboard.providers.openai import OpenAI
from switchboard.providers.transport import PyreqwestTransport
from tests.support.identity import AUDIENCE, IDENTITY_HEADER, Identity

pytestmark = pytest.mark.anyio


@pytest.fixture
async def identity(monkeypatch):
    async with Identity().running() as running:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{running.url}/msi")
        monkeypatch.setenv("IDENTITY_HEADER", IDENTITY_HEADER)
        # Else the default chain would go on to the tools of whoever runs this.
        monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
        yield running


class Kept:
    """An `Entra` at work, an account that uses its key, and what those who watch heard."""

    def __init__(self):
        self.seen: list[Happening] = []
        self.failures: list[Exception] = []
        self.accounts = Accounts(timeout=2, observe=lambda _, happening: self.seen.append(happening))
        self.entra = Entra(
            azure.open_credential,
            on_key=lambda key: self.accounts.learn([key]),
            on_failure=self.failures.append,
        )
        self.account = self.accounts.of({"azure": Listed("https://x.example/openai/v1", [self.entra.key])})["azure"]

    async def until(self, condition):
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - what is watched is a library's doing
                await asyncio.sleep(0.005)


@pytest.fixture
async def kept(identity, monkeypatch):
    monkeypatch.setattr(azure, "AGAIN_SECONDS", 0.02)
    made = Kept()
    running = asyncio.create_task(made.entra.run())
    yield made
    running.cancel()
    await asyncio.wait([running])


async def test_nobody_is_asked_until_a_policy_wants_a_token(identity, kept):
    await kept.entra.tried(seconds=5)
    await asyncio.sleep(0.05)
    assert identity.asked == []


async def test_a_token_is_at_hand_and_nobody_else_is_asked(identity, kept):
    kept.entra.want()
    await kept.entra.tried(seconds=5)
    assert kept.entra.key.value == identity.given[0]
    assert [key.value for key in kept.account.keys_of("entra")] == identity.given
    kept.account.check_available()
    await asyncio.sleep(0.1)
    assert identity.asked == [{"api-version": "2019-08-01", "resource": AUDIENCE, "header": IDENTITY_HEADER}]
    assert kept.seen == [KeyListed("entra", is_set_aside=True), AccountListed(is_down=False), KeyChanged("entra")]


async def test_it_is_renewed_and_the_former_one_forgotten(identity, kept):
    """A token of Entra ID ends no calls that another would not: it is not asked for all of them, as for other keys."""
    identity.seconds = 1
    kept.entra.want()
    await kept.until(lambda: identity.given)
    identity.seconds = 3600
    await kept.until(lambda: len(identity.given) == 2 and kept.entra.key.value == identity.given[1])
    assert [key.value for key in kept.account.keys_of("entra")] == identity.given[1:]
    assert kept.seen[2:] == [KeyChanged("entra")] * 2
    assert kept.failures == []


@pytest.mark.parametrize(("token_seconds", "wait"), [(3600, 3360), (250, 10), (100, 5)])
async def test_when_it_is_renewed(token_seconds, wait, monkeypatch):
    """No clock of a test goes that fast: what it would sleep is looked at, of a credential that is a plain function."""
    waits = []

    class Given:
        async def __aenter__(self):
            return self

        async def __aexit__(self, *_):
            pass

        async def get_token(self, *scopes):
            assert scopes == ("https://ai.azure.com/.default",)
            return AccessToken("t", 1000 + token_seconds)

    async def sleep(seconds):
        waits.append(seconds)
        raise asyncio.CancelledError

    monkeypatch.setattr("switchboard.providers.azure.asyncio.sleep", sleep)
    entra = Entra(Given, on_key=lambda _: None, on_failure=lambda _: None, clock=lambda: 1000.0)
    entra.want()
    with pytest.raises(asyncio.CancelledError):
        await entra.run()
    assert waits == [wait]


async def test_without_a_token_nothing_is_sent(identity, kept):
    identity.status = 400
    kept.entra.want()
    await kept.entra.tried(seconds=5)
    with pytest.raises(ProviderUnavailable) as refused:
        kept.account.check_available()
    assert refused.value.untried
    assert len(kept.failures) == 1, "told again with each try"
    identity.status = 200
    await kept.until(lambda: kept.entra.key.value)
    kept.account.check_available()


async def test_a_token_that_cannot_be_renewed_is_used_until_it_ends(identity, kept):
    identity.seconds = 1
    kept.entra.want()
    await kept.until(lambda: kept.entra.key.value)
    identity.status = 400
    await asyncio.sleep(0.05)
    kept.account.check_available()
    await kept.until(lambda: not kept.entra.key.value)
    with pytest.raises(ProviderUnavailable):
        kept.account.check_available()
    assert kept.account.keys_of("entra"), "its calls still belong to it"
    assert kept.seen[2:] == [KeyChanged("entra"), KeySetAside("entra", "no_token", 0.0)]


async def test_who_does_not_answer_is_not_waited_for(identity, kept):
    identity.delay = 5
    kept.entra.want()
    started = time.perf_counter()
    await kept.entra.tried(seconds=0.05)
    assert time.perf_counter() - started < 1
    with pytest.raises(ProviderUnavailable):
        kept.account.check_available()


async def test_without_a_token_no_call_can_be_ended(kept):
    """Which is the provider's not being there, to who tries it again."""
    async with PyreqwestTransport() as transport:
        provider = OpenAI(
            base_url="https://x.example", account=kept.account, transport=transport, dialect=azure.BY_TOKEN
        )
        with pytest.raises(ProviderUnavailable):
            await provider.hang_up("rtc_1", key_name="entra", request_id="r-1")
