"""The documentation, held against the repository: links, commands, variables, metrics, routes and policies."""

import json
import re
import tomllib
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from urllib.parse import unquote

import pytest
import ryaml
from pydantic_core import PydanticUndefined

from switchboard.cli import main
from switchboard.config.reading import check
from switchboard.metrics import Metrics
from switchboard.probe.steps import REFUSED, STEPS, Report, Result
from switchboard.probe.telling import as_prometheus
from switchboard.settings import PREFIX, Settings
from tests.identity.test_verifier import ATTACKS
from tests.support.clients import KNOWN
from tests.support.contract import OPERATIONS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TODAY = date(2026, 11, 20)
PAGES = sorted(
    file
    for file in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part == "node_modules" for part in file.relative_to(ROOT).parts)
)
LANGUAGES = {".js": "js", ".py": "python"}  # of examples, by the end of their names
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def code(page: Path) -> Iterator[str]:
    """What stands in fenced blocks and between backticks."""
    text = page.read_text(encoding="utf-8")
    yield from (block for _, block in FENCE.findall(text))
    yield from re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


def blocks() -> Iterator[tuple[Path, int, str]]:
    """The YAML that a page calls checked."""
    for page in PAGES:
        for number, (language, block) in enumerate(FENCE.findall(page.read_text(encoding="utf-8"))):
            if language == "yaml" and block.startswith("# checked"):
                yield page, number, block


def rows(page: Path, first_column: str) -> list[list[str]]:
    """The cells of the table whose first column has this name."""
    lines = iter(page.read_text(encoding="utf-8").splitlines())
    found = []
    for line in lines:
        if line.startswith(f"| {first_column} |"):
            next(lines)
            for row in lines:
                if not row.startswith("|"):
                    break
                found.append([cell.strip() for cell in row.strip("|").split("|")])
    assert found, f"{page.name} has no table of each {first_column}"
    return found


def quoted(cell: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the usual hosts make them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_links_and_pictures_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), f"{target} leads nowhere"
        assert not anchor or anchor in anchors(file), f"{target} names no heading"


@every_page
def test_diagrams_have_no_semicolons(page):
    """Mermaid ends a statement at one, in the middle of a text as well."""
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        assert language != "mermaid" or ";" not in block


@every_page
def test_commands_exist(page):
    for text in code(page):
        for name in re.findall(r"(?:^|[\s/])switchboard ([a-z][a-z-]*)", text):
            assert name in main.commands, f"`switchboard {name}`"


@every_page
def test_targets_exist(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for text in code(page):
        assert set(re.findall(r"\bmake ([a-z][a-z-]*)", text)) <= targets


@every_page
def test_names_of_tests_are_those_of_tests(page):
    known = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8"))
    }
    for text in code(page):
        assert set(re.findall(r"(?<![\w/])(test_\w+)(?![\w.])", text)) <= known
        for file in re.findall(r"\btests/[\w/]+\.\w+", text):
            assert (ROOT / file).exists(), file


@every_page
def test_variables_exist(page):
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    # Options of the probe, and secrets that may be a variable as well as a file.
    known |= {f"{PREFIX}PROBE_{str(one.name).upper().removesuffix('_FILE')}" for one in main.commands["probe"].params}
    for text in code(page):
        for name in re.findall(rf"{PREFIX}[A-Z0-9_]*[A-Z0-9]", text):
            assert name.removesuffix("_FILE") in known | {"SWITCHBOARD_WRITE_SCREENSHOT"}, name


def test_the_table_of_variables_equals_the_settings():
    told = {quoted(name)[0]: default for name, default, _ in rows(DOCS / "operations.md", "variable")}
    assert list(told) == [f"{PREFIX}{name.upper()}" for name in Settings.model_fields]
    for name, field in Settings.model_fields.items():
        default = told[f"{PREFIX}{name.upper()}"]
        assert field.default is not PydanticUndefined
        if field.default in (None, (), ""):
            assert default.startswith("none"), name
        else:
            assert default == f"`{field.default}`", name


