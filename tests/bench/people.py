"""Users with addresses and JWTs, signed as an identity provider signs them, before anything is measured."""

import functools
import ipaddress
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from tests.support import keys

ISSUER = "https://login.bench.example/"
LEGACY = "https://legacy.bench.example/"
KEY_ID = "bench-1"
LIFETIME_SECONDS = 7200  # longer than any run
USES = 5  # a browser asks for tokens, calls, states and ends with the same JWT
APART = 1000  # a JWT comes back after so many others


@dataclass(frozen=True, slots=True)
class People:
    """A file with a line for each user: address and JWT, in the order in which they call."""

    file: Path
    count: int


@dataclass(frozen=True, slots=True)
class Signer:
    """An identity provider with one RSA key of 2048 bits, and a secret for those who do not mean the signature."""

    pem: bytes
    secret: str

    @classmethod
    def new(cls, secret: str) -> "Signer":
        key = rsa.generate_private_key(65537, 2048)
        return cls(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), secret)

    @property
    def key_set(self) -> bytes:
        """Its JWKS."""
        key = load_pem_private_key(self.pem, None)
        return orjson.dumps({"keys": [keys.jwk(key, KEY_ID, use="sig", alg="RS256")]})

    def sign(self, numbers: Sequence[int], tenants: Sequence[str], *, quick: bool) -> list[str]:
        """The lines of these users, spread over these tenants.

        Args:
            numbers: which users.
            tenants: whose they are, in turn.
            quick: HS256 by the shared secret, for a million users; else RS256.
        """
        now = int(time.time())
        key = self.secret if quick else load_pem_private_key(self.pem, None)
        lines = []
        for number in numbers:
            claims = {
                "iss": LEGACY if quick else ISSUER,
                "aud": keys.AUDIENCE,
                "sub": f"auth0|{number:024x}",
                "org_id": tenants[number % len(tenants)],
                "name": f"Bench User {number}",
                "email": f"user-{number}@bench.example",
                "plan": ("free", "pro", "team")[number % 3],
                "iat": now - 5,
                "exp": now + LIFETIME_SECONDS,
            }
            header = {} if quick else {"kid": KEY_ID}
            token = jwt.encode(claims, key, "HS256" if quick else "RS256", headers=header)  # type: ignore[arg-type]
            lines.append(f"{ipaddress.IPv4Address(0x0A000000 + number % 0xFFFFFF)} {token}")
        return lines

    def people(self, file: Path, count: int, tenants: Sequence[str], *, first: int = 0, quick: bool = False) -> People:
        """Sign for so many users, on all cores, and write the file."""
        step = max(1, count // 64)
        portions = [range(at, min(at + step, first + count)) for at in range(first, first + count, step)]
        sign = functools.partial(self.sign, tenants=tenants, quick=quick)
        with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool, file.open("w", encoding="ascii") as output:
            for lines in pool.map(sign, portions):
                output.writelines(f"{line}\n" for line in lines)
        return People(file, count)


def one(people: People) -> tuple[str, str]:
    """The first user's address and JWT."""
    with people.file.open(encoding="ascii") as lines:
        address, token = next(lines).split()
    return address, token
