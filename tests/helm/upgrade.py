"""What an upgrade from the last version changes, for somebody who keeps their values.

    python -m tests.helm.upgrade            write last/upgrade.diff anew, to be read before it is committed
    python -m tests.helm.upgrade --release  make today's chart the last version, when one is released

`last/` holds the values and renderings of each case as they were then; without rules and dashboards, which say little
about an upgrade and much of everything else.
"""

import difflib
import json
import re
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from tests.helm import chart

LAST = Path(__file__).parent / "last"
DIFF = LAST / "upgrade.diff"
# What differs with every version.
VERSIONED = re.compile(r"^ *(helm\.sh/chart|app\.kubernetes\.io/version): .*\n", re.MULTILINE)


@cache
def bare() -> Path:
    """The chart without rules and dashboards."""
    folder = Path(tempfile.mkdtemp()) / "switchboard"
    shutil.copytree(chart.CHART, folder, ignore=shutil.ignore_patterns("files"))
    return folder


def before() -> dict[str, Path]:
    """The cases of the last version: name to values."""
    return {chart.case_name(file): file for file in sorted(LAST.glob("*-values.yaml"))}


def rendered(values: Path, *, name: str = chart.NEWEST) -> str:
    """What today's chart makes of values."""
    how = ("--namespace", chart.NAMESPACE, "--values", values)
    made = VERSIONED.sub("", chart.helm("template", chart.RELEASE, bare(), *how, name=name))
    made = re.sub(r"\n{2,}", "\n", made)  # where helms differ
    # A new tag is the point of a new version.
    return re.sub(r"(image: [^\s@]+):[\w.-]+$", r"\1:TAG", made, flags=re.MULTILINE)


def difference() -> str:
    """Old renderings and new ones, compared."""
    return "".join(
        line
        for case, values in before().items()
        for line in difflib.unified_diff(
            (LAST / f"{case}.yaml").read_text(encoding="utf-8").splitlines(keepends=True),
            rendered(values).splitlines(keepends=True),
            f"last/{case}",
            f"now/{case}",
            n=2,
        )
    )


def forbidden(old: list[chart.Manifest], new: list[chart.Manifest]) -> list[str]:
    """What Kubernetes would refuse, or what would take the service away: changed selectors, objects that are gone."""

    def by_name(manifests: list[chart.Manifest]) -> dict[tuple[str, str, str], chart.Manifest]:
        return {(one["apiVersion"], one["kind"], one["metadata"]["name"]): one for one in manifests}

    def fixed(manifest: chart.Manifest) -> Any:
        spec = manifest.get("spec", {})
        return {"Deployment": spec.get("selector"), "Service": spec.get("clusterIP")}.get(manifest["kind"])

    now = by_name(new)
    found = [f"{key[1]} {key[2]} is gone" for key in by_name(old) if key not in now]
    return found + [
        f"{key[1]} {key[2]}: {json.dumps(fixed(one))} has become {json.dumps(fixed(now[key]))}"
        for key, one in by_name(old).items()
        if key in now and fixed(one) != fixed(now[key])
    ]


def main() -> int:
    """Write."""
    if "--release" in sys.argv:
        shutil.rmtree(LAST, ignore_errors=True)
        LAST.mkdir()
        for file in chart.CASES:
            shutil.copy(file, LAST)
            (LAST / f"{chart.case_name(file)}.yaml").write_text(rendered(file), encoding="utf-8")
    DIFF.write_text(difference(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
