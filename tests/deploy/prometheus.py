"""A real Prometheus and its promtool, from the machine or from where `scripts/setup test` puts them."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import ryaml

from tests.support.process import free_ports

FOLDER = Path(__file__).parents[2] / "deploy" / "prometheus"
_PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
Series = Mapping[str, Any]


def promtool(*args: str | Path) -> str:
    """What `promtool` says; it has to be content."""
    done = subprocess.run(
        [_binary("promtool"), *args], cwd=FOLDER, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Prometheus:
    """A server on loopback."""

    def __init__(self, port: int, log: Path) -> None:
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=10)
        self._log = log

    def close(self) -> None:
        self._client.close()

    def until_ready(self, process: "subprocess.Popen[bytes]") -> None:
        end = time.monotonic() + 15
        while True:
            try:
                if self._client.get("/-/ready").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            assert process.poll() is None, self._log.read_text()
            assert time.monotonic() < end, self._log.read_text()
            time.sleep(0.05)

    def until_seen(self, targets: int) -> None:
        """Wait for the first scrapes; Prometheus takes some seconds to look for targets at all."""
        end = time.monotonic() + 15
        while not any(one["value"][1] == str(targets) for one in self.at("sum(up)", time.time())):
            assert time.monotonic() < end, self._log.read_text()
            time.sleep(0.1)

    def over(self, expr: str, begin: float, end: float) -> list[Series]:
        """The series of a query over some time, a value each second."""
        return list(self._get("query_range", query=expr, start=begin, end=end, step=1)["result"])

    def at(self, expr: str, moment: float) -> list[Series]:
        """The series of a query at a moment."""
        return list(self._get("query", query=expr, time=moment)["result"])

    def values_of(self, label: str, series: str) -> list[str]:
        """The values of a label."""
        return list(self._get(f"label/{label}/values", **{"match[]": series}))

    @property
    def rules(self) -> list[Mapping[str, Any]]:
        """The rules as they are evaluated."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def own_metric(self, name: str) -> float:
        """The sum of a metric of Prometheus's own."""
        lines = self._client.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))

    def _get(self, what: str, **asked: Any) -> Any:
        answer = self._client.get(f"/api/v1/{what}", params=asked).json()
        assert answer["status"] == "success", answer
        assert not answer.get("warnings"), answer
        return answer["data"]


@contextmanager
def prometheus(config: Mapping[str, Any], folder: Path) -> Iterator[Prometheus]:
    """A server that does not outlive its test; its data are in the folder."""
    file, log = folder / "prometheus.yaml", folder / "prometheus.log"
    file.write_text(ryaml.dumps(dict(config)))
    (port,) = free_ports(1)
    command = [_binary("prometheus"), f"--config.file={file}", f"--web.listen-address=127.0.0.1:{port}"]
    command += [f"--storage.tsdb.path={folder / 'data'}", "--log.level=warn"]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as process:
        made = Prometheus(port, log)
        try:
            made.until_ready(process)
            yield made
        finally:
            made.close()
            process.kill()


def _binary(name: str) -> str:
    found = shutil.which(name, path=_PATH)
    assert found is not None, f"{name} is missing: run scripts/setup test"
    return found
