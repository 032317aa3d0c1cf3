"""The image, built and run: what docs/deploy.md says of it.

    python -m tests.prove.image [--write]

Builds by buildah, without a container engine and without an image registry: the base is made by debootstrap from this
machine's Debian packages. Runs in namespaces of its own, as an engine would: process 1, its root read-only, a user
without rights, no shell that could be started. Needs root, buildah, debootstrap (`scripts/setup image`) and Go.
Exit code 1 if a bound is broken.
"""

import argparse
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import ryaml

from tests.prove.machine import machine
from tests.prove.service import Result, say_on_stderr, tell
from tests.support import keys
from tests.support.process import free_ports
from tests.support.world import OFFER

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "proof" / "image.md"
SUITE = "bookworm"
PACKAGES = "python3-minimal,python3-venv,ca-certificates"
BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
MEGABYTE = 1_000_000
BOUND_MEGABYTES = 110
START_SECONDS, STOP_SECONDS = 10.0, 5.0
UID = 65532
NODES = ("null", "zero", "random", "urandom")
SHELLS = ("sh", "dash", "bash", "rbash", "busybox")
TOOLS = ("gcc", "cc", "g++", "clang", "ld", "make", "pip", "pip3", "cargo", "rustc")
ASKED = ("SWITCHBOARD_PUBLIC_URL", "POLICY_FOLDER", "SECRETS_FOLDER")
ISSUER, SHARED = "https://login.prove.example/", "a-shared-secret-of-the-proof-0123456789"
SECRETS = {
    "signing_keys": "signing-keys-of-the-proof-0123456789",
    "user_key_secret": "user-key-secret-of-the-proof-0123456",
    "audit_key": "audit-key-of-the-proof-0123456789012",
    "openai_api_key": "sk-proof-0123456789abcdefghijklmnop",
}


def run(*command: str | Path, **how: Any) -> str:
    """What a command prints; its failure ends the proof."""
    done: subprocess.CompletedProcess[str]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **how)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Images:
    """buildah with a storage of its own."""

    folder: Path

    def buildah(self, *arguments: str | Path) -> str:
        """One command; `chroot` isolation needs no more than root."""
        where = ("--root", self.folder / "storage", "--runroot", self.folder / "run")
        return run("buildah", *where, *arguments, env={**os.environ, "BUILDAH_ISOLATION": "chroot"})

    def base(self) -> str:
        """An image of Debian with Python, as small as debootstrap makes it."""
        tree = self.folder / "base"
        run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, tree)
        # pip trusts its own list of authorities; this machine may reach packages by way of one more.
        if BUNDLE.exists():
            (tree / BUNDLE.relative_to("/")).write_bytes(BUNDLE.read_bytes())
            (tree / "etc" / "pip.conf").write_text(f"[global]\ncert = {BUNDLE}\n")
        self.buildah("from", "--name", "base", "scratch")
        self.buildah("add", "base", tree, "/")
        self.buildah("commit", "--quiet", "base", "localhost/base:local")
        return "localhost/base:local"

    def build(self, tag: str, base: str, **arguments: str) -> str:
        """The image of the Dockerfile."""
        given = [f"--build-arg={name}={value}" for name, value in {"BASE": base, **arguments}.items()]
        self.buildah("build", "--quiet", "--layers=false", "--format=docker", *given, "--tag", tag, ROOT)
        return tag

    def layers(self, image: str) -> list[tuple[int, int]]:
        """Size of each layer, as files and compressed."""
        place = self.folder / "pushed"
        self.buildah(
            "push", "--quiet", "--format=oci", image, f"oci:{place}:{image.rpartition('/')[2].replace(':', '-')}"
        )
        blobs = place / "blobs" / "sha256"
        index = json.loads((place / "index.json").read_text())
        manifest = json.loads((blobs / index["manifests"][-1]["digest"].partition(":")[2]).read_text())
        files = [blobs / layer["digest"].partition(":")[2] for layer in manifest["layers"]]
        return [(_unpacked(file), file.stat().st_size) for file in files]

    def config(self, image: str) -> dict[str, Any]:
        """What the image says of itself, as Docker has it."""
        found: dict[str, Any] = json.loads(self.buildah("inspect", "--type=image", image))["Docker"]["config"]
        return found

    def tree(self, image: str, name: str) -> Path:
        """The image's files, of one container."""
        self.buildah("from", "--pull-never", "--name", name, image)
        return Path(self.buildah("mount", name).strip())


def _unpacked(file: Path) -> int:
    size = 0
    with gzip.open(file) as stream:
        while part := stream.read(MEGABYTE):
            size += len(part)
    return size


