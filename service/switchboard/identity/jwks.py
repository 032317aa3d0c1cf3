"""An issuer's key set, fetched: JWKS (RFC 7517) by its address, or by OpenID Connect Discovery 1.0."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK, PyJWTError

from switchboard.identity.keys import KeySet, KeysUnavailable

MAX_BYTES = 256 * 1024  # a key set is a few kilobytes; more is not one
MAX_KEYS = 64
MIN_RSA_BITS = 2048  # RFC 7518, section 3.3
FETCH_SECONDS = 5.0
KEY_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class JwksEndpoint:
    """Loads the verification keys of one issuer.

    Args:
        issuer: the `iss` that the keys verify.
        jwks_url: where they are; None asks `{issuer}/.well-known/openid-configuration`.
        algorithms: the JWS algorithms that the issuer may use.
        client: bounded by its own timeouts; redirects are not followed.
    """

    def __init__(
        self, *, issuer: str, jwks_url: str | None, algorithms: Sequence[str], client: httpx.AsyncClient
    ) -> None:
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._algorithms = algorithms
        self._client = client

    async def load(self) -> KeySet:
        """The issuer's keys of today.

        Raises:
            KeysUnavailable: the issuer does not answer, or not with a usable key set.
        """
        jwks_url = self._jwks_url or await self._discover()
        keys = _usable_keys(await self._fetch(jwks_url), self._algorithms)
        if not keys:
            raise KeysUnavailable("the key set holds no key for the configured algorithms")
        return keys

    async def _discover(self) -> str:
        document = await self._fetch(self._issuer.rstrip("/") + "/.well-known/openid-configuration")
        if document.get("issuer") != self._issuer:
            raise KeysUnavailable("the discovery document names another issuer")
        jwks_url = document.get("jwks_uri")
        if not isinstance(jwks_url, str) or not is_safe_url(jwks_url):
            raise KeysUnavailable("the discovery document holds no https `jwks_uri`")
        return jwks_url

    async def _fetch(self, url: str) -> Mapping[str, Any]:
        try:
            # For all of it: the client's own timeout begins anew with every byte.
            async with asyncio.timeout(FETCH_SECONDS):
                document = orjson.loads(await self._body(url))
        # InvalidURL and IDNA's errors too: a discovery document may name any nonsense.
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, TimeoutError) as error:
            raise KeysUnavailable(type(error).__name__) from error
        if not isinstance(document, dict):
            raise KeysUnavailable("not a JSON object")
        return document

    async def _body(self, url: str) -> bytes:
        body = bytearray()
        async with self._client.stream("GET", url, headers={"accept": "application/json"}) as answer:
            if answer.status_code != httpx.codes.OK:
                raise KeysUnavailable(f"status {answer.status_code}")
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise KeysUnavailable(f"more than {MAX_BYTES} bytes")
        return bytes(body)


def is_safe_url(url: str) -> bool:
    """Keys travel by https; plain http is for this machine only."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - a port that is none is found out here
    except ValueError:
        return False
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK))


def _usable_keys(document: Mapping[str, Any], algorithms: Sequence[str]) -> KeySet:
    listed = document.get("keys")
    keys: dict[tuple[str | None, str], PyJWK] = {}
    for jwk in listed[:MAX_KEYS] if isinstance(listed, list) else ():
        if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig":
            continue
        kid = jwk.get("kid")
        for algorithm in algorithms:
            if jwk.get("alg", algorithm) != algorithm or jwk.get("kty") != KEY_TYPES.get(algorithm[:2]):
                continue
            try:
                key = PyJWK(jwk, algorithm=algorithm)
            except (PyJWTError, ValueError, TypeError):
                continue
            if isinstance(key.key, RSAPublicKey) and key.key.key_size < MIN_RSA_BITS:
                continue
            keys[kid if isinstance(kid, str) else None, algorithm] = key
    return keys
