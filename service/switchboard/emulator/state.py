"""What one emulator remembers: requests seen, secrets, calls and faults; every store is bounded."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from starlette.datastructures import Headers

from switchboard.emulator.echo import LIFETIME_SECONDS, Session, asked, filled
from switchboard.emulator.flavours import AZURE, OPENAI, new_suffix
from switchboard.emulator.options import Faults, Operation, Options

KEPT_REQUESTS: Final = 1_000
KEPT_SECRETS: Final = 50_000
KEPT_CALLS: Final = 50_000

CallState = Literal["open", "ended"]


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """One request as it came in, for tests that assert what was asked for."""

    time: float
    method: str
    path: str
    query: str
    headers: Headers
    body: bytes


@dataclass(frozen=True, slots=True)
class Secret:
    """An ephemeral key: usable until it expires, as often as one likes."""

    value: str
    expires_at: int
    session: Mapping[str, Any]
    owner: str
    safety_identifier: str | None


@dataclass(frozen=True, slots=True)
class Call:
    id: str
    session: Mapping[str, Any]
    owner: str
    safety_identifier: str | None
    started_at: float
    ended_at: float | None = None
    """When it was hung up, or its peer went away."""
    connected: bool = False
    narrowed: bool = False
    """Whether the browser hears a choice of events only."""

    @property
    def state(self) -> CallState:
        return "open" if self.ended_at is None else "ended"


class Emulator:
    """The memory behind the routes; reachable as `app.state.emulator`."""

    def __init__(self, options: Options, clock: Callable[[], float] = time.time) -> None:
        self.options = options
        self.flavour = AZURE if options.azure else OPENAI
        self.requests: deque[SeenRequest] = deque(maxlen=KEPT_REQUESTS)
        self._clock = clock
        self._secrets: dict[str, Secret] = {}
        self._used_sessions: dict[str, None] = {}
        self._calls: dict[str, Call] = {}
        self.set_faults(options.faults)

    @property
    def now(self) -> float:
        return self._clock()

    @property
    def faults(self) -> Faults:
        return self._faults

    @property
    def calls(self) -> tuple[Call, ...]:
        return tuple(self._calls.values())

    def set_faults(self, faults: Faults) -> None:
        self._faults = faults
        self._faults_left = faults.times

    def take_faults(self, operation: Operation | None, key: str = "") -> Faults | None:
        """The faults that this request has to show, counted down."""
        faults = self._faults
        if operation not in faults.operations or self._faults_left == 0:
            return None
        if faults.key not in (None, key):
            return None
        if self._faults_left is not None:
            self._faults_left -= 1
        return self._faults

    def mint(self, session: Mapping[str, Any], owner: str, safety: str | None, seconds: int) -> Secret:
        echo = filled(session, f"sess_{new_suffix()[:21]}")
        secret = Secret(f"ek_{new_suffix()}", int(self.now) + seconds, echo, owner, safety)
        self._secrets[secret.value] = secret
        _forget_oldest(self._secrets, KEPT_SECRETS)
        return secret

    def secret(self, value: str) -> Secret | None:
        """A secret that is still good; an expired one is forgotten, as if it had never been."""
        secret = self._secrets.get(value)
        if secret is not None and secret.expires_at <= self.now:
            del self._secrets[value]
            return None
        return secret

    def open_call(self, session: Mapping[str, Any], owner: str, safety: str | None) -> Call:
        """A call of a standard key: its session shares the call's suffix."""
        suffix = self.flavour.new_call()
        return self._keep(session, f"sess_{suffix}", suffix, owner, safety)

    def open_call_of(self, secret: Secret, *, narrowed: bool = False) -> Call:
        """A call of a secret runs under the secret's session id; a second one gets its own (a guess)."""
        suffix = self.flavour.new_call()
        session, session_id = asked(secret.session), self._session_id(secret, suffix)
        return self._keep(session, session_id, suffix, secret.owner, secret.safety_identifier, narrowed=narrowed)

    def session(self, wanted: Mapping[str, Any]) -> Session:
        """A session of a standard key that is no call."""
        return self._begun(wanted, f"sess_{self.flavour.new_call()}")

    def session_of(self, secret: Secret) -> Session:
        """A session of a secret that is no call; its id is as in `open_call_of`."""
        return self._begun(asked(secret.session), self._session_id(secret, self.flavour.new_call()))

    def call(self, call_id: str) -> Call | None:
        return self._calls.get(call_id)

    def set_connected(self, call_id: str) -> None:
        if call_id in self._calls:
            self._calls[call_id] = replace(self._calls[call_id], connected=True)

    def end(self, call_id: str) -> None:
        call = self._calls.get(call_id)
        if call is not None and call.ended_at is None:
            self._calls[call_id] = replace(call, ended_at=self.now, connected=False)

    def ended_at(self, call: Call) -> float | None:
        """When a call ended, also if that was by itself after an hour; None: it is open."""
        last = call.started_at + LIFETIME_SECONDS
        return last if call.ended_at is None and last <= self.now else call.ended_at

    def is_over(self, call: Call) -> bool:
        return self.ended_at(call) is not None

    def _session_id(self, secret: Secret, suffix: str) -> str:
        session_id = str(secret.session["id"])
        if session_id in self._used_sessions:
            session_id = f"sess_{suffix}"
        self._used_sessions[session_id] = None
        _forget_oldest(self._used_sessions, KEPT_SECRETS)
        return session_id

    def _begun(self, session: Mapping[str, Any], session_id: str) -> Session:
        return filled(session, session_id, int(self.now) + LIFETIME_SECONDS)

    def _keep(
        self,
        session: Mapping[str, Any],
        session_id: str,
        suffix: str,
        owner: str,
        safety: str | None,
        *,
        narrowed: bool = False,
    ) -> Call:
        echo = self._begun(session, session_id)
        call = Call(f"rtc_{suffix}", echo, owner, safety, self.now, narrowed=narrowed)
        self._calls[call.id] = call
        _forget_oldest(self._calls, KEPT_CALLS)
        return call


def _forget_oldest(store: dict[str, Any], most: int) -> None:
    while len(store) > most:
        del store[next(iter(store))]
