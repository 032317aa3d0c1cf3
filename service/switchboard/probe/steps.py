"""What a probe tries, what came of it, and what that means for whoever has to act on it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal

Outcome = Literal["passed", "failed", "skipped"]

PASSED, FAILED, UNREACHED = 0, 1, 3  # exit codes; 2 is wrong use of the command line


@dataclass(frozen=True, slots=True)
class Refused:
    """How the service has to refuse: HTTP's status, and the code in its problem document."""

    status: int
    code: str

    def __str__(self) -> str:
        return f"{self.status} {self.code}"


# Names are stable: scripts, alerts and `--skip` go by them. The order is that of the run.
REFUSED: Final[Mapping[str, Refused]] = {
    "no-token": Refused(401, "missing_token"),
    "foreign-issuer": Refused(401, "unknown_issuer"),
    "forged-token": Refused(401, "invalid_token"),
    "expired-token": Refused(401, "expired_token"),
    "wrong-origin": Refused(403, "origin_not_allowed"),
    "other-users-call": Refused(404, "call_not_found"),
    "used-grant": Refused(401, "grant_used"),
}
STEPS: Final = (
    "no-token",
    "foreign-issuer",
    "forged-token",
    "expired-token",
    "wrong-origin",
    "token",
    "call",
    "other-users-call",
    "used-grant",
    "hang-up",
)
OF_A_CALL: Final = ("call", "other-users-call", "used-grant", "hang-up")


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a step.

    `detail` never holds a credential. `request_id` leads to the request in the service's log and audit; of several
    requests it is the one that decided. `seconds` are those of the whole step.
    """

    step: str
    outcome: Outcome
    detail: str
    request_id: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run.

    `started_at` is unix seconds. `reached` is false if the service never answered. `left_open` are calls that the
    probe opened and could not hang up.
    """

    url: str
    started_at: float
    seconds: float
    results: tuple[Result, ...]
    reached: bool
    left_open: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 if all that was tried passed; what was skipped says nothing against it."""
        if not self.reached:
            return UNREACHED
        failed = self.left_open or any(result.outcome == "failed" for result in self.results)
        return FAILED if failed else PASSED


@dataclass(frozen=True, slots=True)
class Plan:
    """How to probe.

    Args:
        call: whether a real call is opened, and ended.
        preset: which one is asked for; None is the tenant's default.
        origin: of the page that the probe claims to be; None is no browser.
        skip: steps that are not tried.
        step_seconds: for one step.
        run_seconds: for all steps together; hanging up what was opened is done all the same.
    """

    call: bool = False
    preset: str | None = None
    origin: str | None = None
    skip: Collection[str] = ()
    step_seconds: float = 20.0
    run_seconds: float = 60.0
