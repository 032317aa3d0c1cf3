"""`switchboard dev` as people start it: a process of its own, listened to on both streams."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from tests.e2e.running import Running, until
from tests.support.leaks import LEAKS

# The console script beside this Python: what `make demo` runs, and what the printed curl lines call again.
COMMAND = Path(sys.executable).with_name("switchboard")
START_SECONDS = 20.0
STOP_SECONDS = 10.0


class DevServer(Running):
    """The running process: the base class of all, the demo's own issuer, and the lines that it prints for people."""

    def __init__(self, process: subprocess.Popen[str], environment: dict[str, str]) -> None:
        self.environment = environment
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self._process = process
        self._readers = [
            threading.Thread(target=self._read, args=stream, daemon=True)
            for stream in ((process.stdout, self.stdout), (process.stderr, self.stderr))
        ]
        for reader in self._readers:
            reader.start()
        url = self._said(r"Talk: +(http://\S+)/demo")
        super().__init__("dev", url, self._said(r"Metrics: +(http://\S+)/metrics"))
        self._said(r"(Stop with Ctrl-C)")

    @property
    def curl_lines(self) -> list[str]:
        """What it invites people to paste."""
        return [line.strip() for line in self.stdout if line.strip().startswith("curl ")]

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in list(self.stdout) if line.startswith("{")]

    @cached_property
    def provider_url(self) -> str:
        """Where the example's tenant with client secrets is told to post its offers."""
        headers = {"authorization": f"Bearer {self.token('widgets', 'asking-aurelia-1')}"}
        minted = self.client.get("/token", headers=headers).json()
        LEAKS.handed_out("answer GET /token", minted["value"])
        return str(minted["calls_url"]).removesuffix("/v1/realtime/calls")

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

    def _issued(self, tenant: str, subject: str, claims: dict[str, str]) -> str:
        answer = self.client.post("/demo/issue", json={"tenant": tenant, "subject": subject, "claims": claims})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["token"])

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        lines.extend(stream)

    def _said(self, pattern: str) -> str:
        def look() -> str | None:
            found = re.search(pattern, "".join(self.stdout))
            if found is None and self._process.poll() is not None:
                raise AssertionError(f"it ended with {self._process.returncode}: {''.join(self.stderr)}")
            return found and found[1]

        return until(look, START_SECONDS, f"{pattern!r} on stdout")


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
