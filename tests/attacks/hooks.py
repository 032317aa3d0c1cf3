"""What schemathesis is fed with. It loads this by itself, in its own process."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import schemathesis
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.attacks import generators
from tests.support import keys

KEY: Any = load_pem_private_key(Path(os.environ["ATTACKS_KEY"]).read_bytes(), None)
TEXTS = ("application/sdp", "text/plain")
# Paths that are for one type of session.
PRESETS = {
    "/v1/realtime/translations/client_secrets": "interpreter",
    "/v1/realtime/translations/calls": "interpreter",
    "/v1/realtime/transcription_sessions": "captions",
}
FLAT = {
    "/v1/realtime/sessions": {"model": "gpt-4o-realtime-preview", "voice": "cedar", "temperature": 0.8},
    "/v1/realtime/transcription_sessions": {"input_audio_format": "pcm16"},
}
SUBJECT = "user-of-schemathesis"


def _some(strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    """Examples, the same ones in each run."""
    found: list[Any] = []

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(one: Any) -> None:
        found.append(one)

    collect()
    return found


class _Valid:
    """Values that are valid in ways that the contract's schema cannot say, one after another."""

    def __init__(self) -> None:
        self._offers = _some(generators.offers(), 40)
        self._sessions = _some(generators.sessions(), 40)
        self._claims = _some(generators.claims(SUBJECT), 40)
        self._taken = 0

    def _next(self, values: list[Any]) -> Any:
        self._taken += 1
        return values[self._taken % len(values)]

    def offer(self) -> str:
        offer: bytes = self._next(self._offers)
        return offer.decode()

    def session(self) -> Mapping[str, Any]:
        session: Mapping[str, Any] = self._next(self._sessions)
        return session

    def token(self) -> str:
        return keys.sign(keys.claims(**self._next(self._claims)), KEY, kid="rsa-1")


VALID = _Valid()


schemathesis.openapi.format("sdp", st.builds(VALID.offer))


@schemathesis.hook
def before_load_schema(_context: Any, raw_schema: dict[str, Any]) -> None:
    """Offers are made here: from the contract's pattern of 64 KiB schemathesis would make texts for a minute."""
    offer: dict[str, Any] = {"type": "string", "format": "sdp"}
    content = raw_schema["components"]["requestBodies"]["Offer"]["content"]
    for media_type in TEXTS:
        content[media_type]["schema"] = offer
    content["multipart/form-data"]["schema"]["properties"]["sdp"] = offer


@schemathesis.auth(refresh_interval=None)
class UserToken:
    """Tokens of one user, each another one: so calls that were opened before are found again."""

    def get(self, _case: Any, _context: Any) -> str:
        return VALID.token()

    def set(self, case: Any, token: str, _context: Any) -> None:
        case.headers["Authorization"] = f"Bearer {token}"


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    """A case that is to be taken gets an offer, a session and a preset that this service takes."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    preset = PRESETS.get(case.path, "support")
    if case.path in PRESETS or (case.query and "preset" in case.query):
        case.query = {**(case.query or {}), "preset": preset}
    if case.query and "model" in case.query:
        case.query["model"] = preset
    if case.media_type in TEXTS:
        case.body = VALID.offer()
    elif case.path in FLAT:
        case.body = FLAT[case.path]
    elif isinstance(case.body, dict):
        if "sdp" in case.body:
            case.body["sdp"] = VALID.offer()
        if "session" in case.body:
            case.body["session"] = VALID.session() if preset == "support" else {}
        if "preset" in case.body:
            case.body["preset"] = "support"


@schemathesis.serializer(*TEXTS)
def as_it_is(_context: Any, value: Any) -> bytes:
    """Offers are text."""
    return str(value).encode(errors="surrogatepass")


@schemathesis.deserializer(*TEXTS, "text/html")
def as_text(_context: Any, response: Any) -> str:
    """The contract describes them as strings."""
    text: str = response.content.decode()
    return text
