"""A run: one step after the other, each bounded in time; every call that was opened is hung up, whatever happens."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from switchboard.probe.asking import Answer, Ask, Service, Unanswered, is_call_id, service_at
from switchboard.probe.credentials import Credentials, forged, of_nobodys_issuer
from switchboard.probe.offer import new_offer
from switchboard.probe.steps import REFUSED, STEPS, Outcome, Plan, Report, Result

NO_PAGE = "https://switchboard-probe.invalid"  # nobody can have it (RFC 6761)
GRANT_PREFIX = "ek_swb_"
UNKNOWN_CALL = "unknown"  # an offer was sent, and nobody says what became of it

NEEDS_USER = "needs a token or a signing key"
NEEDS_KEY = "needs a signing key: a ready token cannot be made one that has expired"
NEEDS_OTHER = "needs another user: a second token, or a signing key"
NEEDS_CALL = "needs --call"
NO_TOKEN = "there is no token, see the step `token`"  # noqa: S105 - words
NO_GRANT = "there is no grant: the preset delivers the provider's own secret"
NO_CALL = "no call was opened"
NOT_REACHED = "the service was not reached"
BY_SKIP = "by --skip"


class Interrupted(Exception):
    """By a signal.

    Args:
        number: of the signal.
        left_open: calls that could not be hung up.
    """

    def __init__(self, number: int, left_open: tuple[str, ...]) -> None:
        self.number = number
        self.left_open = left_open
        super().__init__(f"signal {number}")


def probe(url: str, credentials: Credentials, plan: Plan) -> Report:
    """Probe the service behind a URL.

    Raises:
        Interrupted: by SIGINT or SIGTERM. A second one ends at once.
    """
    return asyncio.run(_until_interrupted(url, credentials, plan))


async def _until_interrupted(url: str, credentials: Credentials, plan: Plan) -> Report:
    loop, running = asyncio.get_running_loop(), asyncio.current_task()
    assert running is not None  # noqa: S101 - this is one
    signals, received = (signal.SIGINT, signal.SIGTERM), list[int]()

    def interrupt(number: int) -> None:
        received.append(number)
        for one in signals:
            loop.remove_signal_handler(one)
        running.cancel()

    for one in signals:
        loop.add_signal_handler(one, interrupt, one)
    async with service_at(url) as service:
        prober = Prober(service, credentials, plan)
        try:
            return await prober.run(url)
        except asyncio.CancelledError:
            raise Interrupted(received[0], prober.left_open) from None


class _Skip(Exception):
    """A step cannot be tried; the message says what it needs."""


class _Fail(Exception):
    """The service did not do what it has to; the message says what it did."""


@dataclass(slots=True)
class _Step:
    """A step while it runs: asks, and remembers the id of its last request."""

    name: str
    service: Service
    request_id: str | None = None
    answered: bool = False

    async def ask(self, ask: Ask) -> Answer:
        self.request_id = self.service.next_id(self.name)
        answer = await self.service.ask(ask, self.request_id)
        self.request_id, self.answered = answer.request_id, True
        return answer

    def check_refused(self, answer: Answer) -> str:
        """How it was refused.

        Raises:
            _Fail: it was not, or not for the reason that it has to be.
        """
        expected = REFUSED[self.name]
        if (answer.status, answer.code) == (expected.status, expected.code):
            return str(expected)
        let_through = "let through: " if answer.status < 300 else ""
        raise _Fail(f"{let_through}answered {answer}, not {expected}")


class Prober:
    """See the module.

    Args:
        service: what is probed.
        credentials: where tokens come from.
        plan: what is tried.
    """

    def __init__(self, service: Service, credentials: Credentials, plan: Plan) -> None:
        self._service = service
        self._credentials = credentials
        self._plan = plan
        self._asked = self._reached = False
        self._token_failed = False
        self._grant: str | None = None
        self._call_id: str | None = None
        self._opened: set[str] = set()
        self._offers: set[asyncio.Task[Answer]] = set()
        """Offers whose answer has not been heard."""
        self._is_unknown = False
        """Whether an offer may have opened a call that nobody told of."""
        self.left_open: tuple[str, ...] = ()

    async def run(self, url: str) -> Report:
        """Try everything; `url` is for the report."""
        started_at, started = time.time(), time.monotonic()
        try:
            results = tuple([await self._result(name, started + self._plan.run_seconds) for name in STEPS])
        finally:
            await self._end()
        return Report(url, started_at, time.monotonic() - started, results, self._reached, self.left_open)

    async def _result(self, name: str, ends: float) -> Result:
        step, started = _Step(name, self._service), time.monotonic()
        # A call is hung up also when the time of the run is over.
        seconds = self._plan.step_seconds if name == "hang-up" else min(self._plan.step_seconds, ends - started)
        outcome: Outcome = "failed"
        try:
            detail = await self._tried(step, seconds)
            outcome = "passed"
        except _Skip as reason:
            outcome, detail = "skipped", str(reason)
        except TimeoutError:
            detail = f"no answer within {seconds:.3g} s"
        except (_Fail, Unanswered) as reason:
            detail = str(reason)
        self._asked = self._asked or step.request_id is not None
        self._reached = self._reached or step.answered
        return Result(name, outcome, detail, step.request_id, time.monotonic() - started)

    async def _tried(self, step: _Step, seconds: float) -> str:
        if step.name in self._plan.skip:
            raise _Skip(BY_SKIP)
        if self._asked and not self._reached:
            raise _Skip(NOT_REACHED)
        if seconds <= 0:
            raise _Fail("not tried: the time of the run was over")
        work: dict[str, Callable[[_Step], Awaitable[str]]] = {
            "no-token": self._no_token,
            "foreign-issuer": self._foreign_issuer,
            "forged-token": self._forged_token,
            "expired-token": self._expired_token,
            "wrong-origin": self._wrong_origin,
            "token": self._token,
            "call": self._call,
            "other-users-call": self._other_users_call,
            "used-grant": self._used_grant,
            "hang-up": self._hang_up,
        }
        async with asyncio.timeout(seconds):
            return await work[step.name](step)

    # What is refused before there is a call

    async def _no_token(self, step: _Step) -> str:
        return step.check_refused(await step.ask(self._for_token(None)))

    async def _foreign_issuer(self, step: _Step) -> str:
        token = of_nobodys_issuer(self._credentials.like_user())
        return step.check_refused(await step.ask(self._for_token(token)))

    async def _forged_token(self, step: _Step) -> str:
        return step.check_refused(await step.ask(self._for_token(forged(self._user()))))

    async def _expired_token(self, step: _Step) -> str:
        self._user()
        token = _needed(self._credentials.expired(), NEEDS_KEY)
        return step.check_refused(await step.ask(self._for_token(token)))

    async def _wrong_origin(self, step: _Step) -> str:
        return step.check_refused(await step.ask(Ask("POST", "/token", self._user(), NO_PAGE, query=self._query)))

    # What a user does

    async def _token(self, step: _Step) -> str:
        self._token_failed = True
        answer = await step.ask(self._for_token(self._user()))
        _must_be(answer, 200)
        value, expires_at = answer.content.get("value"), answer.content.get("expires_at")
        if not (isinstance(value, str) and value.startswith("ek_") and isinstance(expires_at, int)):
            raise _Fail("answered 200, and no token with an expiry")
        self._check_readable(answer)
        self._token_failed = False
        self._grant = value if value.startswith(GRANT_PREFIX) else None
        return "200, a grant" if self._grant else "200, the provider's secret"

    async def _call(self, step: _Step) -> str:
        if not self._plan.call:
            raise _Skip(NEEDS_CALL)
        bearer = self._user()
        if self._token_failed:
            raise _Skip(NO_TOKEN)
        # As a frontend does; a preset that delivers the provider's secret takes an offer by the user's own token.
        answer = await self._offer(step, self._grant or bearer, with_preset=self._grant is None)
        _must_be(answer, 201)
        if answer.call_id is None:
            raise _Fail("answered 201, and no `Location` of the call")
        if not (answer.body.startswith(b"v=0") and b"\nm=audio " in answer.body):
            raise _Fail("answered 201, and no SDP")
        self._check_readable(answer)
        self._call_id = answer.call_id
        return f"201, {answer.call_id}"

    async def _hang_up(self, step: _Step) -> str:
        call_id = self._opened_call()
        answer = await step.ask(self._of_call("DELETE", call_id, self._user()))
        _must_be(answer, 200)
        look = await step.ask(self._of_call("GET", call_id, self._user()))
        if look.content.get("state") != "ended":
            raise _Fail(f"answered {answer}, and the call is not over: {look}")
        self._opened.discard(call_id)
        return f"{answer}, ended"

    # What is refused about a call

    async def _other_users_call(self, step: _Step) -> str:
        call_id = self._opened_call()
        other = _needed(self._credentials.other_user(), NEEDS_OTHER)
        for method in ("GET", "DELETE"):
            step.check_refused(await step.ask(self._of_call(method, call_id, other)))
        look = await step.ask(self._of_call("GET", call_id, self._user()))
        if look.content.get("state") != "open":
            raise _Fail(f"another user was refused, and the call is not open any more: {look}")
        return str(REFUSED[step.name])

    async def _used_grant(self, step: _Step) -> str:
        self._opened_call()
        grant = _needed(self._grant, NO_GRANT)
        return step.check_refused(await self._offer(step, grant, with_preset=False))

    # Parts of these

    def _user(self) -> str:
        return _needed(self._credentials.user(), NEEDS_USER)

    def _opened_call(self) -> str:
        if not self._plan.call:
            raise _Skip(NEEDS_CALL)
        return _needed(self._call_id, NO_CALL)

    @property
    def _query(self) -> dict[str, str]:
        return {} if self._plan.preset is None else {"preset": self._plan.preset}

    def _for_token(self, bearer: str | None) -> Ask:
        return Ask("POST", "/token", bearer, self._plan.origin, query=self._query)

    def _of_call(self, method: str, call_id: str, bearer: str) -> Ask:
        return Ask(method, f"/sdp/{call_id}", bearer, self._plan.origin)

    def _check_readable(self, answer: Answer) -> None:
        """A page may read only what says so (CORS)."""
        origin = self._plan.origin
        if origin is not None and answer.headers.get("access-control-allow-origin") != origin:
            raise _Fail(f"answered {answer.status}, and a page of {origin} may not read it")

    async def _offer(self, step: _Step, bearer: str, *, with_preset: bool) -> Answer:
        """Post a new offer. It is not cancelled once it is sent: a call may come of it, and has to be hung up."""
        query = self._query if with_preset else {}
        offer = asyncio.ensure_future(
            step.ask(Ask("POST", "/sdp", bearer, self._plan.origin, offer=new_offer(), query=query))
        )
        self._offers.add(offer)
        answer = await asyncio.shield(offer)
        self._offers.discard(offer)
        self._note(answer)
        return answer

    def _note(self, answer: Answer) -> None:
        """A call that was opened is to be hung up; so is one that may have been, behind a proxy that says it failed."""
        if answer.status < 300 and answer.call_id is not None:
            self._opened.add(answer.call_id)
        elif answer.status < 300 or (answer.status >= 500 and answer.code is None):
            self._is_unknown = True

    # The end

    async def _end(self) -> None:
        """Clean up, also if the run is interrupted meanwhile."""
        cleaning = asyncio.ensure_future(self._clean_up())
        try:
            self.left_open = await asyncio.shield(cleaning)
        except asyncio.CancelledError:
            self.left_open = await cleaning
            raise

    async def _clean_up(self) -> tuple[str, ...]:
        """Hang up what is open; gives what could not be."""
        try:
            async with asyncio.timeout(self._plan.step_seconds):
                await self._end_all()
                await self._hear_offers()
                if self._is_unknown:
                    await self._find_unknown()
                await self._end_all()
        except TimeoutError:
            pass
        is_unknown = self._is_unknown or any(not offer.done() for offer in self._offers)
        return (*sorted(self._opened), *((UNKNOWN_CALL,) if is_unknown else ()))

    async def _hear_offers(self) -> None:
        """What became of offers whose answer nobody waited for."""
        if not self._offers:
            return
        heard, unheard = await asyncio.wait(self._offers, timeout=self._plan.step_seconds / 2)
        self._is_unknown = self._is_unknown or bool(unheard)
        for offer in unheard:
            offer.cancel()
        for offer in heard:
            try:
                self._note(offer.result())
            except Unanswered as unanswered:
                self._is_unknown = self._is_unknown or unanswered.sent

    async def _find_unknown(self) -> None:
        """The user's open calls: the probe's user is its own, so they are the probe's."""
        step = _Step("hang-up", self._service)
        try:
            answer = await step.ask(Ask("GET", "/calls", self._user(), self._plan.origin))
        except Unanswered:
            return
        calls: Any = answer.content.get("calls")
        if answer.status == 200 and isinstance(calls, list):
            ids = [call.get("id") for call in calls if isinstance(call, dict)]
            self._opened |= {call_id for call_id in ids if is_call_id(call_id)}
            self._is_unknown = False

    async def _end_all(self) -> None:
        await asyncio.gather(*(self._end_call(call_id) for call_id in tuple(self._opened)))

    async def _end_call(self, call_id: str) -> None:
        step = _Step("hang-up", self._service)
        try:
            answer = await step.ask(self._of_call("DELETE", call_id, self._user()))
        except Unanswered:
            return
        if answer.status == 200 and answer.content.get("state") == "ended":
            self._opened.discard(call_id)


def _needed(token: str | None, what: str) -> str:
    if token is None:
        raise _Skip(what)
    return token


def _must_be(answer: Answer, status: int) -> None:
    if answer.status != status:
        raise _Fail(f"answered {answer}, not {status}")
