"""What a fuzzer drives: for each border that reads what strangers write, bytes in, and a refusal or nothing out.

Whatever else is raised is a defect. Both fuzzers use this: hypothesis in the suite, atheris in `make prove-fuzz`.
"""

import hmac
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Coroutine
from importlib import resources
from typing import Any

from starlette.requests import Request

from switchboard import data
from switchboard.endpoints.offering import read_offer
from switchboard.endpoints.reading import parse_model, parse_object
from switchboard.endpoints.report import ReportRequest
from switchboard.endpoints.token import TokenRequest
from switchboard.errors import Refusal
from switchboard.grants import PREFIX, Grants
from switchboard.identity import Principal, UserKeys
from switchboard.identity.keys import StaticKey
from switchboard.identity.verifier import Issuer, TenantRule, Verifier
from switchboard.presets import Between, OneOf, Preset, TextUpTo, excerpt
from switchboard.sdp import MAX_BYTES, check_offer, looks_like_answer
from switchboard.sessions import translated

ISSUER, AUDIENCE = "https://login.acme.example/", "switchboard"
SECRET = b"0123456789abcdef0123456789abcdef"
OFFER = resources.files(data).joinpath("sample-offer.sdp").read_bytes()
OFFER_BOUND = 2 * 64 * 1024 + 4 * 1024

Target = Callable[[bytes], bool]
"""Whether an input was taken; False: it was refused."""
Run = Callable[[Coroutine[Any, Any, Any]], Any]
"""Runs a coroutine to its end, in an event loop of the caller."""


def offers(text: bytes) -> bool:
    """The scan of an offer, and of a provider's answer."""
    looks_like_answer(text)
    try:
        check_offer(text)
    except Refusal:
        return False
    assert len(text) <= MAX_BYTES
    assert b"\nm=audio " in text
    return True


CONTENT_TYPES = (
    b"multipart/form-data; boundary=b",
    b'multipart/form-data; boundary="b"; charset=utf-8',
    b"multipart/form-data; boundary=------------------------d74496d66958873e",
    b"application/sdp",
)


class Forms:
    """An offer as a request: a byte that chooses the Content-Type, or 255 and one up to a line end; then the body."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __call__(self, text: bytes) -> bool:
        choice, rest = text[0] if text else 0, text[1:]
        if choice == 255:
            content_type, _, body = rest.partition(b"\n")
        else:
            content_type, body = CONTENT_TYPES[choice % len(CONTENT_TYPES)], rest
        try:
            offer = self._run(read_offer(_request(content_type, body)))
        except Refusal:
            return False
        assert len(offer.sdp) <= OFFER_BOUND
        return True


class Tokens:
    """A bearer token: as it is, or `{header}\\n{claims}` under a signature that is right."""

    def __init__(self, run: Run) -> None:
        self._run = run
        rule = TenantRule(claim="org_id", allowed=None)
        keys = StaticKey(SECRET)
        issuer = Issuer(name=ISSUER, audience=AUDIENCE, algorithms=("HS256",), keys=keys, tenant=rule)
        self._verifier = Verifier({ISSUER: issuer})
        self._user_keys = UserKeys(SECRET)
        self._preset = _preset("refuse")

    def __call__(self, text: bytes) -> bool:
        kind, rest = text[:1], text[1:]
        token = signed(*rest.partition(b"\n")[::2]) if kind == b"s" else rest.decode("latin-1")
        try:
            principal = self._run(self._verifier.verify(token))
        except Refusal:
            return False
        assert kind == b"s", "nobody signed it"
        assert principal.issuer == ISSUER
        self._user_keys.of(principal)
        self._preset.session_for(principal.claims, {})
        return True


class Overrides:
    """A caller's `session`, today's or the beta's, from its JSON to the session that a provider would be sent."""

    def __init__(self) -> None:
        self._presets = [_preset("refuse"), _preset("ignore")]

    def __call__(self, text: bytes) -> bool:
        try:
            wanted = parse_object(text)
        except Refusal:
            return False
        taken = False
        for preset in self._presets:
            for today, outdated in ((wanted, frozenset[str]()), translated(wanted)):
                try:
                    tailored = preset.session_for({"name": "Alice"}, today, outdated)
                except Refusal:
                    continue
                assert set(tailored.overrides) <= preset.overrides.keys()
                assert tailored.session["model"] == "gpt-realtime-2.1"
                assert tailored.beside({}, outdated).session == tailored.session
                json.dumps(excerpt(tailored.session))
                taken = True
        return taken


class Bodies:
    """The JSON bodies of `/token` and of reports."""

    def __call__(self, text: bytes) -> bool:
        try:
            parsed = parse_object(text)
        except Refusal:
            return False
        taken = False
        for model in (TokenRequest, ReportRequest):
            try:
                parse_model(model, parsed)
                taken = True
            except Refusal as refusal:
                _check_length(refusal.detail)
        return taken


class Tickets:
    """A grant: as it is, or one of ours with some bytes changed (`x`, then pairs of a place and what is flipped)."""

    def __init__(self) -> None:
        self._grants = Grants([SECRET])
        principal = Principal(ISSUER, "user-fuzz", "acme", {})
        self._token, self._grant = self._grants.issue(principal, preset="support", wanted={}, seconds=86_400)
        encoded = self._token.removeprefix(PREFIX)
        self._raw = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))

    def __call__(self, text: bytes) -> bool:
        if text[:1] == b"x":
            raw = bytearray(self._raw)
            for place, flipped in zip(text[1::2], text[2::2], strict=False):
                raw[place % len(raw)] ^= flipped
            token = PREFIX + urlsafe_b64encode(bytes(raw)).decode().rstrip("=")
            is_ours = bytes(raw) == self._raw
        else:
            token = PREFIX + text[1:].decode("latin-1")
            is_ours = token == self._token
        try:
            grant = self._grants.open(token)
        except Refusal:
            assert not is_ours
            return False
        assert grant == self._grant, "opened, and says what we did not seal"
        return True


