"""The architecture as a test: imports run downward only, only the top reads settings, nothing is left over."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "service" / "switchboard"

# From the top down; a module may import those below its own line, and its own folder.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"probe"},
    {"dev", "console", "serving"},
    {"app"},
    {"server", "workers"},
    {"heads"},
    {"settings", "logs", "metrics"},
    {"middleware", "endpoints"},
    {"config", "broker", "operators"},
    {"leash"},
    {"admission"},
    {"providers", "ledger", "audit", "grants"},
    {"tenants"},
    {"presets", "sdp", "ratelimit"},
    {"identity", "waiting"},
    {"reports", "errors", "sessions", "data", "clientaddress", "calls", "clock", "logcontext"},
    {"values"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
STANDALONE = {"emulator", "web"}  # the emulator stands for somebody else's program: it may use `sessions` alone


def modules():
    for file in sorted(PACKAGE.rglob("*.py")):
        yield file.relative_to(PACKAGE)


def imported(file: Path) -> set[str]:
    """The rooms of our package that a module imports."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / file).read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names} | {node.module}
    ours = {name.split(".")[1] for name in found if name.startswith("switchboard.")}
    return {name for name in ours if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()}


def room(file: Path) -> str:
    return file.parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", [file for file in modules() if room(file) not in {"__init__", *STANDALONE}], ids=str)
def test_imports_run_downward(file):
    here = room(file)
    assert here in RANK, f"{here} has no room in LAYERS"
    for other in imported(file) - {here}:
        if other == "emulator":
            assert here in {"cli", "dev"}
        else:
            assert RANK[other] > RANK[here], f"{file} imports {other}, which lies above it or beside it"


@pytest.mark.parametrize("file", [file for file in modules() if room(file) == "emulator"], ids=str)
def test_the_emulator_shares_only_the_session_models(file):
    assert imported(file) <= {"emulator", "sessions"}


@pytest.mark.parametrize("file", [file for file in modules() if room(file) == "sessions"], ids=str)
def test_the_session_models_stand_alone(file):
    assert imported(file) <= {"sessions"}


def test_only_the_top_reads_settings():
    readers = {room(file) for file in modules() if "settings" in imported(file)}
    assert readers <= {"app", "server", "cli", "dev", "serving"}


BUSINESS = {
    "broker", "operators", "leash", "clock", "admission", "grants", "presets", "tenants", "calls", "ledger", "identity",
    "sdp", "providers", "waiting", "values",
}  # fmt: skip


@pytest.mark.parametrize("file", [file for file in modules() if room(file) in BUSINESS], ids=str)
def test_business_code_has_no_counters_logs_or_http_types(file):
    names = set()
    for node in ast.walk(ast.parse((PACKAGE / file).read_text())):
        if isinstance(node, ast.Import):
            names |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    assert not names & {"prometheus_client", "structlog", "logging", "starlette", "uvicorn"}


def test_nothing_global_changes():
    """Module level holds constants: no `global`, no lower-case names that are rebound."""
    for file in modules():
        for node in ast.walk(ast.parse((PACKAGE / file).read_text())):
            assert not isinstance(node, ast.Global), file
