"""What Kubernetes takes: its own schemas by minor version, and those of the custom resources that the chart makes."""

import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from tests.helm.chart import Manifest

# The three newest that are out, by what k8s.io/api publishes; kubernetes-validate carries the schema of each.
MINORS = ("1.35", "1.36", "1.37")
# The oldest that Chart.yaml lets in.
OLDEST = "1.30"
CRDS = Path(__file__).parent / "crds"


@cache
def _definitions(minor: str) -> dict[str, Any]:
    # Found without importing it: only its data are wanted.
    spec = importlib.util.find_spec("kubernetes_validate")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0]) / "kubernetes-json-schema" / f"v{minor}.0-local-strict"
    found: dict[str, Any] = json.loads((folder / "_definitions.json").read_text(encoding="utf-8"))
    return found


@cache
def _registry(minor: str) -> Registry[Any]:
    resource: Resource[Any] = DRAFT202012.create_resource(_definitions(minor))
    registry: Registry[Any] = Registry().with_resource("_definitions.json", resource)
    return registry


@cache
def _kinds(minor: str) -> dict[tuple[str, str], str]:
    """Group/version and kind to the name of the definition."""
    found = {}
    for name, definition in _definitions(minor)["$defs"].items():
        for one in definition.get("x-kubernetes-group-version-kind", []):
            found["/".join(filter(None, (one["group"], one["version"]))), one["kind"]] = name
    return found


@cache
def custom() -> dict[tuple[str, str], dict[str, Any]]:
    """Group/version and kind of the custom resources to their schema."""
    found = {}
    for file in sorted(CRDS.glob("*.json")):
        spec = json.loads(file.read_text(encoding="utf-8"))["spec"]
        for version in spec["versions"]:
            schema = _strict(version["schema"]["openAPIV3Schema"])
            # Kubernetes itself checks these, and they are left open in every definition.
            schema["properties"]["metadata"] = {"type": "object"}
            found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


def _strict(node: Any) -> Any:
    """The schema without room for unknown properties, which an API server drops with no more than a warning."""
    if isinstance(node, list):
        return [_strict(one) for one in node]
    if not isinstance(node, dict):
        return node
    made = {name: _strict(value) for name, value in node.items()}
    if isinstance(made.get("properties"), dict) and "additionalProperties" not in made:
        made["additionalProperties"] = bool(made.get("x-kubernetes-preserve-unknown-fields"))
    if made.pop("x-kubernetes-int-or-string", False):
        made.pop("anyOf", None)
        made["type"] = ["integer", "string"]
    return made


@cache
def _validator(minor: str, version: str, kind: str) -> Draft202012Validator:
    known = custom().get((version, kind))
    if known is not None:
        return Draft202012Validator(known)
    name = _kinds(minor)[version, kind]
    return Draft202012Validator({"$ref": f"_definitions.json#/$defs/{name}"}, registry=_registry(minor))


def mistakes(manifest: Manifest, minor: str) -> list[str]:
    """What is wrong with an object, by Kubernetes of this minor version."""
    validator = _validator(minor, manifest["apiVersion"], manifest["kind"])
    return [
        f"{manifest['kind']} {'.'.join(map(str, one.absolute_path))}: {one.message[:200]}"
        for one in validator.iter_errors(manifest)
    ]
