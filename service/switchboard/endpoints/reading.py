"""Reading requests within bounds: who sent it, its body, its JSON."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any, TypeVar, cast

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from starlette.requests import Request
from starlette.types import Message

from switchboard.audit import Caller
from switchboard.errors import InvalidRequest, PayloadTooLarge, RequestTimeout, UnsupportedMediaType

Model = TypeVar("Model", bound=BaseModel)

MAX_JSON_BYTES = 64 * 1024
BODY_SECONDS = 10.0  # an offer is a few kilobytes; a body that needs longer is an attack or a dead line


def _whole(value: Any) -> Any:
    """60.0 is an integer to JSON Schema (2020-12, section 6.1.1), and to our contract."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WholeNumber = Annotated[int, BeforeValidator(_whole)]


class Strict(BaseModel):
    """A body in which nothing is converted and nothing unknown may stand."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def caller_of(request: Request) -> Caller:
    """Who sent the request, as far as its headers say."""
    headers = dict(reversed(request.scope["headers"]))  # of several, the first, as `request.headers` has it
    scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    return Caller(
        request_id=request.scope["request_id"],
        unverified_token=token.strip() if scheme.lower() == "bearer" and token.strip() else None,
        origin=_text(headers.get(b"origin")),
        client_ip=request.client.host if request.client else None,
        user_agent=_text(headers.get(b"user-agent")),
    )


def _text(header: bytes | None) -> str | None:
    return None if header is None else header.decode("latin-1")


def gone(request: Request) -> Callable[[], Awaitable[bool]]:
    """What tells whether the caller of a request, whose body has been read, has gone away meanwhile."""

    async def is_gone() -> bool:
        message = _here(request)  # Starlette's own look makes and cancels a scope
        return message is not None and message["type"] == "http.disconnect"

    return is_gone


def media_type(request: Request) -> str:
    """The media type without its parameters, in lower case; empty if none was sent."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The body, bounded in size and time.

    Raises:
        PayloadTooLarge: it holds more than `max_bytes`; the rest is not read.
        RequestTimeout: it did not arrive within ten seconds.
        InvalidRequest: the caller went away in the middle of it.
    """
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > max_bytes:
        raise PayloadTooLarge(f"This route takes at most {max_bytes} bytes.")
    body = bytearray()
    is_more = _take(_here(request), body, max_bytes)
    if is_more:  # few come in pieces, and only those need a clock
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while is_more:
                    is_more = _take(await request.receive(), body, max_bytes)
        except TimeoutError:
            raise RequestTimeout from None
    return bytes(body)


def _take(message: Message | None, body: bytearray, max_bytes: int) -> bool:
    """Add a message to the body. Whether more will come."""
    if message is None:
        return True
    if message["type"] == "http.disconnect":
        raise InvalidRequest("The body ended before it was whole.")
    body += message.get("body", b"")
    if len(body) > max_bytes:
        raise PayloadTooLarge(f"This route takes at most {max_bytes} bytes.")
    return bool(message.get("more_body", False))


def _here(request: Request) -> Message | None:
    """The next message of a request, if it need not be waited for: a single step of the coroutine that gives it."""
    step = cast("Coroutine[Any, None, Message]", request.receive())
    try:
        step.send(None)
    except StopIteration as told:
        message: Message = told.value
        return message
    step.close()
    return None


async def read_json(request: Request, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """The JSON object in the body; an absent body is an empty object.

    Raises:
        UnsupportedMediaType: there is a body, and it is not declared as JSON.
        InvalidRequest: it is not a JSON object.
    """
    body = await read_body(request, max_bytes)
    if not body:
        return {}
    if media_type(request) != "application/json":
        raise UnsupportedMediaType("Send the body as `application/json`.")
    return parse_object(body)


def parse_object(text: bytes, *, param: str | None = None) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InvalidRequest: the text is not one.
    """
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise InvalidRequest("This is not valid JSON.", param=param) from None
    if not isinstance(parsed, dict):
        raise InvalidRequest("A JSON object is needed here.", param=param)
    return parsed


def parse_model(model: type[Model], body: dict[str, Any]) -> Model:
    """A body as a strict model.

    Raises:
        InvalidRequest: it does not fit; the first mistake is named.
    """
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        param = ".".join(str(part) for part in first["loc"])[:200]
        known = ", ".join(f"`{name}`" for name in model.model_fields)
        raise InvalidRequest(
            f"The body may hold {known}." if first["type"] == "extra_forbidden" else f"`{param}`: {first['msg']}.",
            param=param if param.isprintable() else None,
        ) from None


def single_query(request: Request, name: str) -> str | None:
    """A query parameter that may stand once.

    Raises:
        InvalidRequest: it stands twice.
    """
    if not request.scope["query_string"]:
        return None
    values = request.query_params.getlist(name)
    if len(values) > 1:
        raise InvalidRequest(f"`{name}` may stand once in the query.", param=name)
    return values[0] if values else None