def test_the_table_of_metrics_equals_the_collectors():
    ours = {}
    for collector in Metrics().registry._collector_to_names:
        for family in collector.collect():
            suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
            of_samples = [name for sample in family.samples[:1] for name in sample.labels if name != "le"]
            labels = list(getattr(collector, "_labelnames", ())) or of_samples
            ours[family.name + suffix] = (family.type, labels)
    told = {quoted(name)[0]: (kind, quoted(labels)) for name, kind, labels, _ in rows(DOCS / "operations.md", "metric")}
    assert told == ours


def test_the_table_of_routes_equals_the_contract():
    told = {tuple(route.split(" ")) for routes, *_ in rows(ROOT / "README.md", "route") for route in quoted(routes)}
    assert told == set(OPERATIONS.values())


def test_the_table_of_steps_equals_those_of_the_probe():
    told = {quoted(step)[0]: passes for step, _, passes, _ in rows(DOCS / "operations.md", "step")}
    assert tuple(told) == STEPS
    for step, refused in REFUSED.items():
        assert f"{refused.status} `{refused.code}`" in told[step]


def test_metrics_of_the_probe_are_told():
    report = Report("http://probed.example", 0.0, 1.0, (Result("token", "passed", "200"),), reached=True)
    printed = set(re.findall(r"^# TYPE (\w+) ", as_prometheus(report), re.MULTILINE))
    page = prose(DOCS / "operations.md")
    assert set(re.findall(r"`(switchboard_probe_\w+)", page)) == printed


def test_the_table_of_attacks_equals_the_tests():
    told = {attack: quoted(refused)[0] for attack, refused in rows(DOCS / "security.md", "attack")}
    assert told == {name: refusal.code for name, (_, refusal) in ATTACKS.items()}


def test_the_table_of_dependencies_equals_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    told = [quoted(name)[0] for name, *_ in rows(DOCS / "decisions" / "0002-dependencies.md", "dependency")]
    assert told == [re.split(r"[\[><=~ ]", one)[0] for one in project["dependencies"]]


def test_code_for_clients_is_what_the_tests_run():
    files = (file for file in (DOCS / "examples").rglob("*") if file.suffix in LANGUAGES)
    examples = {file: file.read_text(encoding="utf-8") for file in files}
    assert examples
    shown = [
        block
        for language, block in FENCE.findall((DOCS / "clients.md").read_text(encoding="utf-8"))
        if language in LANGUAGES.values()
    ]
    assert sorted(shown) == sorted(examples.values())
    tests = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests" / "e2e").glob("test_*.py"))
    assert [file.name for file in examples if f'"{file.relative_to(DOCS / "examples")}"' not in tests] == []


def test_the_table_of_clients_equals_the_locks():
    npm = json.loads((ROOT / "tests/e2e/clients/package-lock.json").read_text(encoding="utf-8"))["packages"]
    pip = dict(re.findall(r"^([\w-]+)==(\S+)", (ROOT / "locks/dev.txt").read_text(encoding="utf-8"), re.MULTILINE))
    told = {name: client.version for name, client in KNOWN.items() if client.version}
    locked = {name.removesuffix(" for Node"): version for name, version in told.items() if "Python" not in name}
    assert locked == {name: npm[f"node_modules/{name}"]["version"] for name in npm[""]["dependencies"]}
    for name, version in told.items():
        if name.endswith(" for Python"):
            assert version == pip[name.removesuffix(" for Python")], name


@pytest.mark.parametrize("block", [pytest.param(block, id=f"{page.name}-{number}") for page, number, block in blocks()])
def test_a_policy_in_the_documentation_has_no_mistakes(block):
    checked = check(ryaml.loads(block), today=TODAY)
    assert [str(mistake) for mistake in (*checked.mistakes, *checked.advice)] == []


def test_there_are_policies_to_check():
    assert {page.name for page, *_ in blocks()} >= {"README.md", "presets.md"}


def test_decisions_are_numbered_without_gaps():
    files = sorted((DOCS / "decisions").glob("*.md"))
    assert files
    assert [file.name[:5] for file in files] == [f"{number:04}-" for number in range(1, len(files) + 1)]
    for number, file in enumerate(files, 1):
        assert file.read_text(encoding="utf-8").startswith(f"# {number}. ")
    listed = re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", files[0].read_text(encoding="utf-8"))
    assert listed == [file.name for file in files[1:]]
