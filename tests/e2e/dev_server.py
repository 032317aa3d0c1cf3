"""`switchboard dev` as people start it: a process of its own, listened to on both streams."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any, TypeVar

import httpx

from tests.support.leaks import LEAKS

# The console script beside this Python: what `make demo` runs, and what the printed curl lines call again.
COMMAND = Path(sys.executable).with_name("switchboard")
START_SECONDS = 20.0
STOP_SECONDS = 10.0

Found = TypeVar("Found")


class DevServer:
    """The running process, what it has said so far, and the requests that a person would send by hand."""

    def __init__(self, process: subprocess.Popen[str], environment: dict[str, str]) -> None:
        self.environment = environment
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self._process = process
        self._news = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=stream, daemon=True)
            for stream in ((process.stdout, self.stdout), (process.stderr, self.stderr))
        ]
        for reader in self._readers:
            reader.start()
        self.url = self._said(r"Talk: +(http://\S+)/demo")
        self.ops_url = self._said(r"Metrics: +(http://\S+)/metrics")
        self._said(r"(Stop with Ctrl-C)")
        self.client = httpx.Client(base_url=self.url, trust_env=False, timeout=10)

    @property
    def curl_lines(self) -> list[str]:
        """What it invites people to paste."""
        return [line.strip() for line in self.stdout if line.strip().startswith("curl ")]

    @property
    def records(self) -> list[dict[str, Any]]:
        """The audit so far."""
        return [json.loads(line) for line in list(self.stdout) if line.startswith("{")]

    def record(self, timeout: float = 5.0, **wanted: Any) -> dict[str, Any]:
        """The first audit record with these values; waits for it."""

        def look() -> dict[str, Any] | None:
            fits = (record for record in self.records if wanted.items() <= record.items())
            return next(fits, None)

        return self._wait_for(look, timeout, f"an audit record with {wanted}")

    def token(self, tenant: str, subject: str, **claims: str) -> str:
        """The user's own token, from the dev issuer."""
        answer = self.client.post("/demo/issue", json={"tenant": tenant, "subject": subject, "claims": claims})
        assert answer.status_code == 200, answer.text
        token = answer.json()["token"]
        LEAKS.plant("user's token", token)
        return str(token)

    @cached_property
    def provider_url(self) -> str:
        """The provider, without `/v1`: where the example's tenant with client secrets is told to post its offers."""
        headers = {"authorization": f"Bearer {self.token('widgets', 'asking-aurelia-1')}"}
        minted = self.client.get("/token", headers=headers).json()
        LEAKS.handed_out("answer GET /token", minted["value"])
        return str(minted["calls_url"]).removesuffix("/v1/realtime/calls")

    def provider_calls(self) -> dict[str, dict[str, Any]]:
        """Every call as the provider knows it, by its id."""
        rows = httpx.get(f"{self.provider_url}/_emulator/calls", trust_env=False).json()["calls"]
        return {row["id"]: row for row in rows}

    def call(self, call_id: str, token: str) -> dict[str, Any]:
        """`GET /sdp/{call_id}` as the user."""
        answer = self.client.get(f"/sdp/{call_id}", headers={"authorization": f"Bearer {token}"})
        LEAKS.saw(f"answer GET /sdp/{call_id}", f"{dict(answer.headers)} {answer.text}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def metrics(self) -> str:
        answer = httpx.get(f"{self.ops_url}/metrics", trust_env=False)
        assert answer.status_code == 200, answer.text
        LEAKS.saw("metrics of dev", answer.text)
        return answer.text

    def stop(self, with_signal: signal.Signals) -> int:
        """Ends the process; its exit code."""
        self.client.close()
        self._process.send_signal(with_signal)
        try:
            code = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        finally:
            for reader in self._readers:
                reader.join(STOP_SECONDS)
            LEAKS.saw("stdout of dev", "".join(self.stdout))
            LEAKS.saw("stderr of dev", "".join(self.stderr))
        return code

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        for line in stream:
            with self._news:
                lines.append(line)
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def _said(self, pattern: str) -> str:
        def look() -> str | None:
            found = re.search(pattern, "".join(self.stdout))
            if found is None and self._process.poll() is not None:
                raise AssertionError(f"it ended with {self._process.returncode}: {''.join(self.stderr)}")
            return found and found[1]

        return self._wait_for(look, START_SECONDS, f"{pattern!r} on stdout")

    def _wait_for(self, look: Callable[[], Found | None], timeout: float, what: str) -> Found:
        until = time.monotonic() + timeout
        with self._news:
            while (found := look()) is None:
                left = until - time.monotonic()
                assert left > 0, f"no {what} within {timeout} s"
                self._news.wait(min(left, 1.0))
            return found


@contextmanager
def dev_server(
    state: Path, with_signal: signal.Signals = signal.SIGINT, *, config: Path | None = None, **settings: str
) -> Iterator[DevServer]:
    """`switchboard dev` on free ports; it has to end well and to have had nothing to complain of.

    Args:
        state: a folder for the dev issuer's key.
        with_signal: ends the process.
        config: a policy; None takes the example, as people do.
        settings: as in the environment, in lower case and without prefix.
    """
    environment = {
        **os.environ,
        **{f"SWITCHBOARD_{name.upper()}": value for name, value in settings.items()},
        "XDG_STATE_HOME": str(state),
        # The pages of a whole run come from one address within a minute, more than one person ever opens.
        "SWITCHBOARD_EDGE_EXEMPT": "127.0.0.0/8",
    }
    command = [str(COMMAND), "dev", "--port", "0", "--ops-port", "0", *(["--config", str(config)] if config else [])]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            server = DevServer(process, environment)
        except BaseException:
            process.kill()
            raise
        try:
            yield server
        finally:
            code = server.stop(with_signal)
        assert code == 0, f"it ended with {code}: {''.join(server.stderr)}"
        assert server.stderr == [], "".join(server.stderr)
