"""From files to a policy: every mistake at once, and what will stop working soon."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import ryaml
from pydantic import ValidationError

from switchboard.config.mistakes import Mistake, Place, shown
from switchboard.config.rules import across
from switchboard.config.schema import Config, Tenant
from switchboard.sessions import warnings

MAX_FILE_BYTES = 64 * 1024 * 1024  # ten thousand tenants are 27 MB
SUFFIXES = (".yaml", ".yml")
CALL_LIMITS = ("minutes", "open_calls", "call_seconds", "idle_seconds")


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of reading a policy: `config` is None as soon as there is a single mistake."""

    config: Config | None
    mistakes: tuple[Mistake, ...]
    advice: tuple[Mistake, ...] = ()


def read(path: Path, *, today: date) -> Checked:
    """Read and check a policy.

    Args:
        path: a YAML file, or a folder whose YAML files are read as one policy.
        today: decides what counts as stopping soon.
    """
    try:
        files = files_of(path)
        trees = [tree_of(file, bytes_of(file)) for file in files]
    except Unreadable as error:
        return Checked(None, (error.mistake,))
    merged, mistakes = _merge(files, trees)
    return check(merged, today=today, already=mistakes)


def parse(path: Path) -> dict[str, Any]:
    """The tree in a file or folder, unchecked.

    Raises:
        Unreadable: there is no YAML mapping in it.
    """
    files = files_of(path)
    return _merge(files, [tree_of(file, bytes_of(file)) for file in files])[0]


def check(tree: object, *, today: date, already: tuple[Mistake, ...] = ()) -> Checked:
    """Check a policy that has been parsed."""
    if not isinstance(tree, dict):
        mistake = Mistake((), shown((), tree), "a mapping with `providers`, `issuers` and `tenants`")
        return Checked(None, (*already, mistake))
    mistakes = [*already]
    config = None
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        mistakes += mistakes_of(error)
    at_fault = {mistake.path for mistake in mistakes}
    mistakes += [mistake for mistake in across(tree) if mistake.path not in at_fault]
    if config is None or mistakes:
        return Checked(None, tuple(mistakes))
    return Checked(config, (), tuple(_advice(config, today)))


class Unreadable(Exception):
    """A file holds no policy at all; `mistake` says why."""

    def __init__(self, path: Path, found: str, right: str) -> None:
        self.mistake = Mistake((str(path),), found, right)
        super().__init__(str(self.mistake))


def files_of(path: Path) -> list[Path]:
    """The files of a policy, in their order.

    Raises:
        Unreadable: it is a folder without any, or one that cannot be listed.
    """
    if not path.is_dir():
        return [path]
    try:
        files = [path / name for name in sorted(filter(is_policy, os.listdir(path)))]  # noqa: PTH208 - much faster
    except OSError as error:
        raise Unreadable(path, str(error.strerror), "a readable folder") from None
    if not files:
        raise Unreadable(path, "a folder without YAML files", "at least one file that ends in .yaml")
    return files


def is_policy(name: str) -> bool:
    """Whether a file of this name in a folder is part of the policy."""
    # A mounted ConfigMap holds `..data` and the like beside its files.
    return name.endswith(SUFFIXES) and not name.startswith(".")


def bytes_of(file: Path) -> bytes:
    """What is in a file.

    Raises:
        Unreadable: it cannot be read, or is too large.
    """
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise Unreadable(file, f"more than {MAX_FILE_BYTES} bytes", "a smaller file, or a folder of files")
        return file.read_bytes()
    except OSError as error:
        raise Unreadable(file, str(error.strerror), "a readable YAML file") from None


def tree_of(file: Path, content: bytes) -> dict[str, Any]:
    """What a file says, unchecked.

    Raises:
        Unreadable: it is no YAML mapping.
    """
    try:
        tree = ryaml.loads(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise Unreadable(file, "text that is not UTF-8", "a readable YAML file") from None
    except ryaml.InvalidYamlError as error:
        raise Unreadable(file, f"invalid YAML: {error}", "YAML in which every key stands once") from None
    if not isinstance(tree, dict):
        raise Unreadable(file, shown((), tree), "a mapping with `providers`, `issuers` or `tenants`")
    return tree


def _merge(files: list[Path], trees: list[dict[str, Any]]) -> tuple[dict[str, Any], tuple[Mistake, ...]]:
    """One tree of several: mappings are joined, lists are strung together, and no name stands in two files."""
    merged: dict[str, Any] = {}
    mistakes: list[Mistake] = []
    for file, tree in zip(files, trees, strict=True):
        for section, content in tree.items():
            before = merged.get(section)
            if before is None:
                merged[section] = content
            elif isinstance(before, list) and isinstance(content, list):
                merged[section] = before + content
            elif isinstance(before, dict) and isinstance(content, dict):
                mistakes += [
                    Mistake((section, name), f"a second time in {file.name}", "a name that stands in one file")
                    for name in before.keys() & content.keys()
                ]
                merged[section] = {**before, **content}
            else:
                mistakes.append(Mistake((section,), f"something else in {file.name}", "the same kind in every file"))
    return merged, tuple(mistakes)


def mistakes_of(error: ValidationError) -> list[Mistake]:
    """What the schema says, in our words."""
    return [_mistake(line) for line in error.errors(include_url=False)]


def _mistake(line: Mapping[str, Any]) -> Mistake:
    context = line.get("ctx", {})
    missing = line["type"] == "missing" or context.get("missing", False)
    return Mistake(
        line["loc"],
        None if missing else shown(line["loc"], line["input"]),
        str(context.get("right", line["msg"])),
    )


def _advice(config: Config, today: date) -> list[Mistake]:
    found: list[Mistake] = []
    for tenant_name, tenant in config.tenants.items():
        place = ("tenants", tenant_name)
        found += _out_of_reach((*place, "presets"), tenant)
        at_azure = config.providers[tenant.provider].kind == "azure"
        for preset_name, preset in tenant.presets.items():
            session = (*place, "presets", preset_name, "session")
            found += [
                Mistake((*session, *one.path), shown(one.path, one.found), one.right)
                for one in warnings(preset.session, today)
                # There a model is whatever its deployment was called.
                if not (at_azure and one.path[-1:] == ("model",))
            ]
    return found


def _out_of_reach(place: Place, tenant: Tenant) -> list[Mistake]:
    """Presets whose calls nobody here hears of, in a tenant that limits calls."""
    every = [tenant.limits, *(tenant.limits_by.values.values() if tenant.limits_by else ())]
    if not any(name in limits.model_fields_set for limits in every for name in CALL_LIMITS):
        return []
    found = "`direct`: limits of calls cannot hold for a session that goes past this service"
    return [
        Mistake((*place, name, "delivery"), found, "`relay`, if they are meant for this preset")
        for name, preset in tenant.presets.items()
        if preset.delivery == "direct"
    ]
