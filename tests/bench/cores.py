"""Which core measures what, and how busy cores and processes are: Linux alone, by /proc."""

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cores:
    """The subject has one core for itself, everything else the others."""

    subject: frozenset[int]
    others: frozenset[int]

    @property
    def all(self) -> frozenset[int]:
        return self.subject | self.others

    @classmethod
    def of_this_machine(cls) -> "Cores":
        """The last core for the subject: the first has most of the interrupts.

        Raises:
            RuntimeError: there is only one core.
        """
        at_hand = sorted(os.sched_getaffinity(0))
        if len(at_hand) < 2:
            raise RuntimeError("the bench needs two cores: one for the subject, one for everything else")
        return cls(frozenset(at_hand[-1:]), frozenset(at_hand[:-1]))


@contextmanager
def shielded(cores: Cores) -> Iterator[int]:
    """Keep everybody else off the subject's core, as far as this user may: daemons, and threads of the kernel that are
    not bound to it. One of them that computes for 30 ms every five seconds is what a 99th percentile would show.

    Gives how many threads were moved; they may come back at the end.
    """
    before: dict[int, set[int]] = {}
    for task in Path("/proc").glob("[0-9]*/task/[0-9]*"):
        thread, process = int(task.name), int(task.parts[2])
        with contextlib.suppress(OSError):  # it has ended, is bound, or is somebody else's
            allowed = os.sched_getaffinity(thread)
            if process != os.getpid() and allowed & cores.subject and allowed & cores.others:
                os.sched_setaffinity(thread, allowed & cores.others)
                before[thread] = allowed
    try:
        yield len(before)
    finally:
        for thread, allowed in before.items():
            with contextlib.suppress(OSError):
                os.sched_setaffinity(thread, allowed)


def pinned(cores: Iterable[int]) -> list[str]:
    """The command that runs another one on these cores."""
    return ["taskset", "--cpu-list", ",".join(str(core) for core in sorted(cores))]


@dataclass(frozen=True, slots=True)
class Busy:
    """Seconds that cores have worked so far, and those of the clock."""

    worked: float
    clock: float

    @classmethod
    def now(cls, cores: frozenset[int]) -> "Busy":
        lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
        worked = 0
        for line in lines:
            name, *ticks = line.split()
            if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
                # user nice system idle iowait irq softirq steal; what a neighbour of the machine took counts as busy.
                worked += sum(int(one) for one in ticks[:8]) - int(ticks[3]) - int(ticks[4])
        return cls(worked / TICKS, time.monotonic() * len(cores))

    def share_since(self, before: "Busy") -> float:
        """Between 0 and 1."""
        return (self.worked - before.worked) / max(self.clock - before.clock, 1e-9)


def family(pid: int) -> list[int]:
    """A process and all below it that live."""
    found = [pid]
    for one in found:
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text(encoding="ascii").split()]
        except OSError:
            continue
    return found


def cpu_seconds(pid: int) -> float:
    """What a process and all below it have used of processors."""
    total = 0
    for one in family(pid):
        try:
            stat = Path(f"/proc/{one}/stat").read_text(encoding="utf-8")
        except OSError:
            continue
        user, system = stat.rpartition(")")[2].split()[11:13]
        total += int(user) + int(system)
    return total / TICKS


def megabytes(pid: int, field: str = "VmRSS") -> float:
    """Memory of a process and all below it; `VmHWM` is the most that each ever had."""
    total = 0
    for one in family(pid):
        try:
            status = Path(f"/proc/{one}/status").read_text(encoding="utf-8")
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{field}:"))
    return total / 1024
