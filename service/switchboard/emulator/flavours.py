"""Whose API an emulator speaks: OpenAI's, or that of a resource of Azure OpenAI (upstream page, sections 7 and 10)."""

import base64
import secrets
import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.datastructures import Headers

from switchboard.emulator.refusal import Refusal, invalid_key, missing_key

AUDIENCES: Final = frozenset({"https://ai.azure.com", "https://cognitiveservices.azure.com"})
RESOURCE: Final = "the resource"  # owns every call: its keys, and who may use it by Entra ID, are alike


def new_suffix() -> str:
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(32))


@dataclass(frozen=True, slots=True)
class Flavour:
    """What differs.

    Args:
        prefix: of all paths; a call's `Location` never has it.
        owner_of: whose request this is, by the headers, the accepted keys (none: any) and unix seconds.
        default_seconds: that a client secret lives if the request does not say.
        by_secret_only: whether calls take a client secret alone.
        new_call: what follows `rtc_`.
        request_id: the header that names a request.
        narrows: whether `webrtcfilter=on` means anything.
        error_extras: what an error holds besides the four members of OpenAI's.
    """

    prefix: str
    owner_of: Callable[[Headers, frozenset[str], float], str]
    default_seconds: int
    by_secret_only: bool
    new_call: Callable[[], str]
    request_id: str
    narrows: bool
    error_extras: Mapping[str, Any]


def bearer(headers: Headers) -> str:
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise missing_key()
    return key.strip()


def _by_standard_key(headers: Headers, known: frozenset[str], now: float) -> str:  # noqa: ARG001
    key = bearer(headers)
    if key not in known if known else not key.startswith("sk-"):
        raise invalid_key(key)
    return key


def _by_key_or_token(headers: Headers, known: frozenset[str], now: float) -> str:
    key = headers.get("api-key")
    if key is None:
        _check_token(bearer(headers), now)
    elif not key or (known and key not in known):
        message = "Access denied due to invalid subscription key or wrong API endpoint."
        raise Refusal(401, message, code="401")
    return RESOURCE


def _check_token(token: str, now: float) -> None:
    """Of Entra ID: for this audience, and not over. Who signed it is of no interest here."""
    try:
        _, payload, _ = token.split(".")
        claims = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        is_good = claims["aud"].rstrip("/") in AUDIENCES and claims["exp"] > now
    except (ValueError, KeyError, TypeError, AttributeError):
        is_good = False
    if not is_good:
        message = "Access token is missing, invalid, audience is incorrect (https://ai.azure.com), or have expired."
        raise Refusal(401, message, code="Unauthorized")


def ephemeral_needed() -> Refusal:
    return Refusal(401, "This operation takes an ephemeral token alone; create one by client_secrets.", code="401")


OPENAI: Final = Flavour(
    prefix="/v1",
    owner_of=_by_standard_key,
    default_seconds=600,
    by_secret_only=False,
    new_call=lambda: f"u1_{new_suffix()}",
    request_id="x-request-id",
    narrows=False,
    error_extras={},
)
AZURE: Final = Flavour(
    prefix="/openai/v1",
    owner_of=_by_key_or_token,
    default_seconds=7200,
    by_secret_only=True,
    new_call=lambda: secrets.token_hex(16),
    request_id="apim-request-id",
    narrows=True,
    error_extras={"details": [], "misalignment": None},
)
