"""Pods of the chart as processes of this machine: with the arguments, variables, files, probes and times it renders."""

import re
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.helm import chart
from tests.helm.chart import Values
from tests.support.process import Process, free_ports


def environment_here(
    case: str, folder: Path, secrets: Mapping[str, str], redis_url: str, given: Values | None = None
) -> dict[str, str]:
    """The container's variables, with the pod's folders made here and ports that are free.

    Args:
        case: of ci/.
        folder: where the pod's folders are made.
        secrets: what the Secret holds, by key.
        redis_url: of the Redis here, if the case has one.
        given: values that differ from the case's.
    """
    folders = {one["mountPath"]: folder / one["name"] for one in chart.container(case, given)["volumeMounts"]}
    for one in folders.values():
        one.mkdir(exist_ok=True)

    def here(text: str) -> str:
        # All in one go: the folders here are below /tmp, which is one of the pod's.
        return re.sub(rf"({'|'.join(map(re.escape, folders))})(?=/|$)", lambda found: str(folders[found[1]]), text)

    for key, secret in secrets.items():
        (folder / "secrets" / key).write_text(secret)
    volumes = chart.pod(case, given)["spec"]["volumes"]
    sources = next(one["projected"]["sources"] for one in volumes if "projected" in one)
    for source in sources:
        made = chart.objects(case, given).get(("ConfigMap", source["configMap"]["name"]))
        for name, text in (made or {"data": {}})["data"].items():
            (folder / "policy" / name).write_text(text.replace("/run/secrets/switchboard", str(folder / "secrets")))
    found = {name: here(value) for name, value in chart.environment(case, given).items()}
    for one in chart.container(case, given)["env"]:
        if "valueFrom" in one:
            found[one["name"]] = secrets[one["valueFrom"]["secretKeyRef"]["key"]]
    if "SWITCHBOARD_REDIS_URL" in found:
        found["SWITCHBOARD_REDIS_URL"] = redis_url
    public, ops = free_ports(2)
    return {**found, "SWITCHBOARD_PORT": str(public), "SWITCHBOARD_OPS_PORT": str(ops)}


@dataclass(frozen=True, slots=True)
class Stopped:
    """How a pod ended: its exit code, and the seconds from the signal on."""

    code: int
    seconds: float


class LocalPod:
    """A pod that runs, as a kubelet would run it.

    Args:
        case: of ci/.
        env: from `environment_here`.
        given: values that differ from the case's.
    """

    def __init__(self, case: str, env: Mapping[str, str], given: Values | None = None) -> None:
        self._container = chart.container(case, given)
        self._grace_seconds = chart.pod(case, given)["spec"]["terminationGracePeriodSeconds"]
        self._ports = {"http": int(env["SWITCHBOARD_PORT"]), "ops": int(env["SWITCHBOARD_OPS_PORT"])}
        # As in the pod: no folder of the machine is the program's own.
        self.process = Process(*self._container["args"], env=dict(env), cwd=Path("/"))

    @property
    def port(self) -> int:
        """Where the Service leads."""
        return self._ports["http"]

    @property
    def pre_stop_seconds(self) -> float:
        """Between leaving the Service and the signal."""
        return float(self._container["lifecycle"]["preStop"]["sleep"]["seconds"])

    def until_ready(self) -> float:
        """Probe it as a kubelet does: by the startup probe, then by the readiness probe; gives the seconds it took.

        Raises:
            AssertionError: more failures than the startup probe allows, after which it would have been killed.
        """
        begin = time.monotonic()
        probe = self._container["startupProbe"]
        for _ in range(probe["failureThreshold"]):
            if self.answers("startupProbe"):
                assert self.answers("readinessProbe")
                return time.monotonic() - begin
            assert self.process.popen.poll() is None, self.process.err
            time.sleep(probe["periodSeconds"])
        raise AssertionError("its startup probe failed too often")

    def answers(self, name: str) -> bool:
        """Whether a probe succeeds now."""
        probe: dict[str, Any] = self._container[name]
        asked = probe["httpGet"]
        url = f"http://127.0.0.1:{self._ports[asked['port']]}{asked['path']}"
        try:
            return httpx.get(url, timeout=probe.get("timeoutSeconds", 1), trust_env=False).is_success
        except httpx.TransportError:
            return False

    def stop(self) -> Stopped:
        """SIGTERM, after the sleep that the caller has kept; killed when its grace period is over."""
        begin = time.monotonic()
        self.process.popen.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(self._grace_seconds - self.pre_stop_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = -signal.SIGKILL
        return Stopped(code, time.monotonic() - begin)
