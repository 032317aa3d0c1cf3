"""The one endpoint that takes offers, on whichever path: paths differ in how one is read, and in where its call is."""

import io
from collections.abc import Awaitable, Callable
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, parse_form
from starlette.requests import Request
from starlette.responses import Response

from switchboard.broker import Broker, Offer
from switchboard.endpoints import MULTIPART, OFFER_TYPES, Endpoint
from switchboard.endpoints.answering import NO_STORE, nobody_there, with_dropped
from switchboard.endpoints.reading import (
    MAX_JSON_BYTES,
    caller_of,
    gone,
    media_type,
    parse_object,
    read_body,
    single_query,
)
from switchboard.errors import CallerGone, InvalidRequest, UnsupportedMediaType
from switchboard.sdp import MAX_BYTES, MEDIA_TYPE
from switchboard.sessions import TYPES

MULTIPART_OVERHEAD = 4 * 1024  # boundaries and part headers
MAX_MEDIA_TYPE = 1024  # characters; a boundary has 70 at most (RFC 2046), and 60,000 semicolons are parsed for 40 ms
MAX_DCID = 65534  # RFC 8832: 65535 is not a stream

Read = Callable[[Request], Awaitable[Offer]]


def offering(broker: Broker, read: Read, *, below: str) -> Endpoint:
    """An endpoint that takes offers.

    Args:
        broker: relays them.
        read: what a request offers.
        below: the path below which a call is found, for `Location`.
    """

    async def post_offer(request: Request) -> Response:
        offer = await read(request)
        try:
            answer = await broker.relay(caller_of(request), offer)
        except CallerGone:
            return nobody_there()
        location = {} if answer.call_id is None else {"location": f"{below}/{answer.call_id}"}
        headers = {**NO_STORE, **answer.standing.headers(), **location}
        return Response(answer.sdp, 201, with_dropped(headers, answer.dropped), MEDIA_TYPE)

    return post_offer


async def describe_offers(_: Request) -> Response:
    """What may be offered (RFC 9725, section 4.2)."""
    # Without Access-Control-Allow-Methods: there WHIP clients look for PATCH, to send candidates one by one.
    return Response(b"", 200, {"accept-post": OFFER_TYPES, "allow": "OPTIONS, POST"})


async def read_offer(request: Request, *, types: frozenset[str] = TYPES) -> Offer:
    """The offer in a request: the body itself, or the part `sdp` beside an optional part `session`.

    Args:
        request: holds it.
        types: of sessions that its path is for.

    Raises:
        InvalidRequest, PayloadTooLarge, UnsupportedMediaType, RequestTimeout: what is wrong with it.
    """
    preset, dcid = single_query(request, "preset"), _dcid(single_query(request, "dcid"))
    session: dict[str, Any] = {}
    match media_type(request):
        # The provider's samples send `text/plain` at times.
        case "application/sdp" | "text/plain":
            sdp = await read_body(request, MAX_BYTES)
        case "multipart/form-data":
            body = await read_body(request, MAX_BYTES + MAX_JSON_BYTES + MULTIPART_OVERHEAD)
            parts = _parts(request, body)
            sdp = parts["sdp"]
            if "session" in parts:
                session = parse_object(parts["session"], param="session")
        case _:
            raise UnsupportedMediaType(f"Send the offer as `{MEDIA_TYPE}`, or as `{MULTIPART}` with the part `sdp`.")
    return Offer(sdp, preset=preset, session=session, types=types, dcid=dcid, caller_gone=gone(request))


def _dcid(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= MAX_DCID):
        raise InvalidRequest(f"`dcid` is a data channel's id: a whole number from 0 to {MAX_DCID}.", param="dcid")
    return int(text)


def _parts(request: Request, body: bytes) -> dict[str, bytes]:
    content_type = request.headers["content-type"]
    if len(content_type) > MAX_MEDIA_TYPE:
        raise InvalidRequest(f"`Content-Type` may hold {MAX_MEDIA_TYPE} characters.")
    parts: dict[str, bytes] = {}

    def on_field(field: Field) -> None:
        _keep(parts, field.field_name, field.value)

    def on_file(file: File) -> None:
        file.file_object.seek(0)
        _keep(parts, file.field_name, file.file_object.read())
        file.close()

    headers = {"Content-Type": content_type.encode("latin-1")}
    try:
        parse_form(headers, io.BytesIO(body), on_field, on_file)
    except (FormParserError, ValueError):
        raise InvalidRequest("The multipart body is not well formed (RFC 7578).") from None
    if "sdp" not in parts:
        raise InvalidRequest("The multipart body needs a part named `sdp`.", param="sdp")
    return parts


def _keep(parts: dict[str, bytes], name: bytes | None, content: bytes | None) -> None:
    if name not in (b"sdp", b"session") or name.decode() in parts:
        raise InvalidRequest("The multipart body may hold one part `sdp` and one part `session`, and no other.")
    parts[name.decode()] = content or b""
