"""OpenAI Realtime, and what speaks like it: POST /v1/realtime/client_secrets, /v1/realtime/calls, its /{id}/hangup, and
the pair under /v1/realtime/translations.

Sources: the OpenAI OpenAPI description and openai-python 3.51.0, `resources/realtime/{client_secrets,calls}.py` and
`resources/realtime/translations/client_secrets.py`.
"""

import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import orjson

from switchboard import __version__
from switchboard.calls import is_call_id
from switchboard.errors import (
    InvalidOffer,
    ProviderBusy,
    ProviderError,
    ProviderRefused,
    ProviderTimeout,
    ProviderUnavailable,
)
from switchboard.providers import Minted, Opened
from switchboard.providers.account import Account
from switchboard.providers.dialect import OPENAI, Dialect, Route
from switchboard.providers.keys import KeyRefused, ProviderKey
from switchboard.providers.retryafter import retry_after
from switchboard.providers.transport import Part, Reply, TimedOut, Transport, TransportError, Unreachable
from switchboard.sdp import MAX_BYTES, MEDIA_TYPE, looks_like_answer
from switchboard.sessions import is_known

MAX_JSON_BYTES = 512 * 1024  # a session with many tools, echoed
MAX_SECRET_LENGTH = 4096
HANGUP_SECONDS = 5.0
SECRET_SECONDS = 60  # of a client secret that goes no further than this process: until its offer has been sent
INSUFFICIENT_QUOTA = "insufficient_quota"
USER_AGENT = f"switchboard/{__version__}"
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")  # as the id of our own requests
MOMENTARY = frozenset({408, 409})  # of the answers below 500, what another try may mend

Headers = Mapping[str, str]


class Request(NamedTuple):
    """What is posted, whoever signs it."""

    path: str
    headers: Headers
    body: bytes | Sequence[Part]