def targets(run: Run) -> dict[str, Target]:
    """All of them by name, each with its own state."""
    return {
        "sdp": offers,
        "multipart": Forms(run),
        "jwt": Tokens(run),
        "overrides": Overrides(),
        "grants": Tickets(),
        "bodies": Bodies(),
    }


WORDS = {
    "sdp": [b"v=0\r\n", b"m=audio ", b"a=ice-ufrag:", b"a=ice-pwd:", b"a=fingerprint:", b"\r\n"],
    "multipart": [
        *[
            b"--b\r\n",
            b"--b--\r\n",
            b"\r\n\r\n",
            b"Content-Disposition: form-data; name=",
            b"Content-Transfer-Encoding: ",
        ],
        *b'filename= filename*=utf-8\'\' "sdp" "session" base64 quoted-printable Content-Type: boundary='.split(),
        *b"multipart/form-data application/sdp ; :".split(),
    ],
    "jwt": b'"iss": "sub": "aud": "exp": "nbf": "iat": "org_id": "alg": "kid": "crit": "b64": '
    b'"HS256" "none" "https://login.acme.example/" "switchboard" Infinity 1e999 \\ud800 null [[[['.split(),
    "overrides": b'"audio" "output" "voice" "speed" "cedar" "instructions" "max_output_tokens" "tools" "model" '
    b'"audio.output.voice" "" 1e308 true null {"a": \\u0000'.split(),
    "grants": [PREFIX.encode(), b"AQ", b"===", b"-_"],
    "bodies": b'"preset" "session" "expires_after" "anchor" "created_at" "seconds" "event" "alive" "rtt_ms" '
    b'"loss" 1e999 -1 true null'.split(),
}
"""What each one's inputs are made of; a fuzzer that knows them need not guess."""


def seeds() -> dict[str, list[bytes]]:
    """Inputs that are taken, and some that nearly are."""
    now = int(time.time())
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "user-fuzz",
        "org_id": "acme",
        "iat": now,
        "exp": now + 80_000,
        "name": "A",
    }
    header = json.dumps({"alg": "HS256", "kid": "k", "typ": "JWT"}).encode()
    form = b'--b\r\nContent-Disposition: form-data; name="sdp"\r\nContent-Type: application/sdp\r\n\r\n%s\r\n' % OFFER
    session = b'--b\r\nContent-Disposition: form-data; name="session"; filename="blob"\r\n\r\n{"type":"realtime"}\r\n'
    override = {"audio": {"output": {"voice": "cedar", "speed": 1}}, "instructions": "Hi", "max_output_tokens": 9}
    return {
        "sdp": [OFFER, OFFER.replace(b"\r\n", b"\n"), b"v=0\r\n"],
        "multipart": [
            b"\0" + form + session + b"--b--\r\n",
            b"\1" + form + b"--b--\r\n",
            b"\3" + OFFER,
            b"\xffmultipart/form-data; boundary=b\n" + form + b"--b--\r\n",
        ],
        "jwt": [
            b"s" + header + b"\n" + json.dumps(good).encode(),
            b"s" + header + b"\n" + json.dumps({**good, "nbf": now, "aud": [AUDIENCE], "iat": None}).encode(),
            b"r" + signed(header, json.dumps(good).encode()).encode()[:-4],
        ],
        "overrides": [json.dumps(override).encode(), b'{"audio.output.voice":"cedar"}', b"{}"],
        "grants": [b"x", b"x\0\1", b"r" + b"A" * 60],
        "bodies": [
            json.dumps({"preset": "a", "session": override, "expires_after": {"seconds": 60}}).encode(),
            b'{"event":"alive","rtt_ms":40,"jitter_ms":3.5,"loss":0.01,"audio_seconds":12}',
        ],
    }


def _check_length(detail: str) -> None:
    assert len(detail) < 1000, "a caller's text comes back at length"


def signed(header: bytes, claims: bytes) -> str:
    """A JWT of whatever bytes, signed as RFC 7515 says (HS256)."""
    encoded = _base64(header) + b"." + _base64(claims)
    return (encoded + b"." + _base64(hmac.digest(SECRET, encoded, "sha256"))).decode()


def _base64(content: bytes) -> bytes:
    return urlsafe_b64encode(content).rstrip(b"=")


def _preset(extra: Any) -> Preset:
    return Preset(
        name="support",
        delivery="relay",
        session={
            "type": "realtime",
            "model": "gpt-realtime-2.1",
            "instructions": "Help ${claims.name|a customer} of ${claims.org.name}.",
            "audio": {"output": {"voice": "marin"}},
        },
        overrides={
            "audio.output.voice": OneOf(("marin", "cedar")),
            "audio.output.speed": Between(0.8, 1.2),
            "max_output_tokens": Between(1, 100),
            "instructions": TextUpTo(20),
            "tools": OneOf(([],)),
        },
        extra=extra,
    )


def _request(content_type: bytes, body: bytes) -> Request:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", content_type)]
    return Request({"type": "http", "method": "POST", "path": "/sdp", "query_string": b"", "headers": headers}, receive)
