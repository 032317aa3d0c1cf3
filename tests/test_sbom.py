"""The bill of materials says what the locks say."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def locked(name: str) -> dict[tuple[str, str], set[str]]:
    """The hashes by package and version."""
    text = (ROOT / "locks" / f"{name}.txt").read_text(encoding="utf-8")
    found = re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]
    return {
        (head[1], head[2]): set(re.findall(r"--hash=sha256:([0-9a-f]{64})", one))
        for one in found
        if (head := re.match(r"([a-z0-9-]+)(?:\[[a-z,]+\])?==(\S+)", one))
    }


@pytest.mark.parametrize(
    "name", ["runtime", *(pytest.param(name, marks=pytest.mark.long) for name in ("demo", "otel", "azure"))]
)
def test_it_names_every_locked_package_with_its_hashes(name, tmp_path):
    subprocess.run([ROOT / "scripts" / "sbom", tmp_path, name], check=True, capture_output=True)
    bill = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
    assert bill["bomFormat"] == "CycloneDX"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    root = bill["metadata"]["component"]
    assert (root["name"], root["version"]) == (project["name"], project["version"])
    told = {
        (component["name"].lower().replace("_", "-").replace(".", "-"), component["version"]): {
            digest["content"] for reference in component["externalReferences"] for digest in reference["hashes"]
        }
        for component in bill["components"]
    }
    assert told == locked(name)
    assert len(told) >= 38
    assert all(told.values()), "a package without a hash"


def test_every_lock_has_hashes_alone():
    """What is not pinned by hash would be fetched whatever it is by then."""
    for lock in (ROOT / "locks").glob("*.txt"):
        packages = locked(lock.stem)
        assert len(packages) == len(re.findall(r"^[a-z]", lock.read_text(encoding="utf-8"), re.MULTILINE))
        assert all(packages.values()), lock
