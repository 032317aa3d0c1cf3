"""Real Redis servers, started from the machine's own binary: one alone, a primary with Sentinels, a Cluster."""

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis as client_library

from tests.support.process import free_ports

BINARY = shutil.which("redis-server") or "redis-server"
CLI = shutil.which("redis-cli") or "redis-cli"


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


SERVICE = "mymaster"


@dataclass
class SentinelSetup:
    """A primary with a replica, watched by three Sentinels, two of which decide."""

    servers: list[RedisServer]
    sentinels: list[RedisServer]

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(one.address for one in self.sentinels)}/{SERVICE}"

    @property
    def primary(self) -> RedisServer:
        """The server that the Sentinels call the primary now."""
        port = int(self.sentinels[-1].do("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])
        return next(server for server in self.servers if server.port == port)

    def until_promoted(self, other_than: RedisServer, seconds: float = 20) -> RedisServer:
        """Wait until another server is the primary; gives it."""
        _until(lambda: (now := self.primary) is not other_than and now.do("ROLE")[0] == "master", seconds)
        return self.primary


@contextmanager
def sentinel_setup(folder: Path) -> Iterator[SentinelSetup]:
    """Servers that do not outlive their test; a primary that is away for 0.5 s is replaced."""
    with ExitStack() as stack:
        primary = stack.enter_context(redis_server(folder, "--repl-diskless-sync-delay", "0"))
        replica = stack.enter_context(redis_server(folder, "--replicaof", "127.0.0.1", str(primary.port)))
        options = [
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} 2",
            f"sentinel down-after-milliseconds {SERVICE} 500",
            f"sentinel failover-timeout {SERVICE} 2000",
        ]
        _until(lambda: _linked(replica))
        sentinels = [stack.enter_context(redis_server(folder, *options, sentinel=True)) for _ in range(3)]
        _until(lambda: all(_sees_everybody(one) for one in sentinels))
        yield SentinelSetup([primary, replica], sentinels)


def _linked(replica: RedisServer) -> bool:
    return bool(replica.do("INFO", "replication").get("master_link_status") == "up")


def _sees_everybody(sentinel: RedisServer) -> bool:
    flat = sentinel.do("SENTINEL", "MASTERS")
    state = next(iter(flat.values())) if isinstance(flat, dict) else flat[0]
    return int(state["num-other-sentinels"]) == 2 and int(state["num-slaves"]) == 1


@dataclass
class ClusterSetup:
    """Three masters with a replica each."""

    servers: list[RedisServer]

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(one.address for one in self.servers)}"

    def master_of(self, key: str, *, asked: RedisServer | None = None) -> RedisServer:
        """The server that holds a key, as another one tells."""
        asked = asked or self.servers[-1]
        slot = asked.do("CLUSTER", "KEYSLOT", key)
        for first, last, master, *_ in asked.do("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(server for server in self.servers if server.port == master[1])
        raise AssertionError(f"nobody holds slot {slot}")

    def healthy(self, server: RedisServer) -> bool:
        return bool("cluster_state:ok" in server.do("CLUSTER", "INFO"))

    def until_promoted(self, lost: RedisServer, key: str, seconds: float = 20) -> RedisServer:
        """Wait until another server holds a key; gives it."""
        asked = next(server for server in self.servers if server is not lost)
        _until(
            lambda: self.healthy(asked) and self.master_of(key, asked=asked) is not lost,
            seconds,
        )
        return self.master_of(key, asked=asked)


@contextmanager
def cluster(folder: Path) -> Iterator[ClusterSetup]:
    """Servers that do not outlive their test; a master that is away for a second is replaced."""
    with ExitStack() as stack:
        servers = []
        for number in range(6):
            own = folder / f"node-{number}"
            own.mkdir()
            options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--repl-diskless-sync-delay", "0")
            # The bus would be 10000 higher, which is no port for many of those that the kernel gives.
            bus = ("--cluster-port", str(free_ports(1)[0]))
            servers.append(stack.enter_context(redis_server(own, *options, *bus)))
        addresses = [server.address for server in servers]
        subprocess.run(
            [CLI, "--cluster", "create", *addresses, "--cluster-replicas", "1", "--cluster-yes"],
            check=True,
            capture_output=True,
            timeout=60,
        )
        made = ClusterSetup(servers)
        _until(lambda: all(made.healthy(server) for server in servers))
        _until(lambda: sum(_linked(server) for server in servers) == 3)
        yield made


def _until(holds: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            if holds():
                return
        except (client_library.ConnectionError, client_library.TimeoutError, client_library.ResponseError):
            pass
        assert time.monotonic() < end, "the servers did not come to an agreement in time"
        time.sleep(0.05)
