"""Azure OpenAI: OpenAI's API below a resource's own address, where an offer is taken with a client secret alone.

Sources: learn.microsoft.com, "Use the GPT Realtime API via WebRTC" and the v1 REST reference; recorded exchanges of
July 2026. What `OpenAI` does is the same here; this is how it is said, and the token that may stand for a key.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from types import MappingProxyType
from typing import Protocol, TypeAlias

from switchboard.providers.dialect import TRANSLATION, Dialect, Route
from switchboard.providers.keys import ProviderKey

_SPEECH = Route(by_secret=True)  # 401 with anything else

BY_KEY = Dialect(
    MappingProxyType({"realtime": _SPEECH, "transcription": _SPEECH, "translation": TRANSLATION}),
    key_header="api-key",
    key_prefix="",
    hiding="webrtcfilter=on",
)
BY_TOKEN = replace(BY_KEY, key_header="authorization", key_prefix="Bearer ")

SCOPE = "https://ai.azure.com/.default"
TOKEN = "entra"  # noqa: S105 - the name of the key that stands for a token
# Before a token's end, from then on another is asked for. azure-identity gives the same one until 300 s before.
EARLY_SECONDS = 240.0
AGAIN_SECONDS = 5.0  # between two tries
FETCH_SECONDS = 30.0  # for one: it may ask several places, one after the other


class Token(Protocol):
    """An access token; `expires_on` in unix seconds."""

    @property
    def token(self) -> str: ...
    @property
    def expires_on(self) -> int: ...


class Credential(Protocol):
    """Gets tokens: what azure-identity calls an asynchronous credential."""

    async def get_token(self, *scopes: str) -> Token:
        """A token, perhaps one that it has given before. Raises what it likes."""


OpenCredential: TypeAlias = Callable[[], AbstractAsyncContextManager[Credential]]


class Entra:
    """Keeps a token of this process's identity at hand, so that no request waits for Entra ID.

    Failure policy: a token that could not be renewed is used until it ends, then there is none, and the key that stands
    for it has no value: nothing is sent to the provider.

    Args:
        open_credential: where tokens come from.
        on_key: told of each new token, and when there is none any more.
        on_failure: told why there is no new one, once for each outage.
        clock: unix seconds.
    """

    def __init__(
        self,
        open_credential: OpenCredential,
        *,
        on_key: Callable[[ProviderKey], None],
        on_failure: Callable[[Exception], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._open_credential = open_credential
        self._on_key = on_key
        self._on_failure = on_failure
        self._clock = clock
        self._expires_on = 0.0
        self._is_ill = False
        self._wanted = asyncio.Event()
        self._tried = asyncio.Event()
        self.key = ProviderKey(TOKEN, "", renews=True)
        """What is at hand."""

    def want(self) -> None:
        """Some provider is asked with it from now on."""
        self._wanted.set()

    async def tried(self, *, seconds: float) -> None:
        """Wait, so long at most, until there is a token or none is to be had, if one is wanted at all."""
        if self._wanted.is_set():
            try:
                await asyncio.wait_for(self._tried.wait(), seconds)
            except TimeoutError:
                return

    async def run(self) -> None:
        """Renew it for ever, once it is wanted."""
        await self._wanted.wait()
        while True:
            try:
                async with self._open_credential() as credential:
                    await self._keep(credential)
            except Exception as error:  # noqa: BLE001 - a variable of its own that it does not understand
                self._failed(error)
            await asyncio.sleep(AGAIN_SECONDS)

    async def _keep(self, credential: Credential) -> None:
        while True:
            try:
                async with asyncio.timeout(FETCH_SECONDS):
                    token = await credential.get_token(SCOPE)
            except Exception as error:  # noqa: BLE001 - whatever the library raises, there is no token
                self._failed(error)
            else:
                self._is_ill = False
                self._use(token.token, token.expires_on)
            await asyncio.sleep(max(AGAIN_SECONDS, self._expires_on - self._clock() - EARLY_SECONDS))

    def _failed(self, error: Exception) -> None:
        if not self._is_ill:
            self._on_failure(error)
        self._is_ill = True
        if self._clock() >= self._expires_on:
            self._use("", 0.0)

    def _use(self, value: str, expires_on: float) -> None:
        self._tried.set()
        self._expires_on = expires_on
        if value != self.key.value:
            self.key = replace(self.key, value=value)
            self._on_key(self.key)


def open_credential() -> AbstractAsyncContextManager[Credential]:
    """azure-identity's default: environment, workload identity, managed identity, then tools of developers.

    Raises:
        ImportError: the extra `azure` is not installed.
    """
    from azure.identity.aio import DefaultAzureCredential  # noqa: PLC0415 - an extra, and slow to import

    return DefaultAzureCredential()
