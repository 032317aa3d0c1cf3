"""Real Redis servers, started from the machine's own binary: one alone, a primary with Sentinels, a Cluster."""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis as client_library

from tests.support.process import free_ports

BINARY = shutil.which("redis-server") or "redis-server"


class RedisServer:
    """A redis-server that can be frozen, killed and started again on the same port, with its data in memory only."""

    def __init__(self, folder: Path, *options: str, port: int | None = None, sentinel: bool = False) -> None:
        self.port = port or free_ports(1)[0]
        self.folder = folder
        self._command = [BINARY]
        if sentinel:
            file = folder / f"sentinel-{self.port}.conf"
            file.write_text("\n".join(options))
            self._command += [str(file), "--sentinel", "--port", str(self.port), "--bind", "127.0.0.1"]
        else:
            self._command += ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
            self._command += ["--maxmemory-policy", "noeviction", "--dir", str(folder), *options]
        self.popen: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self.popen = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while True:
            try:
                if self.do("PING"):
                    return
            except (client_library.ConnectionError, client_library.TimeoutError):
                assert time.monotonic() < end, f"redis-server does not answer on {self.port}"
                assert self.popen.poll() is None, f"redis-server ended with {self.popen.returncode}"
                time.sleep(0.01)

    def do(self, *command: Any) -> Any:
        """One command, by a connection of its own."""
        with client_library.Redis(port=self.port, socket_timeout=5, decode_responses=True) as client:
            return client.execute_command(*command)

    def freeze(self) -> None:
        assert self.popen is not None
        self.popen.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.popen is not None
        self.popen.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self.popen is not None:
            self.popen.kill()
            self.popen.wait()
            self.popen = None


@contextmanager
def redis_server(folder: Path, *options: str, **how: Any) -> Iterator[RedisServer]:
    """A server that does not outlive its test."""
    server = RedisServer(folder, *options, **how)
    server.start()
    try:
        yield server
    finally:
        server.kill()
