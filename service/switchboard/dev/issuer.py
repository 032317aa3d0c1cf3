"""The dev issuer: plays the part of the app's own login, on this machine alone."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ISSUER = "urn:switchboard:dev-issuer"
AUDIENCE = "switchboard"
TOKEN_SECONDS = 3600


def state_folder(environ: Mapping[str, str]) -> Path:
    """Where the dev issuer keeps its key (XDG Base Directory Specification)."""
    base = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "switchboard"


class DevIssuer:
    """Issues JWTs for the demo page and `switchboard issue`; `serve` knows nothing of it."""

    def __init__(self, folder: Path) -> None:
        self._private_file = folder / "dev-issuer.pem"
        self.public_file = folder / "dev-issuer.pub.pem"
        self._key = self._load_or_create()

    def issue(
        self, tenant: str, subject: str, claims: Mapping[str, Any], seconds: int = TOKEN_SECONDS
    ) -> tuple[str, int]:
        """A JWT and its expiry in unix seconds."""
        now = int(time.time())
        expires_at = now + seconds
        registered = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": subject,
            "tenant": tenant,
            "iat": now,
            "exp": expires_at,
        }
        return jwt.encode({**claims, **registered}, self._key, algorithm="EdDSA"), expires_at

    def as_config(self) -> dict[str, Any]:
        """This issuer as it would stand in a policy file."""
        return {
            "issuer": ISSUER,
            "audience": AUDIENCE,
            "algorithms": ["EdDSA"],
            "public_key": f"file:{self.public_file.absolute()}",
            "tenant_claim": "tenant",
            "tenants": "any",
        }

    def _load_or_create(self) -> Ed25519PrivateKey:
        if not self._private_file.exists():
            self._create()
        key = serialization.load_pem_private_key(self._private_file.read_bytes(), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise TypeError(f"{self._private_file} holds no Ed25519 key; remove it and start again")
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        if not self.public_file.exists() or self.public_file.read_bytes() != public:
            self.public_file.write_bytes(public)
        return key

    def _create(self) -> None:
        self._private_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        pem = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        # Written aside and linked: whoever comes first wins, and nobody reads half a key.
        aside = self._private_file.with_name(f"{self._private_file.name}.{os.getpid()}")
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
        try:
            os.link(aside, self._private_file)
        except FileExistsError:
            pass
        finally:
            aside.unlink()
