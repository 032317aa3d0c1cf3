"""Every refusal a caller can meet, and the one place that turns a refusal into an HTTP answer.

Business code raises these; nothing else in the package knows a status or a body. A detail is written for the
person who reads it in a browser's network tab, and never holds a token, a key, a subject, or a provider's text.

Refusal
├── BadRequest        InvalidRequest · InvalidOffer · OverrideNotAllowed
├── Unauthorized      MissingToken · InvalidToken · ExpiredToken · UnknownIssuer · GrantUsed · GrantExpired
├── Forbidden         UnknownTenant · TenantSuspended · OriginNotAllowed · PresetNotAllowed
├── UnknownPreset · CallNotFound · NotFound · MethodNotAllowed · RequestTimeout
├── PayloadTooLarge · HeadersTooLarge · UnsupportedMediaType · RateLimited · TooManyCalls
├── ProviderError     ProviderRefused · ProviderUnavailable · ProviderTimeout · ProviderBusy
└── Degraded · AuditUnavailable · Draining · InternalError
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import orjson

PROBLEM_JSON = "application/problem+json"
# draft-ietf-httpapi-ratelimit-headers-10, section 6
QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"


class HasHeaders(Protocol):
    """Something that an answer shows in its headers."""

    def headers(self) -> Mapping[str, str]:
        """Names and values."""


class Refusal(Exception):
    """A request that is not granted.

    Args:
        detail: one or two plain sentences: what was refused and what would be right.
        param: the part of the request at fault, as a dotted path (OpenAI's `error.param`).
        retry_after: seconds after which the same request may succeed.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]
    openai_type: ClassVar[str] = "invalid_request_error"
    default_detail: ClassVar[str] = ""
    standing: "HasHeaders | None" = None
    """What the caller's quotas looked like when it was refused; shown in the answer's headers."""
    untried: bool = False
    """Whether the provider certainly did nothing, so that the same grant may be presented again."""

    def __init__(self, detail: str = "", *, param: str | None = None, retry_after: int | None = None) -> None:
        self.detail = detail or self.default_detail
        self.param = param
        self.retry_after = retry_after
        super().__init__(f"{self.code}: {self.detail}")


class CallerGone(Exception):
    """The caller went away while their call was opened; no refusal, because nobody is there to be told."""

    code: ClassVar[str] = "caller_gone"


class BadRequest(Refusal):
    """400."""

    status = 400


class InvalidRequest(BadRequest):
    """The request is not of the form that openapi.yaml describes."""

    code = "invalid_request"
    title = "The request is not well formed"


class InvalidOffer(BadRequest):
    """The SDP offer cannot start a call (RFC 8866, RFC 9429)."""

    code = "invalid_offer"
    title = "The SDP offer is not usable"


class OverrideNotAllowed(BadRequest):
    """A session field that the preset does not let a caller choose."""

    code = "override_not_allowed"
    title = "The preset does not allow this override"


class Unauthorized(Refusal):
    """401, with `WWW-Authenticate` (RFC 6750, section 3)."""

    status = 401
    openai_type = "authentication_error"


class MissingToken(Unauthorized):
    """No bearer token came with the request."""

    code = "missing_token"
    title = "A bearer token is needed"
    default_detail = "Send the user's token as `Authorization: Bearer <token>`."


class InvalidToken(Unauthorized):
    """The token's form, signature, audience or claims are not acceptable."""

    code = "invalid_token"
    title = "The token is not valid"


class ExpiredToken(Unauthorized):
    """The token was valid once."""

    code = "expired_token"
    title = "The token has expired"
    default_detail = "The token's `exp` has passed; log in again and send a fresh token."


class UnknownIssuer(Unauthorized):
    """No configured issuer has this name."""

    code = "unknown_issuer"
    title = "The token's issuer is not known here"
    default_detail = "The token's `iss` is none of the issuers that this service accepts."


