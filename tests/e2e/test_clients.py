"""The npm packages that browser tests use: each by its exact version and hash, and from no registry in particular."""

import json
import re
from pathlib import Path

CLIENTS = Path(__file__).with_name("clients")
MANIFEST = json.loads((CLIENTS / "package.json").read_text(encoding="utf-8"))
LOCK = json.loads((CLIENTS / "package-lock.json").read_text(encoding="utf-8"))


def test_versions_are_exact():
    wanted = MANIFEST["dependencies"] | MANIFEST["devDependencies"]
    assert [version for version in wanted.values() if not re.fullmatch(r"\d+\.\d+\.\d+", version)] == []
    locked = {name: LOCK["packages"][f"node_modules/{name}"]["version"] for name in wanted}
    assert locked == wanted


def test_every_package_has_its_hash_and_none_an_address():
    packages = {name: package for name, package in LOCK["packages"].items() if name}
    assert packages
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, name
