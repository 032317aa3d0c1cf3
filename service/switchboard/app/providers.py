"""Providers from a policy, and what outlives it: which keys are set aside, which provider is down, what keys were."""

import asyncio
from collections.abc import Callable, Iterable, Mapping

import structlog

from switchboard.config import schema
from switchboard.config.secrets import SecretMissing, Secrets
from switchboard.metrics import Metrics
from switchboard.providers import Provider
from switchboard.providers.account import Accounts, Listed
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
from switchboard.providers.transport import ObservedTransport, Transport

LOOK_SECONDS = 2.0  # between two looks at the files of keys: they are small, and few
FILE = "file:"

_log = structlog.get_logger("switchboard")


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

    def of(self, listed: Mapping[str, Listed]) -> dict[str, Provider]:
        """The providers by name, with what is known of their accounts."""
        return {
            name: OpenAI(base_url=listed[name].base_url, account=account, transport=self._transport_to(name))
            for name, account in self._accounts.of(listed).items()
        }

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


def read(providers: Mapping[str, schema.Provider], secrets: Secrets) -> dict[str, Listed]:
    """The providers of a policy with the values of their keys; reads files.

    Raises:
        SecretMissing: a reference leads to nothing.
    """
    return {
        name: Listed(
            provider.base_url,
            [ProviderKey(reference, secrets.credential(reference)) for reference in provider.keys],
        )
        for name, provider in providers.items()
    }


def _read_files(secrets: Secrets, names: Iterable[str]) -> tuple[list[ProviderKey], dict[str, str]]:
    """The keys behind these names, and what is wrong with the others."""
    keys, problems = [], {}
    for name in names:
        try:
            keys.append(ProviderKey(name, secrets.credential(name)))
        except SecretMissing as error:
            problems[name] = str(error)
    return keys, problems
