"""Providers from a policy, and what outlives it: which keys are set aside, which provider is down, what keys were."""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module

import structlog

from switchboard.app.needs import CannotServe
from switchboard.config import schema
from switchboard.config.secrets import SecretMissing, Secrets
from switchboard.metrics import Metrics
from switchboard.providers import Provider, azure
from switchboard.providers.account import Accounts, Listed
from switchboard.providers.azure import Entra
from switchboard.providers.dialect import OPENAI, Dialect
from switchboard.providers.events import (
    AccountDropped,
    AccountListed,
    BreakerClosed,
    BreakerOpened,
    Happening,
    KeyBack,
    KeyChanged,
    KeyDropped,
    KeyListed,
    KeySetAside,
    TriedAgain,
)
from switchboard.providers.keys import ProviderKey
from switchboard.providers.openai import OpenAI
from switchboard.providers.transport import ObservedTransport, PyreqwestTransport, Transport, Unusable
from switchboard.settings import Settings

LOOK_SECONDS = 2.0  # between two looks at the files of keys: they are small, and few
FIRST_TOKEN_SECONDS = 5.0  # that a start waits for one; without it, callers are refused until it comes
MOST_CHARACTERS = 2000  # of a line on why there is no token: azure-identity names each place that it has asked
# What azure-core adds to its own words: the whole body of an answer, which may hold a token all the same.
ANSWERED = re.compile(r"\nContent: .*?(?=\n\t\w+Credential\b|\nTo mitigate|\Z)", re.DOTALL)
FILE = "file:"

_log = structlog.get_logger("switchboard")


@dataclass(frozen=True, slots=True)
class Upstream:
    """A provider as a policy lists it, and how it is spoken to."""

    listed: Listed
    dialect: Dialect


class Upstreams:
    """Builds the providers of a policy.

    One for a process, however often its configuration is reloaded: see `Accounts` for what lasts. A reload calls `read`
    where it may block, and then `of`, on the event loop, when it is certain that the new policy will be used. A
    provider that the new policy lacks still hangs up, for as long as somebody holds it.

    Args:
        transport: posts.
        traced: puts spans around what posts to the provider of this name.
        metrics: shows what happens to accounts.
        timeout: seconds for one request, all tries together.
    """

    def __init__(
        self, transport: Transport, traced: Callable[[Transport, str], Transport], metrics: Metrics, *, timeout: float
    ) -> None:
        self._transport = transport
        self._traced = traced
        self._metrics = metrics
        self._accounts = Accounts(timeout=timeout, observe=self._observe)
        self._entra = Entra(
            azure.open_credential, on_key=lambda key: self._accounts.learn([key]), on_failure=_tell_of_no_token
        )

    def of(self, upstreams: Mapping[str, Upstream]) -> dict[str, Provider]:
        """The providers by name, with what is known of their accounts."""
        accounts = self._accounts.of({name: self._with_token(upstream) for name, upstream in upstreams.items()})
        return {
            name: OpenAI(
                base_url=upstreams[name].listed.base_url,
                account=account,
                transport=self._transport_to(name),
                dialect=upstreams[name].dialect,
            )
            for name, account in accounts.items()
        }

    async def keep_token(self) -> None:
        """Have a token of Entra ID at hand, for ever, once a policy wants one."""
        await self._entra.run()

    async def first_token(self) -> None:
        """Wait for one, if it is wanted, but not for long: nobody else need wait for whoever does not give one."""
        await self._entra.tried(seconds=FIRST_TOKEN_SECONDS)

    async def follow_files(self, secrets: Secrets) -> None:
        """Read the files of keys again and again, for ever, so that a new key needs no restart.

        What cannot be read, or is no key, leaves the value as it was; that is logged once.
        """
        ill: set[str] = set()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            names = sorted(name for name in self._accounts.names_in_use() if name.startswith(FILE))
            keys, problems = await asyncio.to_thread(_read_files, secrets, names) if names else ([], {})
            self._accounts.learn(keys)
            for name in problems.keys() - ill:
                _log.warning(
                    "the file of a provider key cannot be used; the key stays as it was", reason=problems[name]
                )
            ill = set(problems)

    def _with_token(self, upstream: Upstream) -> Listed:
        """With the token as it is now: it may have been renewed since the policy was read."""
        if upstream.dialect is not azure.BY_TOKEN:
            return upstream.listed
        self._entra.want()
        return replace(upstream.listed, keys=[self._entra.key])

    def _transport_to(self, provider: str) -> Transport:
        def observe(operation: str, status: str, seconds: float) -> None:
            self._metrics.observe_provider(provider, operation, status, seconds)

        return self._traced(ObservedTransport(self._transport, observe), provider)

    def _observe(self, provider: str, happening: Happening) -> None:
        self._show(provider, happening)
        _tell(provider, happening)

    def _show(self, provider: str, happening: Happening) -> None:
        metrics = self._metrics
        match happening:
            case TriedAgain(operation, why):
                metrics.observe_provider_retry(provider, operation, why)
            case KeyListed(key, is_set_aside):
                metrics.observe_key(provider, key, set_aside=is_set_aside)
            case KeySetAside(key):
                metrics.observe_key(provider, key, set_aside=True)
            case KeyBack(key) | KeyChanged(key) | KeyDropped(key):
                metrics.observe_key(provider, key, set_aside=False)
            case AccountListed(is_down):
                metrics.observe_breaker(provider, is_open=is_down)
            case BreakerOpened():
                metrics.observe_breaker(provider, is_open=True)
            case BreakerClosed() | AccountDropped():
                metrics.observe_breaker(provider, is_open=False)


