"""The chart as a real helm renders it. Renderings are kept, as many tests look at the same ones."""

import json
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import ryaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "switchboard"
CASES = sorted((CHART / "ci").glob("*-values.yaml"))
RELEASE, NAMESPACE = "voice", "calls"

_TOOLS = Path(__file__).parent / "tools" / "node_modules" / ".bin"
# scripts/setup puts both there; for machines that their packages do not serve, it asks for any helm.
HELMS = {file.name: str(file) for file in sorted(_TOOLS.glob("helm-*"))} or {"helm": "helm"}
NEWEST = max(HELMS)

Values = dict[str, Any]
Manifest = dict[str, Any]


class Refused(Exception):
    """helm would not render or pack; the message is its own."""


def helm(*arguments: str | Path, name: str = NEWEST) -> str:
    """What a helm prints.

    Raises:
        Refused: its exit code is not 0.
    """
    binary = shutil.which(HELMS[name])
    assert binary, "helm is missing: run scripts/setup test"
    done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise Refused(done.stdout + done.stderr)
    return done.stdout


@cache
def _rendered(case: str, overrides: str, name: str, release: str, chart: str) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(overrides)
        file.flush()
        cases = ["--values", str(CHART / "ci" / f"{case}-values.yaml")] if case else []
        how = ["--namespace", NAMESPACE, *cases, "--values", file.name]
        return helm("template", release, chart, *how, name=name)


def text(case: str, overrides: Values | None = None, *, name: str = NEWEST, release: str = RELEASE) -> str:
    """The YAML of a case of ci/, with some values changed; an empty case is the chart's own defaults."""
    return _rendered(case, json.dumps(overrides or {}), name, release, str(CHART))


def manifests(rendered: str) -> list[Manifest]:
    """The objects in a rendering."""
    documents = re.split(r"^---\s*$", rendered, flags=re.MULTILINE)
    return [one for one in (ryaml.loads(document) for document in documents) if one is not None]


def objects(case: str, overrides: Values | None = None, **how: str) -> dict[tuple[str, str], Manifest]:
    """The objects of a case by kind and name."""
    return {(one["kind"], one["metadata"]["name"]): one for one in manifests(text(case, overrides, **how))}


def only(kind: str, case: str, overrides: Values | None = None, **how: str) -> Manifest:
    """The one object of a kind."""
    (found,) = [one for (its, _), one in objects(case, overrides, **how).items() if its == kind]
    return found


def pod(case: str, overrides: Values | None = None) -> dict[str, Any]:
    """The Deployment's pod."""
    found: dict[str, Any] = only("Deployment", case, overrides)["spec"]["template"]
    return found


def probe_pods(case: str, overrides: Values | None = None) -> dict[str, dict[str, Any]]:
    """The pods of `switchboard probe` as the objects have them: kind to metadata and spec."""
    found = {kind: one for (kind, _), one in objects(case, overrides).items() if kind in {"Pod", "CronJob"}}
    if "CronJob" in found:
        found["CronJob"] = found["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]
    return found


def network_policy(case: str, overrides: Values | None = None, *, of: str = "") -> dict[str, Any]:
    """What a NetworkPolicy says: the service's, or with `of="-probe"` the prober's."""
    found: dict[str, Any] = objects(case, overrides)["NetworkPolicy", f"{RELEASE}-switchboard{of}"]["spec"]
    return found


def container(case: str, overrides: Values | None = None) -> dict[str, Any]:
    """Its container."""
    (found,) = pod(case, overrides)["spec"]["containers"]
    return dict(found)


def environment(case: str, overrides: Values | None = None) -> dict[str, str]:
    """The container's variables, but those out of a Secret."""
    return {one["name"]: one["value"] for one in container(case, overrides)["env"] if "value" in one}


def case_name(file: Path) -> str:
    return file.name.removesuffix("-values.yaml")


CASE_NAMES = [case_name(file) for file in CASES]
