"""The real program as a process: started, asked, signalled; everything that it says is scanned for leaks."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.leaks import LEAKS

MEASURED = ("test_cli.py", "test_workers.py", "probe/")
"""Tests whose processes coverage looks into: tracing makes a start take twice as long, and there are hundreds."""


class Process:
    """`switchboard ARGS…`, with both its streams read as they come.

    `under` is a program that runs it as its child, with its own arguments: `faketime`, say.
    """

    def __init__(
        self, *args: str, env: dict[str, str] | None = None, cwd: Path | None = None, under: Sequence[str] = ()
    ) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("SWITCHBOARD_")}
        if not any(one in os.environ.get("PYTEST_CURRENT_TEST", "") for one in MEASURED):
            clean.pop("COVERAGE_PROCESS_CONFIG", None)
        self.popen = subprocess.Popen(
            [*under, sys.executable, "-m", "switchboard", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**clean, "PYTHONUNBUFFERED": "1", **(env or {})},
            cwd=cwd,
        )
        self.name = " ".join(args)
        self._has_parent = bool(under)
        self.lines: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._readers = [
            threading.Thread(target=self._read, args=(name, stream), daemon=True)
            for name, stream in (("stdout", self.popen.stdout), ("stderr", self.popen.stderr))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, name, stream) -> None:
        for line in stream:
            LEAKS.saw(f"{name} of {self.name}", line)
            self.lines[name].append(line.rstrip("\n"))

    @property
    def out(self) -> str:
        return "\n".join(self.lines["stdout"])

    @property
    def err(self) -> str:
        return "\n".join(self.lines["stderr"])

    def wait(self, seconds: float = 15) -> int:
        """The exit code."""
        code = self.popen.wait(seconds)
        for reader in self._readers:
            reader.join(5)
        return code

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal and wait; gives the exit code."""
        self.popen.send_signal(number)
        return self.wait()

    def kill(self) -> None:
        """kill -9, unless it has ended; what it has said is read to its end."""
        if self.popen.poll() is None:
            for pid in self._pids():
                os.kill(pid, signal.SIGKILL)
        self.wait()
        for stream in (self.popen.stdout, self.popen.stderr):
            if stream:
                stream.close()

    def _pids(self) -> list[int]:
        """Its own; who runs it then ends by itself, and leaves nothing behind."""
        if self._has_parent:
            children = Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children").read_text()
            return [int(pid) for pid in children.split()]
        return [self.popen.pid]

    def until(self, url: str, status: int = 200, seconds: float = 15) -> httpx.Response:
        """Ask until the answer has this status, each time on a connection of its own."""
        end = time.monotonic() + seconds
        with httpx.Client(timeout=2, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0)) as client:
            while True:
                with contextlib.suppress(httpx.TransportError):
                    answer = client.get(url)
                    if answer.status_code == status:
                        return answer
                assert self.popen.poll() is None, f"ended with {self.popen.returncode}: {self.err}"
                assert time.monotonic() < end, f"{url} did not answer {status}: {self.err}"
                time.sleep(0.02)


@contextmanager
def switchboard(*args: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> Iterator[Process]:
    """A process that does not outlive its test."""
    process = Process(*args, env=env, cwd=cwd)
    try:
        yield process
    finally:
        process.kill()


def _own_ports() -> Iterator[int]:
    """Ports that the kernel gives to nobody, and each of pytest's processes its own of them, again and again: one that
    was free a moment ago must not be another test's by now.
    """
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw7").removeprefix("gw")) % 8
    first = 12_000 + 2_500 * number
    return itertools.cycle(range(first, first + 2_500))


_ports = _own_ports()


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses now."""
    found: list[int] = []
    while len(found) < count:
        port = next(_ports)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
    return found
