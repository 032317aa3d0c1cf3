"""A real nginx, from the machine or from where `scripts/setup test` puts it, with the file in deploy/."""

import os
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.process import free_ports

FILE = Path(__file__).parents[2] / "deploy" / "nginx" / "switchboard.conf"
ADDRESSES = ("10.0.0.11:8080", "10.0.0.12:8080")
NAME = "voice.example.com"
MAIN = """
daemon off;
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 512; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/switchboard.conf;
}}
"""


@dataclass(frozen=True)
class Nginx:
    """A running proxy; `context` trusts its certificate."""

    url: str
    folder: Path
    context: ssl.SSLContext

    @property
    def log(self) -> list[str]:
        return (self.folder / "access.log").read_text().splitlines()

    @property
    def errors(self) -> str:
        return (self.folder / "error.log").read_text()

    def client(self, **options: object) -> httpx.AsyncClient:
        """Somebody who comes by its name."""
        return httpx.AsyncClient(base_url=self.url, verify=self.context, trust_env=False, **options)  # type: ignore[arg-type]


@contextmanager
def nginx(folder: Path, ports: Sequence[int]) -> Iterator[Nginx]:
    """The file as it is, but for addresses and places, in front of replicas on these ports of this machine."""
    (port,) = free_ports(1)
    certificate, key = _certificate(folder)
    text = FILE.read_text()
    places = {
        **{address: f"127.0.0.1:{its}" for address, its in zip(ADDRESSES, ports, strict=True)},
        "listen 443 ": f"listen 127.0.0.1:{port} ",
        f"/etc/ssl/{NAME}.crt": str(certificate),
        f"/etc/ssl/{NAME}.key": str(key),
        "/var/log/nginx/switchboard.log": f"{folder}/access.log",
    }
    for old, new in places.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "switchboard.conf").write_text(text)
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder))
    command = [binary(), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    subprocess.run([*command, "-t"], check=True, capture_output=True)
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    context = ssl.create_default_context(cafile=certificate)
    try:
        made = Nginx(f"https://localhost:{port}", folder, context)
        _until_ready(made, process)
        yield made
    finally:
        process.terminate()
        process.wait(10)


def _until_ready(made: Nginx, process: "subprocess.Popen[bytes]") -> None:
    end = time.monotonic() + 10
    while True:
        try:
            httpx.get(f"{made.url}/healthz", verify=made.context, trust_env=False)
        except httpx.TransportError:
            assert process.poll() is None, made.errors
            assert time.monotonic() < end, made.errors
            time.sleep(0.05)
        else:
            return


def _certificate(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "proxy.crt", folder / "proxy.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


def binary() -> str:
    unpacked = Path(sys.executable).parents[1] / "nginx"
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", str(unpacked)])
    found = shutil.which("nginx", path=path)
    assert found, "nginx is missing: run scripts/setup test"
    return found
