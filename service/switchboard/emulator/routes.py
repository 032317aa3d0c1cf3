"""The provider's three operations over HTTP, and its no to everything it has retired."""

from collections.abc import Callable
from typing import Final, Protocol

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from switchboard.emulator import documents, flavours, refusal
from switchboard.emulator.offers import canned_answer, checked_offer
from switchboard.emulator.state import Call, Emulator

MOST_SAFETY_CHARACTERS: Final = 128
MOST_CHANNEL_ID: Final = 65534
TALKING: Final = frozenset({"realtime", "transcription"})
TRANSLATING: Final = frozenset({"translation"})


class Media(Protocol):
    """Whoever answers offers: real peers, or nobody."""

    async def answer(self, offer: str, call: Call, channel_id: int | None) -> str:
        """The SDP answer; raises ValueError for an offer that cannot be answered."""

    async def close(self, call_id: str) -> None:
        """Ends a peer; one that is not there is no mistake."""

    async def aclose(self) -> None:
        """Ends all peers."""


class NoMedia:
    """Answers that nobody stands behind: for load, and where aiortc is not installed."""

    async def answer(self, offer: str, call: Call, channel_id: int | None) -> str:  # noqa: ARG002
        return canned_answer(offer)

    async def close(self, call_id: str) -> None:
        """Nothing was opened."""

    async def aclose(self) -> None:
        """Nothing was opened."""


class Provider:
    """The routes over one emulator's memory and its media."""

    def __init__(self, emulator: Emulator, media: Media) -> None:
        self._emulator = emulator
        self._media = media

    def routes(self) -> list[Route]:
        table = {
            "/realtime/client_secrets": self.mint,
            "/realtime/calls": self.call,
            "/realtime/calls/{call_id}/hangup": self.hang_up,
            "/realtime/translations/client_secrets": self.mint_translation,
            "/realtime/translations/calls": self.translate,
            "/realtime": self.beta_call,
        }
        prefix = self._emulator.flavour.prefix
        return [Route(prefix + path, endpoint, methods=["POST"]) for path, endpoint in table.items()]

    async def mint(self, request: Request) -> Response:
        return await self._mint(request, documents.mint_order)

    async def mint_translation(self, request: Request) -> Response:
        return await self._mint(request, documents.translation_order)

    async def _mint(self, request: Request, read: Callable[[bytes, int], documents.MintOrder]) -> Response:
        owner = self._standard_key(request)
        safety = _safety_identifier(request)
        content_type = _content_type(request)
        if content_type != "application/json":
            raise refusal.unsupported_content_type(content_type, "'application/json'")
        order = read(await request.body(), self._emulator.flavour.default_seconds)
        secret = self._emulator.mint(order.session, owner, safety, order.seconds)
        body = {"value": secret.value, "expires_at": secret.expires_at, "session": secret.session}
        return Response(orjson.dumps(body), media_type="application/json")

    async def call(self, request: Request) -> Response:
        channel_id = _channel_id(request)
        _check_not_beta(request)
        key = request.headers.get("api-key") or flavours.bearer(request.headers)
        opened, offer = await (
            self._call_of_secret(request, key, TALKING) if key.startswith("ek_") else self._call_of_key(request)
        )
        return await self._answer(opened, offer, channel_id)

    async def translate(self, request: Request) -> Response:
        """By a secret alone, and without a model in the query."""
        channel_id = _channel_id(request)
        if "model" in request.query_params:
            raise refusal.Refusal(400, "Unknown parameter: 'model'.", code="unknown_parameter", param="model")
        return await self._answer(
            *await self._call_of_secret(request, flavours.bearer(request.headers), TRANSLATING), channel_id
        )

    async def _answer(self, opened: Call, offer: str, channel_id: int | None) -> Response:
        try:
            answer = await self._media.answer(offer, opened, channel_id)
        except ValueError:
            self._emulator.end(opened.id)
            raise refusal.invalid_offer() from None
        headers = {"content-type": self._emulator.options.answer_content_type}
        if self._emulator.options.call_ids:
            headers["location"] = f"/v1/realtime/calls/{opened.id}"
        return Response(answer, 201, headers)

    async def hang_up(self, request: Request) -> Response:
        owner = self._standard_key(request)
        call = self._emulator.call(request.path_params["call_id"])
        if call is None or call.owner != owner or self._emulator.is_over(call):
            raise refusal.call_not_found()
        self._emulator.end(call.id)
        await self._media.close(call.id)
        return Response()

    async def beta_call(self, request: Request) -> Response:  # noqa: ARG002
        raise refusal.beta_gone()

    async def _call_of_secret(self, request: Request, value: str, kinds: frozenset[str]) -> tuple[Call, str]:
        secret = self._emulator.secret(value)
        if secret is None:
            raise refusal.invalid_key(value)
        if secret.session["type"] not in kinds:
            raise refusal.wrong_kind(secret.session["type"])
        content_type = _content_type(request)
        if content_type != "application/sdp":
            raise refusal.unsupported_content_type(content_type, "'application/sdp'")
        offer = checked_offer(await request.body())
        narrowed = self._emulator.flavour.narrows and request.query_params.get("webrtcfilter") == "on"
        return self._emulator.open_call_of(secret, narrowed=narrowed), offer

    async def _call_of_key(self, request: Request) -> tuple[Call, str]:
        """Multipart, or raw SDP without a session, as SDKs send it."""
        owner = self._standard_key(request)
        if self._emulator.flavour.by_secret_only:
            raise flavours.ephemeral_needed()
        safety = _safety_identifier(request)
        content_type = _content_type(request)
        if content_type == "application/sdp":
            offer = checked_offer(await request.body())
            return self._emulator.open_call({"type": "realtime"}, owner, safety), offer
        if content_type != "multipart/form-data":
            accepted = "'multipart/form-data' and 'application/sdp'"
            raise refusal.unsupported_content_type(content_type, accepted)
        fields = await documents.multipart_fields(request.headers, await request.body())
        documents.only_fields(fields, {"sdp", "session"})
        if "sdp" not in fields:
            raise documents.missing("sdp")
        offer = checked_offer(fields["sdp"])
        asked = documents.parsed(fields["session"]) if "session" in fields else {"type": "realtime"}
        session = documents.checked_session(asked, realtime_only=True)
        return self._emulator.open_call(session, owner, safety), offer

    def _standard_key(self, request: Request) -> str:
        _check_not_beta(request)
        emulator = self._emulator
        return emulator.flavour.owner_of(request.headers, emulator.options.keys, emulator.now)


def _check_not_beta(request: Request) -> None:
    if "openai-beta" in request.headers:
        raise refusal.beta_gone()


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _safety_identifier(request: Request) -> str | None:
    identifier = request.headers.get("openai-safety-identifier")
    if identifier and len(identifier) > MOST_SAFETY_CHARACTERS:
        message = f"Invalid 'safety_identifier': at most {MOST_SAFETY_CHARACTERS} characters are allowed."
        raise refusal.Refusal(400, message, code="string_above_max_length", param="safety_identifier")
    return identifier


def _channel_id(request: Request) -> int | None:
    """WARP: the id of a data channel that both sides create without negotiating it."""
    dcid = request.query_params.get("dcid")
    if dcid is None:
        return None
    if not (dcid.isascii() and dcid.isdecimal() and int(dcid[:6]) <= MOST_CHANNEL_ID):
        message = f"Invalid 'dcid': expected an integer from 0 to {MOST_CHANNEL_ID}."
        raise refusal.Refusal(400, message, code="invalid_value", param="dcid")
    return int(dcid)
