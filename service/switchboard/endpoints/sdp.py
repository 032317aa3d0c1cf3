"""POST /sdp, and the call that comes of it as a resource: GET and DELETE /sdp/{call_id} (in the manner of RFC 9725)."""

import io
from dataclasses import replace

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, parse_form
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from switchboard.broker import Broker, Offer
from switchboard.endpoints import MULTIPART, OFFER_PATHS, OFFER_TYPES, resource
from switchboard.endpoints.answering import NO_STORE, json_answer, nobody_there
from switchboard.endpoints.calls import call_as_json
from switchboard.endpoints.reading import (
    MAX_JSON_BYTES,
    caller_of,
    media_type,
    parse_object,
    read_body,
    single_query,
)
from switchboard.errors import CallerGone, InvalidRequest, UnsupportedMediaType
from switchboard.sdp import MAX_BYTES, MEDIA_TYPE

MULTIPART_OVERHEAD = 4 * 1024  # boundaries and part headers
MAX_MEDIA_TYPE = 1024  # characters; a boundary has 70 at most (RFC 2046), and 60,000 semicolons are parsed for 40 ms
MAX_DCID = 65534  # RFC 8832: 65535 is not a stream


def routes(broker: Broker, *, base_path: str = "") -> list[Route]:
    """The routes of this module.

    Args:
        broker: relays offers.
        base_path: where this service's root is below its public host, for `Location`.
    """

    async def post_offer(request: Request) -> Response:
        offer = replace(await read_offer(request), caller_gone=request.is_disconnected)
        try:
            answer = await broker.relay(caller_of(request), offer)
        except CallerGone:
            return nobody_there()
        below = OFFER_PATHS[request.scope["route"].path]
        headers = {**NO_STORE, **answer.standing.headers(), "location": f"{base_path}{below}/{answer.call_id}"}
        return Response(answer.sdp, 201, headers, MEDIA_TYPE)

    async def get_call(request: Request) -> Response:
        return json_answer(call_as_json(await broker.look_up(caller_of(request), request.path_params["call_id"])))

    async def delete_call(request: Request) -> Response:
        return json_answer(call_as_json(await broker.hang_up(caller_of(request), request.path_params["call_id"])))

    async def options(_: Request) -> Response:
        # Without Access-Control-Allow-Methods: there WHIP clients look for PATCH, to send candidates one by one.
        return Response(b"", 200, {"accept-post": OFFER_TYPES, "allow": "OPTIONS, POST"})

    return [
        *(resource(path, POST=post_offer, OPTIONS=options) for path in OFFER_PATHS),
        resource("/sdp/{call_id}", GET=get_call, DELETE=delete_call),
    ]


async def read_offer(request: Request) -> Offer:
    """The offer in a request: the body itself, or the part `sdp` beside an optional part `session`.

    Raises:
        InvalidRequest, PayloadTooLarge, UnsupportedMediaType, RequestTimeout: what is wrong with it.
    """
    preset, dcid = single_query(request, "preset"), _dcid(single_query(request, "dcid"))
    match media_type(request):
        # The provider's samples send `text/plain` at times.
        case "application/sdp" | "text/plain":
            return Offer(await read_body(request, MAX_BYTES), preset=preset, dcid=dcid)
        case "multipart/form-data":
            body = await read_body(request, MAX_BYTES + MAX_JSON_BYTES + MULTIPART_OVERHEAD)
            parts = _parts(request, body)
            session = parse_object(parts["session"], param="session") if "session" in parts else {}
            return Offer(parts["sdp"], preset=preset, session=session, dcid=dcid)
        case _:
            raise UnsupportedMediaType(f"Send the offer as `{MEDIA_TYPE}`, or as `{MULTIPART}` with the part `sdp`.")


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
