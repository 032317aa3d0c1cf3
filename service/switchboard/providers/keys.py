"""The keys of one account at a provider: which of them it takes today, and what they were while calls are open."""

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from switchboard.calls import GRACE_SECONDS, MAX_SECONDS
from switchboard.errors import ProviderTimeout, ProviderUnavailable, Refusal
from switchboard.providers.events import KeyBack, KeyChanged, KeyDropped, KeyListed, KeySetAside, Observe

FIRST_SECONDS = 30.0  # that a refused key is left alone: long enough not to be a nuisance, short enough for a person
LONGEST_SECONDS = 300.0  # each refusal doubles the time
FORMER_SECONDS = float(MAX_SECONDS + GRACE_SECONDS)  # as long as a call can live that a former value opened
NO_KEY = "The voice provider takes none of this service's keys at present; its operator has to see to that."
NO_VALUE = "no_token"  # why a key is set aside that nobody has refused
SILENCE = (ProviderUnavailable, ProviderTimeout)  # of which nothing is learned of a key
MAX_FORMER = 4  # values of one key: more changes within an hour are a mistake


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """A standard key. Its name (`env:OPENAI_API_KEY`) may be written down; its value goes to the provider only.

    Without a value it cannot be used at present.
    """

    name: str
    value: str
    renews: bool = False
    """Whether each value stands for the same identity (a token), so that the last one ends the calls of all."""

    def __repr__(self) -> str:
        return f"ProviderKey({self.name})"


class KeyRefused(Exception):
    """The provider does not take this key, so it did nothing; another key may do.

    Args:
        why: 401, 403 or insufficient_quota.
        provider_request_id: of its answer.
    """

    def __init__(self, why: str, provider_request_id: str | None) -> None:
        self.why = why
        self.provider_request_id = provider_request_id
        super().__init__(why)


@dataclass(slots=True)
class Standing:
    """What is known of one key."""

    key: ProviderKey
    former: deque[tuple[ProviderKey, float]] = field(default_factory=lambda: deque(maxlen=MAX_FORMER))
    """Earlier values, and until when a call can be open that each of them opened."""
    aside_until: float | None = None
    """None: the provider takes it, as far as is known. Later than that, one request at a time tries it."""
    wait: float = FIRST_SECONDS
    is_probed: bool = False

    def welcome(self) -> bool:
        """It is not set aside any longer. Whether it was."""
        was_aside = self.aside_until is not None
        self.aside_until, self.wait, self.is_probed = None, FIRST_SECONDS, False
        return was_aside


class Keys:
    """See the module.

    Args:
        observe: hears what becomes of keys.
        clock: seconds that only grow.
    """

    def __init__(self, observe: Observe, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._observe = observe
        self._clock = clock
        self._known: dict[str, Standing] = {}
        self._listed: Sequence[str] = ()

    def learn(self, key: ProviderKey) -> None:
        """What is behind a key's name now."""
        standing = self._known.get(key.name)
        if standing is None:
            self._known[key.name] = Standing(key)
        elif standing.key.value != key.value:
            if not key.renews:
                standing.former.append((standing.key, self._clock() + FORMER_SECONDS))
            standing.key = key
            standing.welcome()
            self._observe(KeyChanged(key.name) if key.value else KeySetAside(key.name, NO_VALUE, 0.0))

    def list(self, keys: Sequence[ProviderKey]) -> None:
        """What a policy lists from now on. Others stay known, for the calls that they opened."""
        before, self._listed = self._listed, [key.name for key in keys]
        for key in keys:
            self.learn(key)
            self._observe(KeyListed(key.name, self._known[key.name].aside_until is not None or not key.value))
        for name in before:
            if name not in self._listed:
                self._observe(KeyDropped(name))

    @property
    def listed(self) -> Sequence[str]:
        """The names of the keys that the policy lists, in its order."""
        return self._listed

    def values_of(self, name: str) -> Sequence[ProviderKey]:
        """A key and what it was before, the latest first: one of them opened each call of this name that is open."""
        standing = self._known.get(name)
        if standing is None:
            return ()
        now = self._clock()
        return [standing.key, *(key for key, until in reversed(standing.former) if until > now)]

    def first(self, names: Sequence[str], refused: Collection[str]) -> Standing:
        """The first key that may be used.

        Args:
            names: in the order of preference.
            refused: those that this request has tried.

        Raises:
            ProviderUnavailable: there is none, so nothing was sent.
        """
        for name in names:
            standing = self._known[name]
            if name in refused or not standing.key.value:
                continue
            if standing.aside_until is None or self._may_be_probed(standing):
                return standing
        none_left = ProviderUnavailable(NO_KEY)
        none_left.untried = True
        raise none_left

    def trying(self, standing: Standing) -> "_Trial":
        """A block (`with`) that uses a key for one request; how that ends decides on the key."""
        return _Trial(standing, self._learn)

    def _learn(self, standing: Standing, key: ProviderKey, error: BaseException | None, is_probe: bool) -> None:
        if isinstance(error, KeyRefused):
            if standing.key is key:  # else another value has come meanwhile
                self._set_aside(standing, error.why, is_probe=is_probe)
        elif error is None or (isinstance(error, Refusal) and not isinstance(error, SILENCE)):
            self._take_back(standing, key, is_probe=is_probe)
        else:
            self._release(standing, key, is_probe=is_probe)

    def _may_be_probed(self, standing: Standing) -> bool:
        return standing.aside_until is not None and not standing.is_probed and self._clock() >= standing.aside_until

    def _set_aside(self, standing: Standing, why: str, *, is_probe: bool) -> None:
        if is_probe:
            standing.wait, standing.is_probed = min(2 * standing.wait, LONGEST_SECONDS), False
        elif standing.aside_until is not None:
            return  # it was sent before the key was set aside
        standing.aside_until = self._clock() + standing.wait
        self._observe(KeySetAside(standing.key.name, why, standing.wait))

    def _release(self, standing: Standing, key: ProviderKey, *, is_probe: bool) -> None:
        if is_probe and standing.key is key:
            standing.is_probed = False

    def _take_back(self, standing: Standing, key: ProviderKey, *, is_probe: bool) -> None:
        if is_probe and standing.key is key and standing.welcome():
            self._observe(KeyBack(key.name))


class _Trial:
    """No generator: it stands around every request."""

    __slots__ = ("_is_probe", "_key", "_learn", "_standing")

    def __init__(
        self, standing: Standing, learn: Callable[[Standing, ProviderKey, BaseException | None, bool], None]
    ) -> None:
        self._standing = standing
        self._learn = learn
        self._key = standing.key
        self._is_probe = False

    def __enter__(self) -> ProviderKey:
        standing = self._standing
        self._key = standing.key
        self._is_probe = standing.is_probed = standing.aside_until is not None
        return self._key

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: object) -> None:
        self._learn(self._standing, self._key, error, self._is_probe)
