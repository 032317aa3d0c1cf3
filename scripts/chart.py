"""Write what the chart takes from elsewhere, or, with --check, name what is out of date (exit code 1).

- `values.schema.json`: its parts `settings` and `prober.options`, from the program's own settings and options
- `README.md`: the table of values, from the comments in `values.yaml`
- `files/`: links to the rules and dashboards in `deploy/`, which helm packs as files
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from switchboard.cli import main as program
from switchboard.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "helm" / "switchboard"
LINKED = {"prometheus": "rules*.yaml", "grafana": "*.json"}

# What the chart decides itself: where things are mounted, ports that its Services lead to, and secrets.
OWN = ("config", "port", "ops_port")
SECRETS = ("signing_keys", "user_key_secret", "audit_key", "admin_token", "redis_url")
# Of `switchboard probe`, likewise: where it goes, who it is, and how it tells; a pod's log is for people.
OWN_OPTIONS = ("url", "anonymous", "token_file", "other_token_file", "signing_key_file", "in_json", "prometheus")


def settings_schema() -> dict[str, Any]:
    """What `settings` accepts: the program's own bounds, in the words of JSON Schema."""
    fields = Settings.model_json_schema()["properties"]
    properties = {name: _value(field) for name, field in fields.items() if name not in OWN + SECRETS}
    properties["public_url"]["pattern"] = (
        f"^$|{properties['public_url']['pattern']}"  # its absence has its own sentence
    )
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _value(field: dict[str, Any]) -> dict[str, Any]:
    """One field, without what Kubernetes has no use for: null, defaults, formats that Helm does not know."""
    for choice in field.pop("anyOf", []):
        if choice.get("type") != "null":
            field |= choice
    if field["type"] == "array":
        field["items"] = {"type": "string", "minLength": 1}
    kept = ("description", "type", "items", "enum", "pattern", "minimum", "maximum", "exclusiveMinimum")
    return {name: field[name] for name in kept if name in field}


def options_schema() -> dict[str, Any]:
    """What `prober.options` accepts: the options of `switchboard probe`, in the words of JSON Schema."""
    options = [one for one in program.commands["probe"].params if isinstance(one, click.Option)]
    properties = {str(one.name): _option(one) for one in options if one.name not in OWN_OPTIONS}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _option(option: click.Option) -> dict[str, Any]:
    if option.is_flag:
        return {"description": option.help, "type": "boolean"}
    if isinstance(option.type, click.FloatRange):
        bounds = {"minimum": option.type.min, "maximum": option.type.max}
        return {"description": option.help, "type": "number", **bounds}
    value: dict[str, Any] = {"type": "string", "minLength": 1}
    if isinstance(option.type, click.Choice):
        value = {"enum": list(option.type.choices)}
    return {"description": option.help, **({"type": "array", "items": value} if option.multiple else value)}


def described(lines: list[str]) -> Iterator[tuple[str, str, str]]:
    """Path, default and explanation of each value: an explanation is the comment before or behind it."""
    parents: list[str] = []
    comment: list[str] = []
    for line in lines:
        if not line.strip():
            comment = []
        elif line.lstrip().startswith("#"):
            comment.append(line.strip().lstrip("# "))
        elif match := re.match(r"( *)(\w+):(?: (.*?))?(?: # (.*))?$", line):
            indent, name, default, behind = match.groups()
            parents = [*parents[: len(indent) // 2], name]
            text = " ".join([*comment, behind or ""]).strip()
            yield ".".join(parents), default or "", text
            comment = []


def values() -> list[tuple[str, str, str]]:
    """The values that can be set, each with its explanation; what only groups others lends them its own."""
    lines = (CHART / "values.yaml").read_text(encoding="utf-8").splitlines()
    told = list(described(lines))
    groups = {path.rpartition(".")[0] for path, *_ in told}
    return [
        (path, default or "see values.yaml", text) if path not in groups else (path, "", text)
        for path, default, text in told
    ]


def readme() -> str:
    """The chart's README."""
    rows = [f"| `{path}` | {f'`{default}`' if default else ''} | {text} |" for path, default, text in values()]
    return "\n".join(
        [
            "# Chart of Switchboard",
            "",
            "How to install it, step by step: [docs/deploy.md](../../docs/deploy.md). Written by `make chart-files`.",
            "",
            "| value | default | meaning |",
            "|---|---|---|",
            *rows,
            "",
            "`settings` takes the variables of [operations](../../docs/operations.md#variables) in small letters and",
            f"without `{PREFIX}`, except {_quoted(OWN)}, which the chart decides,",
            f"and {_quoted(SECRETS)}, which come from a Secret or from `redis`.",
            "",
            "Situations that are tested, one file each: [ci/](ci).",
            "",
        ]
    )


def _quoted(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def wanted() -> dict[Path, str]:
    """Every derived file and what has to stand in it."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    schema["properties"]["settings"] = settings_schema()
    schema["properties"]["prober"]["properties"]["options"] = options_schema()
    return {
        CHART / "values.schema.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n",
        CHART / "README.md": readme(),
    }


def links() -> dict[Path, Path]:
    """Every link and what it has to lead to."""
    return {
        CHART / "files" / folder / file.name: Path("../../../..", file.relative_to(ROOT))
        for folder, pattern in LINKED.items()
        for file in sorted((ROOT / "deploy" / folder).glob(pattern))
    }


def stale() -> list[Path]:
    """Files that differ from what has to stand in them, links that lead elsewhere, what nothing derives any more."""
    left = [file for folder in LINKED for file in (CHART / "files" / folder).glob("*") if file not in links()]
    wrong = [file for file, text in wanted().items() if not file.exists() or file.read_text(encoding="utf-8") != text]
    return left + wrong + [link for link, to in links().items() if not link.is_symlink() or link.readlink() != to]


def main() -> int:
    """Write, or check."""
    out_of_date = stale()
    check = "--check" in sys.argv
    for file in out_of_date:
        print(file.relative_to(ROOT), file=sys.stderr if check else sys.stdout)
        if check:
            continue
        if file in wanted():
            file.write_text(wanted()[file], encoding="utf-8")
            continue
        file.unlink(missing_ok=True)
        if file in links():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.symlink_to(links()[file])
    return int(check and bool(out_of_date))


if __name__ == "__main__":
    sys.exit(main())
