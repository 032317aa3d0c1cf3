"""Entra ID as azure-identity meets it: the endpoint of a managed identity, and the token endpoint of an authority."""

import asyncio
import base64
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.support.leaks import LEAKS
from tests.support.servers import serving

AUDIENCE = "https://ai.azure.com"
ASSERTION = LEAKS.plant("federated token", "the-federated-token-of-a-pod-0123456789")
IDENTITY_HEADER = LEAKS.plant("identity header", "the-header-of-a-managed-identity-0123456789")


def token(number: int = 0, *, seconds: float = 3600, audience: str = AUDIENCE, now: float | None = None) -> str:
    """What Entra ID gives: a JWT that nobody here verifies."""
    claims = {"aud": audience, "exp": int((now or time.time()) + seconds), "uti": f"token-{number}"}
    parts = [
        base64.urlsafe_b64encode(json.dumps(one).encode()).decode().rstrip("=") for one in ({"alg": "RS256"}, claims)
    ]
    return LEAKS.plant("Entra token", ".".join([*parts, "c2lnbmF0dXJlLW9mLWVudHJh"]))


class Identity:
    """Gives tokens; counts, fails and hangs at will."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.given: list[str] = []
        self.status = 200
        self.seconds = 3600.0
        self.delay = 0.0
        self.url = ""
        self.app = Starlette(
            routes=[
                Route("/msi", self._managed),
                Route("/{tenant}/oauth2/v2.0/token", self._authority, methods=["POST"]),
            ]
        )

    async def _managed(self, request: Request) -> Response:
        self.asked.append({**request.query_params, "header": request.headers.get("x-identity-header", "")})
        return await self._answer(expires="expires_on")

    async def _authority(self, request: Request) -> Response:
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        self.asked.append({**form, "tenant": request.path_params["tenant"]})
        return await self._answer(expires="expires_in")

    async def _answer(self, *, expires: str) -> Response:
        await asyncio.sleep(self.delay)
        if self.status != 200:
            return JSONResponse({"error": "invalid_request", "error_description": "AADSTS90002: gone"}, self.status)
        self.given.append(token(len(self.given), seconds=self.seconds))
        since = int(time.time()) if expires == "expires_on" else 0
        body: dict[str, Any] = {"access_token": self.given[-1], "token_type": "Bearer", "resource": AUDIENCE}
        return JSONResponse({**body, expires: int(since + self.seconds)})

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Identity"]:
        async with serving(self.app) as url:
            self.url = url
            yield self

    @contextmanager
    def as_authority(self, folder: Path) -> Iterator[Path]:
        """Over TLS, as azure-identity insists on, for processes of their own; gives the file of who vouches for it."""
        certificate, key, authority = certificates(folder)
        listening = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(self.app, lifespan="off", log_config=None, ssl_certfile=certificate, ssl_keyfile=key)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        self.url = f"https://localhost:{listening.getsockname()[1]}"
        try:
            yield authority
        finally:
            server.should_exit = True
            thread.join(5)
            listening.close()


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """A certificate of localhost, its key, and the certificate of an authority of this test's own."""
    now = datetime.now(UTC)
    ours, its = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of a test")])

    def signed(name: x509.Name, key: ec.EllipticCurvePrivateKey, *extensions: tuple[Any, bool]) -> bytes:
        made = x509.CertificateBuilder(issuer, name, key.public_key(), x509.random_serial_number())
        made = made.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
        for extension, critical in extensions:
            made = made.add_extension(extension, critical)
        return made.sign(ours, SHA256()).public_bytes(Encoding.PEM)

    files = folder / "localhost.pem", folder / "localhost.key", folder / "authority.pem"
    localhost = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    files[0].write_bytes(signed(localhost, its, (x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)))
    files[1].write_bytes(its.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    files[2].write_bytes(signed(issuer, ours, (x509.BasicConstraints(ca=True, path_length=0), True)))
    return files