@dataclass
class Container:
    """A process as an engine starts it, by what the image says."""

    process: subprocess.Popen[bytes]
    pid: int
    said: Mapping[str, list[bytes]]

    def inside(self, *command: str) -> int:
        """Exit code of a command in there, as the same user."""
        into = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--root", f"--setuid={UID}", f"--setgid={UID}"]
        return subprocess.run([*into, "--", *command], check=False, capture_output=True, timeout=10).returncode

    def status(self, name: str) -> str:
        """A line of the kernel's about process 1."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))

    def stop(self, number: int) -> tuple[int, float]:
        """Exit code and seconds after a signal to process 1."""
        begin = time.monotonic()
        os.kill(self.pid, number)
        return self.process.wait(30), time.monotonic() - begin


@contextmanager
def container(
    tree: Path,
    config: Mapping[str, Any],
    *,
    env: Mapping[str, str],
    mounts: Mapping[str, Path],
    command: list[str] | None = None,
) -> Iterator[Container]:
    """Namespaces for mounts and processes, everything mounted read-only; the network is this machine's."""
    for place in mounts:
        (tree / place.lstrip("/")).mkdir(parents=True, exist_ok=True)
    shells = [str(file) for name in SHELLS for file in (tree / "usr/bin" / name, tree / "bin" / name) if file.exists()]
    script = "\n".join(
        [
            "set -e",
            f"mount --bind {tree} {tree}",
            f"mount -t proc proc {tree}/proc",
            *[f"mount --bind {host} {tree}{at}; mount -o remount,bind,ro {tree}{at}" for at, host in mounts.items()],
            *[f"touch {tree}/dev/{node}; mount --bind /dev/{node} {tree}/dev/{node}" for node in NODES],
            # Whoever asks for a shell gets something that cannot be executed.
            *[f"mount --bind /dev/null {shell}" for shell in sorted(set(shells))],
            f"mount -o remount,bind,ro {tree}",
            # Whoever leaves root behind like this has no capabilities left, and none can come back.
            f'exec setpriv --no-new-privs chroot --userspec={UID}:{UID} --groups= {tree} "$@"',
        ]
    )
    arguments = [*(config["Entrypoint"] or []), *(command or config["Cmd"])]
    variables = dict(one.partition("=")[::2] for one in config["Env"]) | dict(env)
    path = variables.pop("PATH")
    # chroot looks the program up in the image's PATH; sh and mount are this machine's.
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private"]
    outside = ["sh", "-c", script, "sh", "env", f"PATH={path}", *arguments]
    # Pipes, as an engine has them.
    process = subprocess.Popen(
        [*namespaces, *outside],
        env={**variables, "PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    said: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
    for name, lines in said.items():
        threading.Thread(target=lines.extend, args=(getattr(process, name),), daemon=True).start()
    try:
        yield Container(process, _child(process.pid), said)
    except BaseException:
        sys.stderr.write(b"".join(said["stderr"]).decode(errors="replace")[-4000:])
        raise
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _child(pid: int) -> int:
    """Process 1 of the namespace, as this machine counts it."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            return int(children[0])
        time.sleep(0.01)
    raise SystemExit("nothing was started")


def until(url: str, seconds: float) -> float:
    """Seconds until something answers 200."""
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        try:
            if httpx.get(url, timeout=1, trust_env=False).status_code == 200:
                return time.monotonic() - begin
        except httpx.TransportError:
            time.sleep(0.02)
    raise SystemExit(f"{url} did not answer 200 within {seconds:.0f} s")


def policy(folder: Path, provider: str) -> Path:
    """A policy whose provider is the emulator."""
    folder.mkdir()
    tree = {
        "providers": {"openai": {"kind": "openai", "base_url": provider, "keys": ["file:/run/secrets/openai_api_key"]}},
        "issuers": [
            {
                "issuer": ISSUER,
                "audience": "switchboard",
                "secret": "env:SHARED",
                "algorithms": ["HS256"],
                "tenant": "acme",
            }
        ],
        "tenants": {
            "acme": {
                "provider": "openai",
                "origins": "any",
                "default_preset": "talk",
                "presets": {
                    "talk": {"delivery": "relay", "session": {"type": "realtime", "model": "gpt-realtime-2.1"}}
                },
            }
        },
    }
    (folder / "acme.yaml").write_text(ryaml.dumps(tree))
    return folder


def built(images: Images, result: Result) -> dict[str, str]:
    """Builds both variants and measures them."""
    say_on_stderr("debootstrap: the base …")
    base = images.base()
    beneath = len(images.layers(base))
    rows = []
    made = {}
    for name, lock in (("runtime", "runtime"), ("with the emulator extra", "demo")):
        say_on_stderr(f"buildah: {name} …")
        begin = time.monotonic()
        made[lock] = images.build(f"localhost/switchboard:{lock}", base, LOCK=lock)
        seconds = time.monotonic() - begin
        ours = images.layers(made[lock])[beneath:]
        files, packed = (sum(sizes) / MEGABYTE for sizes in zip(*ours, strict=True))
        bound = f"{BOUND_MEGABYTES} MB" if lock == "runtime" else "–"
        rows.append(f"| {name} | {len(ours)} | {bound} | {files:.1f} MB | {packed:.1f} MB | {seconds:.0f} s |")
        if lock == "runtime":
            result.bound(files < BOUND_MEGABYTES, f"our layers take {files:.1f} MB")
    result.lines += [
        "| layers that we add | layers | bound | as files | compressed | built in |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
    return made


@dataclass
class Findings:
    """What was seen of the running image, each with whether it is as it should be."""

    result: Result

    def __post_init__(self) -> None:
        self.result.lines += ["| of the running image | | |", "|---|---|---|"]

    def add(self, what: str, holds: bool, seen: str = "") -> None:
        self.result.lines.append(f"| {what} | {'yes' if holds else 'NO'} | {seen} |")
        self.result.bound(holds, what)


def prepared(folder: Path, port: int, ops: int) -> tuple[dict[str, str], Path]:
    """The service's variables, and the folder of its secrets."""
    secrets = folder / "secrets"
    secrets.mkdir()
    for name, secret in SECRETS.items():
        (secrets / name).write_text(secret)
    files = {f"SWITCHBOARD_{name.upper()}_FILE": f"/run/secrets/{name}" for name in SECRETS if name != "openai_api_key"}
    return {
        "SWITCHBOARD_PUBLIC_URL": "https://voice.example.com",
        "SWITCHBOARD_HOST": "127.0.0.1",
        "SWITCHBOARD_PORT": str(port),
        "SWITCHBOARD_OPS_PORT": str(ops),
        "SHARED": SHARED,
        **files,
    }, secrets


def confined(service: Container, seen: Findings) -> None:
    """Who the process is, and what it cannot do."""
    ids = {*service.status("Uid").split(), *service.status("Gid").split()}
    number = service.status("NSpid").split()[-1]
    seen.add(f"it is process 1, of user and group {UID}", ids == {str(UID)} and number == "1")
    none = not any(int(service.status(name), 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb"))
    seen.add("it has no capabilities, and can gain none", none and service.status("NoNewPrivs") == "1")
    mounts = [line.split() for line in Path(f"/proc/{service.pid}/mountinfo").read_text().splitlines()]
    readonly = all("ro" in options.split(",") for _, _, _, _, place, options, *_ in mounts if place == "/")
    writes = service.inside("/opt/switchboard/bin/python", "-c", "open('/tmp/x', 'w')") == 0
    seen.add("its root is read-only, `/tmp` included", readonly and not writes)
    seen.add("no shell can be started", service.inside("/bin/sh", "-c", "true") != 0)


def ran(images: Images, made: Mapping[str, str], folder: Path, result: Result) -> None:
    """Runs the service and, for its provider, the emulator; a call goes through both."""
    seen = Findings(result)
    port, ops, provider = free_ports(3)
    env, secrets = prepared(folder, port, ops)
    mounts = {"/etc/switchboard": policy(folder / "policy", f"http://127.0.0.1:{provider}/v1"), "/run/secrets": secrets}
    tree = images.tree(made["runtime"], "service")
    places = [tree / place for place in ("bin", "usr/bin", "usr/local/bin", "opt/switchboard/bin")]
    tools = [name for name in TOOLS if any((place / name).exists() for place in places)]
    seen.add("no compiler and no pip in it", not tools, ", ".join(tools) or f"none of {', '.join(TOOLS)}")
    config = images.config(made["runtime"])
    emulator = images.tree(made["demo"], "emulator")
    emulate = ["emulate", "--host", "127.0.0.1", "--port", str(provider)]
    say_on_stderr("the service and the emulator …")
    with (
        container(emulator, images.config(made["demo"]), env={}, mounts={}, command=emulate) as other,
        container(tree, config, env=env, mounts=mounts) as service,
    ):
        seen.add(
            "`/readyz` answers 200", True, f"after {until(f'http://127.0.0.1:{port}/readyz', START_SECONDS):.1f} s"
        )
        until(f"http://127.0.0.1:{provider}/_emulator/faults", START_SECONDS)
        confined(service, seen)
        kind, *check = config["Healthcheck"]["Test"]
        healthy = service.inside("env", f"SWITCHBOARD_PORT={port}", *check) == 0
        seen.add("its `HEALTHCHECK` says healthy", kind == "CMD" and healthy)
        token = keys.sign(keys.claims(iss=ISSUER, sub="user-of-the-proof"), SHARED, "HS256")
        headers = {"authorization": f"Bearer {token}", "content-type": "application/sdp"}
        answer = httpx.post(f"http://127.0.0.1:{port}/sdp", content=OFFER, headers=headers, timeout=20, trust_env=False)
        through = "a call goes through it to the emulator in a container of its own"
        seen.add(through, answer.status_code == 201, str(answer.status_code))
        memory = int(service.status("VmRSS").split()[0]) / 1024
        seen.add("memory of the process after that", True, f"{memory:.0f} MiB RSS")
        code, seconds = service.stop(signal.SIGTERM)
        seen.add("SIGTERM to it: exit code 0", code == 0 and seconds < STOP_SECONDS, f"after {seconds:.1f} s")
        records = [json.loads(line)["action"] for line in service.said["stdout"]]
        seen.add("its standard output is the audit", "call.open" in records, ", ".join(records))
        code, seconds = other.stop(signal.SIGTERM)
        seen.add("the same for the emulator", code == 0, f"after {seconds:.1f} s")


SERVICES = {"switchboard", "redis", "prometheus", "grafana", "emulator"}


def composed(folder: Path, result: Result) -> None:
    """compose.yaml as compose itself loads it."""
    say_on_stderr("compose.yaml …")
    loader = folder / "load"
    run("go", "build", "-o", loader, ".", cwd=Path(__file__).parent / "compose")
    file = ROOT / "deploy" / "compose.yaml"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("COMPOSE_", *ASKED))}
    refused = subprocess.run([loader, file], env=clean, capture_output=True, text=True, check=False)
    asked = [name for name in ASKED if f"{name} is missing a value: Set it to" in refused.stderr]
    given = dict(zip(ASKED, ("https://voice.example.com", "/policy", "/secrets"), strict=True))
    project = json.loads(run(loader, file, env={**clean, **given}))
    result.bound(asked == list(ASKED) and refused.returncode != 0, "compose does not ask for what is missing")
    result.bound(set(project["services"]) == SERVICES, "compose reads other services")
    names = ", ".join(f"`{name}`" for name in asked)
    result.lines += [
        "Compose's own loader (compose-go, which `docker compose` is made of) reads `deploy/compose.yaml`.",
        f"Without variables it refuses, and asks for {names}. No engine ran it.",
    ]


def bare(folder: Path, result: Result) -> None:
    """The commands of docs/deploy.md for a machine without containers, below a folder instead of the root."""
    say_on_stderr("docs/deploy.md#systemd …")
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8").partition("## systemd")[2]
    commands = page.partition("```sh\n")[2].partition("```")[0].replace("systemctl enable --now switchboard\n", "")
    here, root = folder / "checkout", folder / "machine"
    for name in ("service", "deploy", "locks"):
        shutil.copytree(ROOT / name, here / name, symlinks=True)
    for name in ("pyproject.toml", "README.md", "LICENSE", "openapi.yaml"):
        shutil.copy(ROOT / name, here)
    (here / "openai.key").write_text(SECRETS["openai_api_key"])
    shutil.copy(ROOT / "deploy" / "switchboard.example.yaml", here / "acme.yaml")
    (root / "etc" / "systemd" / "system").mkdir(parents=True)
    (root / "opt").mkdir()
    for place in ("/opt/", "/etc/"):
        commands = commands.replace(f" {place}", f" {root}{place}").replace(f"\n{place}", f"\n{root}{place}")
    run("bash", "-euo", "pipefail", "-c", commands, cwd=here)
    said = run(root / "opt" / "switchboard" / "bin" / "switchboard", "--version").strip()
    result.bound(said.startswith("switchboard, version"), f"the program says {said}")
    result.lines.append(f"The commands of `docs/deploy.md` for systemd, without `systemctl`, end in `{said}`.")


def main() -> int:
    """Build, run, print."""
    arguments = argparse.ArgumentParser(description="Build the image and run it.")
    arguments.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    write = arguments.parse_args().write
    if os.geteuid():
        raise SystemExit("this needs root: for debootstrap, and for namespaces")
    parts = {"size": Result(), "run": Result(), "compose": Result(), "bare": Result()}
    with tempfile.TemporaryDirectory(prefix="image-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        images = Images(folder)
        made = built(images, parts["size"])
        try:
            ran(images, made, folder, parts["run"])
        finally:
            images.buildah("umount", "--all")
        composed(folder, parts["compose"])
        bare(folder, parts["bare"])
    said = [line for result in parts.values() for line in ("", *result.lines)]
    base = f"Debian {SUITE} by debootstrap (minbase, {PACKAGES.replace(',', ', ')}), no registry was asked"
    head = ["# Proof: image", "", "Written by `make prove-image`.", "", *machine(), f"| base | {base} |"]
    tools = f"| tools | {run('buildah', '--version').split(' (')[0]}, isolation chroot; run by unshare and chroot |"
    page = "\n".join([*head, tools, *said, ""])
    return tell(page, parts, PAGE, write=write)


if __name__ == "__main__":
    sys.exit(main())
