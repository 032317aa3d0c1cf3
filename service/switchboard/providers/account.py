"""An account at a provider: requests go out with a key that it takes, are tried again where that does no harm, and are
not sent at all while it is down. What one provider shares with the next; each brings its own requests and answers.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt, stop_before_delay
from tenacity.wait import wait_random_exponential

from switchboard.errors import ProviderError, ProviderTimeout
from switchboard.providers.breaker import Breaker
from switchboard.providers.events import AccountDropped, AccountListed, Happening, Observe, TriedAgain
from switchboard.providers.keys import KeyRefused, Keys, ProviderKey

TRIES = 3  # of one request, the first included, as the provider's own SDKs do
# Between two of them, in seconds: at random, so that those who failed together do not come back together.
BACKOFF = wait_random_exponential(multiplier=0.25, min=0.05, max=2.0)
ROOM_SECONDS = 1.0  # with less time than that for its answer, nothing is sent again

T = TypeVar("T")

Attempt: TypeAlias = Callable[[ProviderKey, float], Awaitable[T]]
"""Sends a request once, with this key, and gives its answer within so many seconds.

It raises `KeyRefused`, or a refusal whose `again_after` and `untried` say what may be done about it.
"""


class Account:
    """Asks a provider, as its policy has it.

    Args:
        names: of the keys that open calls, in the order of preference.
        keys: what is known of them.
        breaker: of this provider.
        timeout: seconds for all tries together.
        observe: hears of tries.
        clock: seconds that only grow.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        keys: Keys,
        breaker: Breaker,
        timeout: float,
        observe: Observe,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._names = tuple(names)
        self._keys = keys
        self._breaker = breaker
        self._timeout = timeout
        self._room = min(ROOM_SECONDS, timeout / 4)
        self._observe = observe
        self._clock = clock
        self._sleep = sleep

    async def ask(self, attempt: Attempt[T], *, operation: str) -> T:
        """The answer to a request, after a few tries at most, each within what is left of the time.

        Args:
            attempt: sends it.
            operation: what it is for, for those who watch.

        Raises:
            ProviderBusy: the provider is down, or asks for patience.
            ProviderUnavailable: it takes none of the keys.
            Refusal: what the last try raised.
        """
        end = self._clock() + self._timeout
        try:
            return await self._try(attempt, operation, end)
        except ProviderError as error:
            if not self._may_be_sent_again(error):
                raise
            return await self._try_again(error, attempt, operation, end)

    def check_available(self) -> None:
        """Whether a request would be sent now.

        Raises:
            ProviderBusy: the provider is down.
            ProviderUnavailable: it takes none of the keys.
        """
        self._breaker.check()
        self._keys.first(self._names, ())

    def keys_of(self, name: str) -> Sequence[ProviderKey]:
        """A key that opens calls or did, whatever its standing; and what it was before, while such calls may go on."""
        return self._keys.values_of(name)

    def first_key(self) -> ProviderKey:
        """The key that the policy puts first."""
        return self._keys.values_of(self._names[0])[0]

    async def _try_again(self, failure: ProviderError, attempt: Attempt[T], operation: str, end: float) -> T:
        """What remains of the tries: the first was made without the library, which takes longer than all else here."""
        made = [failure]

        async def go_on() -> T:
            if made:
                raise made.pop()
            return await self._try(attempt, operation, end)

        tries = AsyncRetrying(
            retry=retry_if_exception(self._may_be_sent_again),
            stop=stop_after_attempt(TRIES) | stop_before_delay(end - self._clock() - self._room),
            wait=_wait,
            before_sleep=partial(self._tell, operation),
            sleep=self._sleep,
            reraise=True,
        )
        answer: T = await tries(go_on)
        return answer

    async def _try(self, attempt: Attempt[T], operation: str, end: float) -> T:
        """With the first key that the provider takes: one that it refuses opened nothing."""
        refused: list[str] = []
        why, provider_request_id = "", None
        while True:
            try:
                standing = self._keys.first(self._names, refused)
            except ProviderError as none_left:
                none_left.provider_request_id = provider_request_id
                raise
            left = end - self._clock()
            if refused and left < self._room:
                raise _too_late(why, provider_request_id)
            try:
                with self._breaker.guard(), self._keys.trying(standing) as key:
                    if refused:
                        self._observe(TriedAgain(operation, why))
                    return await attempt(key, left)
            except KeyRefused as refusal:
                refused.append(standing.key.name)
                why, provider_request_id = refusal.why, refusal.provider_request_id

    def _may_be_sent_again(self, error: BaseException) -> bool:
        """Not to a provider that has just been found down: that is left to those who probe it."""
        return isinstance(error, ProviderError) and error.again_after is not None and not self._breaker.is_open

    def _tell(self, operation: str, state: RetryCallState) -> None:
        self._observe(TriedAgain(operation, _error_of(state).cause))