def _tell(provider: str, happening: Happening) -> None:
    match happening:
        case KeySetAside(key, why, seconds):
            _log.warning("a provider key is set aside", provider=provider, key=key, reason=why, seconds=seconds)
        case KeyBack(key):
            _log.warning("a provider key is used again", provider=provider, key=key)
        case KeyChanged(key):
            _log.info("a provider key has a new value", provider=provider, key=key)
        case BreakerOpened(why, again=False):  # a line for each outage, not for each probe
            _log.warning("a provider is down; callers are refused at once", provider=provider, reason=why)
        case BreakerClosed(seconds):
            _log.warning("a provider answers again", provider=provider, seconds=round(seconds, 3))


def _tell_of_no_token(error: Exception) -> None:
    reason = " ".join(ANSWERED.sub("", f"{type(error).__name__}: {error}").split())[:MOST_CHARACTERS]
    _log.warning("Entra ID gives no token; the last one is used until it ends", reason=reason)


def read(providers: Mapping[str, schema.Provider], secrets: Secrets) -> dict[str, Upstream]:
    """The providers of a policy with the values of their keys; reads files.

    Raises:
        SecretMissing: a reference leads to nothing.
        CannotServe: a library is not installed.
    """
    if any(provider.entra for provider in providers.values()):
        _import_identity()
    return {
        name: Upstream(
            Listed(
                provider.base_url,
                [ProviderKey(reference, secrets.credential(reference)) for reference in provider.keys],
            ),
            _dialect_of(provider),
        )
        for name, provider in providers.items()
    }


def _dialect_of(provider: schema.Provider) -> Dialect:
    if provider.kind == "openai":
        return OPENAI
    return azure.BY_TOKEN if provider.entra else azure.BY_KEY


def transport_of(settings: Settings) -> PyreqwestTransport:
    """The client to all providers.

    Raises:
        CannotServe: what the environment says of authorities or proxies is of no use.
    """
    try:
        return PyreqwestTransport(http2=settings.provider_http2)
    except Unusable as error:
        raise CannotServe(str(error)) from None


def _import_identity() -> None:
    """Here, where it may take its time; the event loop finds it done."""
    try:
        import_module("azure.identity.aio")
    except ImportError:
        raise CannotServe("`entra: true` needs azure-identity: install realtime-switchboard[azure]") from None


def _read_files(secrets: Secrets, names: Iterable[str]) -> tuple[list[ProviderKey], dict[str, str]]:
    """The keys behind these names, and what is wrong with the others."""
    keys, problems = [], {}
    for name in names:
        try:
            keys.append(ProviderKey(name, secrets.credential(name)))
        except SecretMissing as error:
            problems[name] = str(error)
    return keys, problems