class OpenAI:
    """The three operations at OpenAI, or at anything that speaks like it.

    Args:
        base_url: ends in `/v1`.
        account: its keys are of one project.
        transport: posts, bounded.
        dialect: what is said in another way there.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        *,
        base_url: str,
        account: Account,
        transport: Transport,
        dialect: Dialect = OPENAI,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._account = account
        self._transport = transport
        self._dialect = dialect
        self._clock = clock

    def has_key(self, name: str) -> bool:
        """See `Provider.has_key`."""
        return bool(self._account.keys_of(name))

    def check_available(self) -> None:
        """See `Provider.check_available`."""
        self._account.check_available()

    async def mint(
        self, session: Mapping[str, Any], *, seconds: int, safety_identifier: str, request_id: str
    ) -> Minted:
        """See `Provider.mint`. Tried again, because a second secret does no harm."""
        route = self._dialect.routes[session["type"]]
        order = _order(route, session, seconds, safety_identifier, request_id)
        return await self._account.ask(partial(self._mint, route, order), operation="mint")

    async def open_call(
        self,
        offer: bytes,
        session: Mapping[str, Any],
        *,
        safety_identifier: str,
        dcid: int | None,
        hide_instructions: bool,
        request_id: str,
    ) -> Opened:
        """See `Provider.open_call`. Sent once, unless no connection came about or a key was refused: each success is a
        call that costs.
        """
        route = self._dialect.routes[session["type"]]
        path = _with_query(route.calls, dcid, self._dialect.hiding if hide_instructions else "")
        headers = {"accept": MEDIA_TYPE, "x-client-request-id": request_id}
        if route.by_secret:
            # The safety identifier is the secret's.
            order = _order(route, session, SECRET_SECONDS, safety_identifier, request_id)
            raw = Request(path, {**headers, "content-type": MEDIA_TYPE}, offer)
            return await self._account.ask(partial(self._mint_and_open, route, order, raw), operation="call")
        # Multipart: with a standard key, raw SDP would carry no session.
        form = (Part("sdp", MEDIA_TYPE, offer), Part("session", "application/json", orjson.dumps(session)))
        unified = Request(path, {**headers, "openai-safety-identifier": safety_identifier}, form)
        return await self._account.ask(partial(self._open_by_key, unified), operation="call")

    async def hang_up(self, call_id: str, *, key_name: str, request_id: str) -> bool:
        """See `Provider.hang_up`. Past the breaker, and with a key that is set aside as well: an open call costs.

        404 means over, or opened with another key: so every value that stood behind this name lately has to say it.
        """
        keys = self._account.keys_of(key_name)
        request = Request(f"/realtime/calls/{call_id}/hangup", {"x-client-request-id": request_id}, b"")
        refusal: ProviderError | None = None
        for key in keys or [self._account.first_key()]:
            try:
                reply = await self._send(request, self._signed(key), operation="hangup", timeout=HANGUP_SECONDS)
            except TransportError as error:
                raise _failed(error) from None
            if _is_success(reply):
                return True
            if reply.status != 404 or not keys:
                refusal = _refusal(reply)
        if refusal is not None:
            raise refusal
        return False

    async def _mint(self, route: Route, order: Request, key: ProviderKey, timeout: float) -> Minted:
        try:
            reply = await self._send(order, self._signed(key), operation="mint", timeout=timeout)
        except TransportError as error:
            refusal = _failed(error)
            # No connection, or one that broke; what is too slow or too large would be so again.
            if not isinstance(error, TimedOut) and error.head is None:
                refusal.again_after = 0.0
            raise refusal from None
        if reply.status == 200:
            return _minted(reply, self._base_url + route.calls)
        _check_key(reply)
        refusal = _refusal(reply)
        if reply.status in MOMENTARY or reply.status == 429 or reply.status >= 500:
            refusal.again_after = retry_after(reply.headers) or 0.0
        raise refusal

    async def _mint_and_open(
        self, route: Route, order: Request, offer: Request, key: ProviderKey, timeout: float
    ) -> Opened:
        """Two requests in the time of one, of which the first may take half. Until the offer is sent nothing is opened,
        so what may be tried again of a mint may be tried again as a whole.
        """
        began = self._clock()
        minted = await self._mint(route, order, key, timeout / 2)
        left = timeout - (self._clock() - began)
        try:
            return await self._open_call(offer, {"authorization": f"Bearer {minted.value}"}, key, left)
        except KeyRefused as refusal:
            if refusal.why == INSUFFICIENT_QUOTA:
                raise
            # It took the key a moment ago: what it refuses is the secret, and another key's would fare no better.
            refused = ProviderRefused()
            refused.provider_request_id, refused.cause = refusal.provider_request_id, refusal.why
            raise refused from None

    async def _open_by_key(self, offer: Request, key: ProviderKey, timeout: float) -> Opened:
        return await self._open_call(offer, self._signed(key), key, timeout)

    async def _open_call(self, offer: Request, signature: Headers, key: ProviderKey, timeout: float) -> Opened:
        try:
            reply = await self._send(
                offer, signature, operation="call", timeout=timeout, max_bytes=MAX_BYTES, head_first=True
            )
        except TransportError as error:
            refusal = _failed(error)
            if refusal.untried:
                refusal.again_after = 0.0
            raise _left_behind(refusal, error.head, key) from None
        if reply.status == 400 and _error_of(reply).get("code") == "invalid_offer":
            raise InvalidOffer("The voice provider cannot use this SDP offer; send the browser's `sdp` unchanged.")
        if not _is_success(reply):
            _check_key(reply)
            raise _refusal(reply)
        call_id = _call_id(reply)
        # By what it holds, not by its content type: live servers say text/plain.
        if (call_id is None and "location" in reply.headers) or not looks_like_answer(reply.body):
            raise _left_behind(_senseless(reply), reply, key)
        return Opened(call_id, reply.body, key.name, _request_id(reply))

    def _signed(self, key: ProviderKey) -> Headers:
        if not key.value:
            raise Unreachable("no token at present")
        return {self._dialect.key_header: self._dialect.key_prefix + key.value}

    def _send(
        self,
        request: Request,
        signature: Headers,
        *,
        operation: str,
        timeout: float,
        max_bytes: int = MAX_JSON_BYTES,
        head_first: bool = False,
    ) -> Awaitable[Reply]:
        return self._transport.post(
            self._base_url + request.path,
            operation=operation,
            headers={**request.headers, **signature, "user-agent": USER_AGENT},
            body=request.body,
            timeout=timeout,
            max_bytes=max_bytes,
            head_first=head_first,
        )


def _order(route: Route, session: Mapping[str, Any], seconds: int, safety_identifier: str, request_id: str) -> Request:
    """A mint. Its lifetime is always said: what a provider takes for granted differs."""
    if not route.typed:
        session = {name: value for name, value in session.items() if name != "type"}
    headers = {
        "content-type": "application/json",
        "openai-safety-identifier": safety_identifier,
        "x-client-request-id": request_id,
    }
    body = {"expires_after": {"anchor": "created_at", "seconds": seconds}, "session": session}
    return Request(route.mint, headers, orjson.dumps(body))


def _with_query(path: str, dcid: int | None, hiding: str) -> str:
    query = hiding if dcid is None else f"dcid={dcid}&{hiding}".rstrip("&")
    return f"{path}?{query}" if query else path


def _failed(error: TransportError) -> ProviderError:
    refusal: ProviderError = ProviderTimeout() if isinstance(error, TimedOut) else ProviderUnavailable()
    refusal.untried = isinstance(error, Unreachable)
    refusal.cause = error.label
    return refusal


def _left_behind(refusal: ProviderError, head: Reply | None, key: ProviderKey) -> ProviderError:
    """With the call that exists although its answer is of no use, if its id has come."""
    if head is not None:
        refusal.provider_request_id = _request_id(head)
        if _is_success(head):
            refusal.call_id, refusal.key_name = _call_id(head), key.name
    return refusal


def _is_success(reply: Reply) -> bool:
    """201 by its description; SDKs take any success."""
    return 200 <= reply.status < 300


def _call_id(reply: Reply) -> str | None:
    """`Location: /v1/realtime/calls/rtc_…`: the id is opaque, and the last segment. Some servers give none."""
    call_id = reply.headers.get("location", "").rpartition("/")[2]
    return call_id if is_call_id(call_id) else None


def _minted(reply: Reply, calls_url: str) -> Minted:
    media_type = reply.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    try:
        match orjson.loads(reply.body):
            case {"value": str(value), "expires_at": int(expires_at), "session": dict(session)} if (
                0 < len(value) <= MAX_SECRET_LENGTH and not isinstance(expires_at, bool) and media_type.endswith("json")
            ):
                return Minted(value, expires_at, session, calls_url, _request_id(reply))
    except orjson.JSONDecodeError:
        pass
    raise _senseless(reply)


def _check_key(reply: Reply) -> None:
    """Whether an answer is about the key.

    Raises:
        KeyRefused: it is. Not by a 403 that names what it is about: the session of one preset says nothing of the key.
    """
    error = _error_of(reply)
    if error.get("code") == INSUFFICIENT_QUOTA:
        raise KeyRefused(INSUFFICIENT_QUOTA, _request_id(reply))
    is_named = bool(error.get("param")) or error.get("code") == "model_not_found"
    if reply.status == 401 or (reply.status == 403 and not is_named):
        raise KeyRefused(str(reply.status), _request_id(reply))


def _refusal(reply: Reply) -> ProviderError:
    """The provider's "no" in our words; of its own only the path of a field that our schema knows gets through."""
    error = _error_of(reply)
    refusal: ProviderError
    if reply.status == 429 and error.get("code") != INSUFFICIENT_QUOTA:
        refusal = ProviderBusy(retry_after=math.ceil(retry_after(reply.headers, default=1.0)))
        refusal.untried = True
    elif 400 <= reply.status < 500 and reply.status not in (*MOMENTARY, 429):
        refusal = ProviderRefused(param=_known_param(error.get("param")))
    else:
        refusal = ProviderUnavailable()
    return _explained(refusal, reply)


def _senseless(reply: Reply) -> ProviderError:
    return _explained(ProviderUnavailable(), reply)


def _explained(refusal: ProviderError, reply: Reply) -> ProviderError:
    refusal.provider_request_id, refusal.cause = _request_id(reply), str(reply.status)
    return refusal


def _error_of(reply: Reply) -> Mapping[str, Any]:
    try:
        document = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return {}
    error = document.get("error") if isinstance(document, dict) else None
    return error if isinstance(error, dict) else {}


def _known_param(param: object) -> str | None:
    return param if isinstance(param, str) and param.startswith("session.") and is_known(param) else None


def _request_id(reply: Reply) -> str | None:
    """Azure's first: what its support asks for. It goes on record, so only what has the form of an id does."""
    given = reply.headers.get("apim-request-id") or reply.headers.get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else None
