"""Grants: Switchboard's own `ek_swb_…` tokens. Encrypted, short-lived, good for one call, here only.

They begin with `ek_` because OpenAI's browser SDK takes no other key. Sealed with AES-256-GCM (NIST SP 800-38D) under
keys derived by HKDF (RFC 5869), so a browser can neither read nor change what its grant says.
"""

import hashlib
import os
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from switchboard.errors import GrantExpired, InvalidRequest, InvalidToken, OriginNotAllowed
from switchboard.identity import Principal
from switchboard.values import light_dataclass

PREFIX = "ek_swb_"
MAX_BYTES = 16 * 1024  # of a token: it travels in a header
_VERSION = b"\x01"
_NONCE_BYTES = 12
_KEY_ID_BYTES = 4


@light_dataclass(frozen=True, slots=True)
class Grant:
    """What a grant says: who may open one call with which preset and overrides, until when (unix seconds).

    A grant that was minted for a page is good for pages of that origin alone.
    """

    id: str
    principal: Principal
    preset: str
    wanted: Mapping[str, Any]
    expires_at: int
    origin: str | None = None

    def check_origin(self, origin: str | None, *, needed: bool) -> None:
        """Refuse a page of another origin than the one that the grant was minted for.

        Args:
            origin: of the page that presents it; None: the request has no Origin header.
            needed: whether such a request is refused as well.

        Raises:
            OriginNotAllowed: it was minted for another page.
        """
        if self.origin is not None and origin != self.origin and (needed or origin is not None):
            raise OriginNotAllowed("This grant was minted for a page of another origin.")


class Grants:
    """Seals and opens grants.

    Args:
        secrets: the first seals, all open, so that secrets can be rotated without refusing anybody.
        clock: unix seconds.
    """

    def __init__(self, secrets: Sequence[bytes], *, clock: Callable[[], float] = time.time) -> None:
        self._ciphers = {_key_id(secret): AESGCM(_derive(secret)) for secret in secrets}
        self._sealing_id = _key_id(secrets[0])
        self._clock = clock

    def issue(
        self, principal: Principal, *, preset: str, wanted: Mapping[str, Any], seconds: int, origin: str | None = None
    ) -> tuple[str, Grant]:
        """A new grant, and the token that carries it.

        Raises:
            InvalidRequest: the overrides do not fit into a token that headers can carry.
            InvalidToken: the claims hold what JSON cannot (a lone surrogate, a number beyond 64 bits).
        """
        grant = Grant(
            id=urlsafe_b64encode(os.urandom(12)).decode(),
            principal=principal,
            preset=preset,
            wanted=wanted,
            expires_at=int(self._clock()) + seconds,
            origin=origin,
        )
        try:
            token = self._seal(grant)
        except orjson.JSONEncodeError:
            raise InvalidToken("The token's claims hold a text or a number that cannot be passed on.") from None
        if len(token) > MAX_BYTES:
            raise InvalidRequest(
                "`session` is too large for a grant; post it to /sdp beside the offer.", param="session"
            )
        return token, grant

    def open(self, unverified_token: str, *, even_expired: bool = False) -> Grant:
        """The grant inside a token.

        Args:
            unverified_token: begins with `ek_swb_`.
            even_expired: for the call that it opened, which may be read and ended while it lives.

        Raises:
            InvalidToken: not sealed by any of our secrets.
            GrantExpired: sealed by us, and its time is over.
        """
        grant = self._unseal(unverified_token)
        if not even_expired and grant.expires_at <= self._clock():
            raise GrantExpired
        return grant

    def _seal(self, grant: Grant) -> str:
        principal = grant.principal
        content = orjson.dumps(
            [
                grant.id,
                grant.expires_at,
                principal.issuer,
                principal.subject,
                principal.tenant,
                principal.claims,
                grant.preset,
                grant.wanted,
                grant.origin,
            ]
        )
        nonce = os.urandom(_NONCE_BYTES)
        header = _VERSION + self._sealing_id
        sealed = header + nonce + self._ciphers[self._sealing_id].encrypt(nonce, content, header)
        return PREFIX + urlsafe_b64encode(sealed).decode().rstrip("=")

    def _unseal(self, unverified_token: str) -> Grant:
        if len(unverified_token) > MAX_BYTES:
            raise InvalidToken(f"The grant is larger than {MAX_BYTES} bytes.")
        try:
            encoded = unverified_token.removeprefix(PREFIX)
            sealed = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
            header, rest = sealed[: 1 + _KEY_ID_BYTES], sealed[1 + _KEY_ID_BYTES :]
            cipher = self._ciphers[header[1:]]
            content = cipher.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], header)
        except (ValueError, KeyError, InvalidTag):
            raise InvalidToken("The grant was not issued here.") from None
        grant_id, expires_at, issuer, subject, tenant, claims, preset, wanted, origin = orjson.loads(content)
        return Grant(grant_id, Principal(issuer, subject, tenant, claims), preset, wanted, expires_at, origin)


def _derive(secret: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"switchboard grant v1").derive(secret)


def _key_id(secret: bytes) -> bytes:
    """Which secret sealed a grant; a hash of a derived value tells nothing about the secret."""
    return hashlib.sha256(b"switchboard grant key id" + _derive(secret)).digest()[:_KEY_ID_BYTES]
