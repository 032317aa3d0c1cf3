"""Request bodies into checked documents: JSON, multipart, the mint envelope."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import orjson
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from switchboard.emulator.refusal import Refusal, of_problem
from switchboard.sessions import Problem, problems, vocabulary

LEAST_SECONDS: Final = 10
MOST_SECONDS: Final = 7200
# What belongs to other endpoints; the codes are as reported from the field, that of translations is a guess.
FOREIGN_MODELS: Final = MappingProxyType(
    {
        "realtime": {
            **dict.fromkeys(vocabulary.TRANSLATION_MODELS, "inference_not_found"),
            "gpt-live-1": "model_not_found",
        },
        "translation": dict.fromkeys((*vocabulary.REALTIME_MODELS, "gpt-live-1"), "inference_not_found"),
    }
)


@dataclass(frozen=True, slots=True)
class MintOrder:
    session: Mapping[str, Any]
    seconds: int


def parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Refusal(400, "We could not parse the JSON body of your request.") from None


def checked_session(session: object, *, realtime_only: bool = False) -> Mapping[str, Any]:
    """A legal session, or the refusal that its first mistake earns."""
    for problem in problems(session):
        raise of_problem(problem, "session")
    if not isinstance(session, Mapping):
        raise TypeError("a session without problems is an object")
    if realtime_only and session["type"] != "realtime":
        raise of_problem(Problem(("type",), "invalid_value", session["type"], "realtime"), "session")
    code = FOREIGN_MODELS.get(session["type"], {}).get(session.get("model", ""))
    if code is not None:
        raise Refusal(404, f"The model '{session['model']}' does not exist or is not served here.", code=code)
    return session


def mint_order(body: bytes, default_seconds: int) -> MintOrder:
    """The `client_secrets` request; everything in it is optional."""
    document, seconds = _envelope(body, default_seconds)
    return MintOrder(checked_session(document.get("session", {"type": "realtime"})), seconds)


def translation_order(body: bytes, default_seconds: int) -> MintOrder:
    """The `translations/client_secrets` request; its session is required, and has no `type`."""
    document, seconds = _envelope(body, default_seconds)
    if "session" not in document:
        raise missing("session")
    session = _object(document["session"], ("session",))
    if "type" in session:
        raise of_problem(Problem(("session", "type"), "unknown_parameter", None, "remove it"), "")
    return MintOrder(checked_session({"type": "translation", **session}), seconds)


def _envelope(body: bytes, default_seconds: int) -> tuple[Mapping[str, Any], int]:
    document = _object(parsed(body), ())
    _only(document, (), {"expires_after", "session"})
    expiry = _object(document.get("expires_after", {}), ("expires_after",))
    _only(expiry, ("expires_after",), {"anchor", "seconds"})
    if (anchor := expiry.get("anchor", "created_at")) != "created_at":
        problem = Problem(("expires_after", "anchor"), "invalid_value", anchor, "created_at")
        raise of_problem(problem, "")
    return document, _seconds(expiry.get("seconds", default_seconds))


async def multipart_fields(headers: Headers, body: bytes) -> dict[str, bytes]:
    """The parts of a form, typed or plain, with or without a file name."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await MultiPartParser(headers, stream(), max_fields=10, max_files=10).parse()
    except (MultiPartException, KeyError, UnicodeError):
        raise Refusal(400, "We could not parse the multipart body of your request.") from None
    try:
        return {
            name: await part.read() if isinstance(part, UploadFile) else part.encode()
            for name, part in form.multi_items()
        }
    finally:
        await form.close()


def only_fields(fields: Mapping[str, bytes], known: set[str]) -> None:
    _only(fields, (), known)


def missing(name: str) -> Refusal:
    return of_problem(Problem((name,), "missing_required_parameter", None, "a value"), "")


def _object(value: object, path: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise of_problem(Problem(path, "invalid_type", value, "an object"), "")
    return value


def _only(document: Mapping[str, Any], path: tuple[str, ...], known: set[str]) -> None:
    for name in document:
        if name not in known:
            raise of_problem(Problem((*path, name), "unknown_parameter", None, "remove it"), "")


def _seconds(seconds: object) -> int:
    path = ("expires_after", "seconds")
    right = f"a whole number from {LEAST_SECONDS} to {MOST_SECONDS}"
    if isinstance(seconds, bool) or not isinstance(seconds, int):
        raise of_problem(Problem(path, "invalid_type", seconds, right), "")
    if seconds < LEAST_SECONDS:
        raise of_problem(Problem(path, "integer_below_min_value", seconds, right), "")
    if seconds > MOST_SECONDS:
        raise of_problem(Problem(path, "integer_above_max_value", seconds, right), "")
    return seconds
