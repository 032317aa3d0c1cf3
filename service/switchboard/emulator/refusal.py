"""The provider's error envelope, and the texts that go with its codes (upstream page, sections 1 to 3)."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from switchboard.sessions import Problem, path_text


class Refusal(Exception):
    """An answer that says no; rendered in one place."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kind: str = "invalid_request_error",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.error: dict[str, Any] = {"message": message, "type": kind, "param": param, "code": code}

    def response(self, extras: Mapping[str, Any] | None = None) -> JSONResponse:
        return JSONResponse({"error": {**self.error, **(extras or {})}}, self.status, headers=self.headers)


def invalid_key(key: str) -> Refusal:
    """Upstream repeats part of the key, which is one more reason never to pass its text on."""
    shown = f"{key[:8]}***{key[-4:]}"
    return Refusal(401, f"Incorrect API key provided: {shown}.", code="invalid_api_key")


def missing_key() -> Refusal:
    return Refusal(401, "Missing bearer or basic authentication in header")


def invalid_offer() -> Refusal:
    message = "Invalid SDP offer. Please send a WHIP-compliant offer with an audio section."
    return Refusal(400, message, code="invalid_offer")


def unsupported_content_type(found: str, accepted: str) -> Refusal:
    message = f"Unsupported content type: '{found}'. This API method only accepts {accepted} requests."
    return Refusal(400, message, code="unsupported_content_type")


def wrong_kind(found: str) -> Refusal:
    """Nobody has recorded what the provider says to a secret of the other family."""
    return Refusal(400, f"A session of type '{found}' is not served here.", code="invalid_value", param="session.type")


def call_not_found() -> Refusal:
    return Refusal(404, "No session found for the provided call_id", code="call_id_not_found", param="")


def beta_gone() -> Refusal:
    return Refusal(400, "The Realtime Beta API is no longer supported.", code="beta_api_shape_disabled")


def not_found(method: str, path: str) -> Refusal:
    return Refusal(404, f"Invalid URL ({method} {path})")


def of_problem(problem: Problem, prefix: str) -> Refusal:
    """The first mistake of a document, as the provider words it; its `param` is the dotted path."""
    message, param = wording(problem, prefix)
    return Refusal(400, message, code=problem.code, param=param)


def wording(problem: Problem, prefix: str) -> tuple[str, str]:
    param = ".".join(part for part in (prefix, path_text(problem.path)) if part)
    if problem.code == "unknown_parameter":
        return f"Unknown parameter: '{param}'.", param
    if problem.code == "missing_required_parameter":
        return f"Missing required parameter: '{param}'.", param
    what = {"invalid_value": "Invalid value for", "invalid_type": "Invalid type for"}.get(problem.code, "Invalid")
    return f"{what} '{param}': expected {problem.right}, but got {_shown(problem.found)} instead.", param


def _shown(found: object) -> str:
    match found:
        case None:
            return "null"
        case bool():
            return str(found).lower()
        case str() | int() | float():
            return f"'{found}'"[:200]
        case _:
            return "an object" if isinstance(found, Mapping) else "an array"