class GrantUsed(Unauthorized):
    """A grant opens one call, and this one has."""

    code = "grant_used"
    title = "The grant has been used"
    default_detail = "This grant has already opened its call; ask /token for another."


class GrantExpired(Unauthorized):
    """The grant's few seconds are over."""

    code = "grant_expired"
    title = "The grant has expired"
    default_detail = "This grant is no longer valid; ask /token for another and use it at once."


class Forbidden(Refusal):
    """403."""

    status = 403
    openai_type = "permission_error"


class UnknownTenant(Forbidden):
    """The token leads to no tenant that its issuer may speak for."""

    code = "unknown_tenant"
    title = "The token leads to no tenant here"
    default_detail = "The token names no tenant that exists here and that its issuer may speak for."


class TenantSuspended(Forbidden):
    """An operator stopped this tenant."""

    code = "tenant_suspended"
    title = "The tenant is suspended"
    default_detail = "This tenant has been suspended by the operator."


class OriginNotAllowed(Forbidden):
    """The browser's origin is not on the tenant's list."""

    code = "origin_not_allowed"
    title = "The origin is not allowed"
    default_detail = "This page's origin is not in the tenant's `origins`."


class PresetNotAllowed(Forbidden):
    """The caller lacks a claim that the preset requires."""

    code = "preset_not_allowed"
    title = "The preset is not open to this caller"
    default_detail = "The token lacks a claim that this preset requires."


class UnknownPreset(Refusal):
    """404."""

    status = 404
    code = "unknown_preset"
    title = "There is no such preset"
    default_detail = "This tenant has no preset of that name."


class CallNotFound(Refusal):
    """404, also for a call of somebody else."""

    status = 404
    code = "call_not_found"
    title = "There is no such call"
    default_detail = "No call of yours has this id."


class NotFound(Refusal):
    """404 for a path that is none of ours."""

    status = 404
    code = "not_found"
    title = "There is nothing here"
    default_detail = "No route has this path; /openapi.yaml lists them."


class MethodNotAllowed(Refusal):
    """405, with `Allow`."""

    status = 405
    code = "method_not_allowed"
    title = "The method is not allowed here"
    default_detail = "This path does not take this method; see the `Allow` header."


class RequestTimeout(Refusal):
    """408: the body did not arrive in time."""

    status = 408
    code = "request_timeout"
    title = "The request took too long to arrive"
    default_detail = "The request's body did not arrive in time."


class RateLimited(Refusal):
    """429: a limit of requests in time. `violated` names the quota policies that were exceeded."""

    status = 429
    code = "rate_limited"
    title = "Too many requests"
    openai_type = "rate_limit_error"
    violated: Sequence[str] = ()


class TooManyCalls(Refusal):
    """429: as many calls are open as may be."""

    status = 429
    code = "too_many_calls"
    title = "Too many calls are open"
    openai_type = "rate_limit_error"


class PayloadTooLarge(Refusal):
    """413."""

    status = 413
    code = "payload_too_large"
    title = "The request's body is too large"


class HeadersTooLarge(Refusal):
    """431 (RFC 6585, section 5)."""

    status = 431
    code = "headers_too_large"
    title = "The request's head is too large"
    default_detail = "Request line and headers together may hold 64 KB."


class UnsupportedMediaType(Refusal):
    """415."""

    status = 415
    code = "unsupported_media_type"
    title = "The body's media type is not supported"


class ProviderError(Refusal):
    """The provider did not do what it was asked. `provider_request_id` is for the audit, not for the caller."""

    openai_type = "api_error"
    provider_request_id: str | None = None
    call_id: str | None = None
    """A call that came of the request although its answer was of no use: it has to be hung up."""
    key_name: str | None = None
    """The key that opened that call, by its name."""
    again_after: float | None = None
    """Seconds after which the same request may be sent once more, because that does no harm; None: not at all."""
    cause: str = ""
    """What came instead of an answer, as metrics word it: a status, or `timeout`, `unreachable`, `broken`."""