def _too_late(why: str, provider_request_id: str | None) -> ProviderTimeout:
    error = ProviderTimeout()
    error.untried, error.cause, error.provider_request_id = True, why, provider_request_id
    return error


def _wait(state: RetryCallState) -> float:
    """What the provider asks for, and a moment more."""
    return (_error_of(state).again_after or 0.0) + BACKOFF(state)


def _error_of(state: RetryCallState) -> ProviderError:
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, ProviderError)  # noqa: S101 - nothing else is tried again
    return error


@dataclass(frozen=True, slots=True)
class Listed:
    """A provider as a policy lists it: where it is asked, and its keys as they are today, the preferred one first."""

    base_url: str
    keys: Sequence[ProviderKey]


@dataclass(frozen=True, slots=True)
class _Lasting:
    """What is known of an account through all reloads."""

    keys: Keys
    breaker: Breaker
    observe: Observe


class Accounts:
    """What this process knows of its accounts: built once, and asked for an `Account` for each configuration.

    An account is the same one after a reload as long as its provider's name and base URL are: a key that was set aside
    still is, a provider that was down still is probed, and calls can be ended whose key is no longer listed, until the
    process ends. So a reload calls `of` again with all providers of the new policy, and nothing else; requests in
    flight go on with the `Account` that they began with. `of` waits for nothing, and is for the event loop's thread:
    what reads the keys' values from files comes before it.

    Args:
        timeout: seconds for all tries of one request.
        observe: told of each provider, by its name, what happens to its account.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        *,
        timeout: float,
        observe: Callable[[str, Happening], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout = timeout
        self._observe = observe
        self._clock = clock
        self._lasting: dict[tuple[str, str], _Lasting] = {}

    def of(self, listed: Mapping[str, Listed]) -> dict[str, Account]:
        """The accounts behind the providers of a policy, by their names."""
        here = {(provider, one.base_url) for provider, one in listed.items()}
        for place, lasting in self._lasting.items():
            if place not in here:
                lasting.keys.list([])
                lasting.observe(AccountDropped())
        return {provider: self._account(provider, one) for provider, one in listed.items()}

    def names_in_use(self) -> set[str]:
        """The names of all keys that the policy lists."""
        return {name for lasting in self._lasting.values() for name in lasting.keys.listed}

    def learn(self, keys: Iterable[ProviderKey]) -> None:
        """What is behind these names now, in whichever account they are used."""
        for key in keys:
            for lasting in self._lasting.values():
                if key.name in lasting.keys.listed:
                    lasting.keys.learn(key)

    def _account(self, provider: str, listed: Listed) -> Account:
        place = (provider, listed.base_url)
        lasting = self._lasting.get(place)
        if lasting is None:
            observe = partial(self._observe, provider)
            lasting = _Lasting(Keys(observe, clock=self._clock), Breaker(observe, clock=self._clock), observe)
            self._lasting[place] = lasting
        lasting.keys.list(listed.keys)
        lasting.observe(AccountListed(lasting.breaker.is_open))
        return Account(
            lasting.keys.listed,
            keys=lasting.keys,
            breaker=lasting.breaker,
            timeout=self._timeout,
            observe=lasting.observe,
            clock=self._clock,
        )
