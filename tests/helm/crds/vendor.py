"""Write the custom resource definitions that the chart's objects are held against; with --check, compare them.

    python -m tests.helm.crds.vendor [--check]

They come out of the projects' Go modules, by the versions in go.mod and the hashes in go.sum, so this needs Go. Kept is
what validates: no descriptions, and of the versions the one that the chart uses. All three projects: Apache-2.0.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import ryaml

HERE = Path(__file__).parent
SOURCES = {
    "sigs.k8s.io/gateway-api": ["config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"],
    "github.com/prometheus-operator/prometheus-operator": [
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ],
    "github.com/external-secrets/external-secrets": ["config/crds/bases/external-secrets.io_externalsecrets.yaml"],
}


def definitions() -> dict[Path, str]:
    """File to text, as they have to be here."""
    download = ["go", "mod", "download", "-json"]
    found = subprocess.run(download, cwd=HERE, check=True, capture_output=True, text=True).stdout
    modules = json.loads("[" + found.replace("}\n{", "},{") + "]")
    folders = {module["Path"]: Path(module["Dir"]) for module in modules}
    return {
        HERE / f"{Path(source).stem}.json": _kept(ryaml.loads((folders[module] / source).read_text(encoding="utf-8")))
        for module, sources in SOURCES.items()
        for source in sources
    }


def _kept(definition: dict[str, Any]) -> str:
    definition["metadata"] = {
        "name": definition["metadata"]["name"],
        # Groups of Kubernetes itself are only accepted with the approval that they came with.
        "annotations": {
            name: value
            for name, value in definition["metadata"]["annotations"].items()
            if name.startswith(("api-approved.kubernetes.io", "gateway.networking.k8s.io"))
        },
    }
    definition["spec"]["versions"] = [one for one in definition["spec"]["versions"] if one["name"] == "v1"]
    definition["spec"].pop("conversion", None)
    definition.pop("status", None)
    return json.dumps(_undescribed(definition), separators=(",", ":"), sort_keys=True) + "\n"


def _undescribed(node: Any) -> Any:
    if isinstance(node, dict):
        # A property may be called `description`; a description is a text.
        return {
            name: _undescribed(value)
            for name, value in node.items()
            if not (name == "description" and isinstance(value, str))
        }
    return [_undescribed(one) for one in node] if isinstance(node, list) else node


def main() -> int:
    """Write, or compare."""
    stale = [file for file, text in definitions().items() if not file.exists() or file.read_text() != text]
    if "--check" not in sys.argv:
        for file, text in definitions().items():
            file.write_text(text, encoding="utf-8")
        return 0
    sys.stdout.write("".join(f"{file.name} differs\n" for file in stale) or "all definitions are as published\n")
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
