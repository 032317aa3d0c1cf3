"""A program that is measured, or that measures: started on its cores, waited for, weighed, ended."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from tests.bench import cores


class Failed(Exception):
    """Something that has to work for a figure to mean anything does not."""


class Program:
    """A command on chosen cores; what it prints goes into a file, of which an error shows the end.

    Args:
        command: with its arguments.
        on: the cores.
        env: its whole environment.
        log: where its output goes.
    """

    def __init__(
        self, command: Sequence[str], *, on: frozenset[int], env: Mapping[str, str], log: Path, cwd: Path | None = None
    ) -> None:
        self._log = log
        self._begun = time.monotonic()
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [*cores.pinned(on), *command], stdout=output, stderr=subprocess.STDOUT, env=dict(env), cwd=cwd
            )
        self.pid = self._popen.pid  # taskset becomes the command

    def until(self, url: str, *, seconds: float = 60, accept: Sequence[int] = (200,)) -> float:
        """Wait until it answers; gives the seconds since it was started.

        Raises:
            Failed: it ends, or does not answer in time.
        """
        with httpx.Client(trust_env=False, timeout=2) as client:
            while True:
                try:
                    if client.get(url).status_code in accept:
                        return time.monotonic() - self._begun
                except httpx.TransportError:
                    pass
                if self._popen.poll() is not None:
                    raise Failed(f"ended with {self._popen.returncode}: {self.tail}")
                if time.monotonic() - self._begun > seconds:
                    raise Failed(f"no answer from {url} in {seconds:.0f} s: {self.tail}")
                time.sleep(0.005)

    @property
    def tail(self) -> str:
        """The end of what it printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-2000:].strip()

    def says(self, text: str) -> int:
        """How often a text stands in what it printed."""
        return self._log.read_text(encoding="utf-8", errors="replace").count(text)

    def refusals(self) -> Counter[str]:
        """Statuses from 400 on, as the service's log has them."""
        return Counter(re.findall(r'"status": ?([45]\d\d)', self._log.read_text(encoding="utf-8", errors="replace")))

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def stop(self) -> None:
        """Ask it to end, and after five seconds make it."""
        if self._popen.poll() is None:
            below = cores.family(self.pid)[1:]
            self._popen.send_signal(signal.SIGTERM)
            try:
                self._popen.wait(5)
            except subprocess.TimeoutExpired:
                for pid in below:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self._popen.kill()
        self._popen.wait()