class ProviderRefused(ProviderError):
    """502: the provider answered, and said no for a reason of configuration."""

    status = 502
    code = "provider_refused"
    title = "The provider refused the session"
    default_detail = "The voice provider refused this session; `switchboard check` may tell the operator why."


class ProviderUnavailable(ProviderError):
    """502: no usable answer came from the provider."""

    status = 502
    code = "provider_unavailable"
    title = "The provider cannot be reached"
    default_detail = "The voice provider did not give a usable answer; try again in a moment."


class ProviderTimeout(ProviderError):
    """504."""

    status = 504
    code = "provider_timeout"
    title = "The provider took too long"
    default_detail = "The voice provider did not answer in time; try again in a moment."


class ProviderBusy(ProviderError):
    """503: the provider's own rate limit; or it is down, and is not asked for a moment."""

    status = 503
    code = "provider_busy"
    title = "The provider is busy"
    default_detail = "The voice provider asks for patience; try again after the given time."


class Degraded(Refusal):
    """503: something that admission depends on is away, so nobody is let in on trust (fail closed)."""

    status = 503
    code = "degraded"
    title = "A part that is needed for this is away"
    openai_type = "api_error"
    default_detail = "This service cannot decide on the request at the moment; try again in a moment."


class AuditUnavailable(Refusal):
    """503: a decision that cannot be recorded is not carried out (fail closed)."""

    status = 503
    code = "audit_unavailable"
    title = "The decision could not be recorded"
    openai_type = "api_error"
    default_detail = "Nothing was handed out, because it could not be put on record; try again in a moment."


class Draining(Refusal):
    """503: this process is about to end. Nothing was begun, so another one may be asked the same at once."""

    status = 503
    code = "draining"
    title = "This process takes no new work"
    openai_type = "api_error"
    default_detail = "This process is shutting down for an update; try again, and another one will answer."


class InternalError(Refusal):
    """500: a defect of ours; the log has the details under the request's id."""

    status = 500
    code = "internal_error"
    title = "Something went wrong here"
    openai_type = "api_error"
    default_detail = "An unexpected error; the request id leads the operator to its cause."


def problem(refusal: Refusal, request_id: str) -> dict[str, Any]:
    """The body of a refusal, for readers of RFC 9457 and for OpenAI SDKs at once."""
    violated = (
        {"violated-policies": list(refusal.violated)} if isinstance(refusal, RateLimited) and refusal.violated else {}
    )
    return violated | {
        "type": QUOTA_EXCEEDED if violated else f"urn:switchboard:problem:{refusal.code}",
        "title": refusal.title,
        "status": refusal.status,
        "detail": refusal.detail,
        "instance": f"urn:switchboard:request:{request_id}",
        "code": refusal.code,
        "request_id": request_id,
        "error": {
            "message": refusal.detail,
            "type": refusal.openai_type,
            "code": refusal.code,
            "param": refusal.param,
        },
    }


def problem_headers(refusal: Refusal) -> dict[str, str]:
    """The headers that belong to a refusal whatever its route."""
    headers = {"content-type": PROBLEM_JSON, "cache-control": "no-store"}
    if refusal.standing is not None:
        headers.update(refusal.standing.headers())
    if refusal.retry_after is not None:
        headers["retry-after"] = str(refusal.retry_after)
    if isinstance(refusal, Draining):
        headers["connection"] = "close"  # the next try is to find another process (RFC 9112, section 9.6)
    if isinstance(refusal, MissingToken):
        headers["www-authenticate"] = 'Bearer realm="switchboard"'
    elif isinstance(refusal, Unauthorized):
        headers["www-authenticate"] = (
            f'Bearer realm="switchboard", error="invalid_token", error_description="{refusal.title}"'
        )
    return headers


def encode_problem(refusal: Refusal, request_id: str) -> bytes:
    """`problem` as JSON."""
    return orjson.dumps(problem(refusal, request_id))
