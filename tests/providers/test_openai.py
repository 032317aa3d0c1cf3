"""What OpenAI is asked, and how its refusals and failures become ours: without its text, its key or its ids."""

from typing import Any

import orjson
import pytest

from switchboard.errors import InvalidOffer, ProviderError, Refusal
from switchboard.providers import Minted, Opened
from switchboard.providers.account import Accounts, Listed
from switchboard.providers.keys import ProviderKey
from switchboard.providers.openai import OpenAI
from switchboard.providers.transport import BrokenReply, Reply, TimedOut, Unreachable

pytestmark = pytest.mark.anyio

ANSWER = b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"
SECRET_TEXT = "Incorrect API key provided: sk-live-abc; project proj_123"
ASKED: dict[str, Any] = {"safety_identifier": "u" * 64, "hide_instructions": False, "request_id": "r-1"}
KEY = ProviderKey("env:OPENAI_API_KEY", "sk-live-abcdefgh")


class Recorded:
    """A transport that is a plain callable: what was asked, and one answer."""

    def __init__(self, outcome):
        self.outcome = outcome
        self.then = None
        self.asked = []

    async def post(self, url, **request):
        self.asked.append((url, request))
        if len(self.asked) > 1 and self.then is not None:
            return self.then
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr("switchboard.providers.account.BACKOFF", lambda _: 0.0)


def provider(outcome, keys=(KEY,)) -> tuple[OpenAI, Recorded]:
    transport = Recorded(outcome)
    listed = {"openai": Listed("https://api.example/v1", keys)}
    account = Accounts(timeout=7, observe=lambda *_: None, clock=lambda: 0.0).of(listed)["openai"]
    return OpenAI(base_url="https://api.example/v1/", account=account, transport=transport), transport


def reply(status, body=b"", **headers) -> Reply:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    return Reply(
        status, {"x-request-id": "req_1", **{name.replace("_", "-"): value for name, value in headers.items()}}, content
    )


def error(status, *, code=None, param=None, **headers) -> Reply:
    body = {"error": {"message": SECRET_TEXT, "type": "invalid_request_error", "param": param, "code": code}}
    return reply(status, body, **headers)


async def mint(outcome):
    made, _ = provider(outcome)
    return await made.mint({"type": "realtime"}, seconds=30, safety_identifier="u" * 64, request_id="r-1")


async def open_call(outcome, dcid=None):
    made, _ = provider(outcome)
    return await made.open_call(b"offer", {"type": "realtime"}, **ASKED, dcid=dcid)


async def test_a_mint():
    body = {"value": "ek_1", "expires_at": 9, "session": {"id": "sess_1"}}
    calls_url = "https://api.example/v1/realtime/calls"
    assert await mint(reply(200, body)) == Minted("ek_1", 9, {"id": "sess_1"}, calls_url, "req_1")


async def test_a_call():
    made, transport = provider(reply(201, ANSWER, location="/v1/realtime/calls/rtc_u1_abc"))
    opened = await made.open_call(b"offer", {"type": "realtime"}, **ASKED, dcid=3)
    assert opened == Opened("rtc_u1_abc", ANSWER, "env:OPENAI_API_KEY", "req_1")
    ((url, request),) = transport.asked
    assert url == "https://api.example/v1/realtime/calls?dcid=3"
    assert request["timeout"] == 7
    assert [(part.name, part.media_type, part.content) for part in request["body"]] == [
        ("sdp", "application/sdp", b"offer"),
        ("session", "application/json", b'{"type":"realtime"}'),
    ]


@pytest.mark.parametrize("status", [200, 201, 202])
async def test_any_success_and_any_location_style_will_do(status):
    azure = reply(status, ANSWER, location="https://x.example/openai/v1/realtime/calls/rtc_0123456789abcdef")
    assert (await open_call(azure)).call_id == "rtc_0123456789abcdef"


REFUSALS = [
    (error(400, code="unknown_parameter", param="session.audio.output.speed"), "provider_refused"),
    (error(400, code="unknown_parameter", param="session.evil"), "provider_refused"),
    (error(401, code="invalid_api_key"), "provider_unavailable"),
    (error(403), "provider_unavailable"),
    (error(403, code="model_not_found"), "provider_refused"),
    (error(403, param="session.model"), "provider_refused"),
    (error(408), "provider_unavailable"),
    (error(409), "provider_unavailable"),
    (error(404, code="model_not_found"), "provider_refused"),
    (error(429, code="rate_limit_exceeded", retry_after="17"), "provider_busy"),
    (error(429, code="insufficient_quota"), "provider_unavailable"),
    (error(500), "provider_unavailable"),
    (error(503), "provider_unavailable"),
    (reply(502, b"<html>sk-live</html>"), "provider_unavailable"),
    (reply(418, b"[1]"), "provider_refused"),
    # As gateways in front of Azure word it.
    (reply(429, {"statusCode": 429, "message": "Rate limit is exceeded."}, retry_after="17"), "provider_busy"),
    (reply(404, {"error": {"code": "DeploymentNotFound", "message": SECRET_TEXT, "details": []}}), "provider_refused"),
    (reply(307, b"", location="https://evil.example/"), "provider_unavailable"),
    (Unreachable("ConnectError"), "provider_unavailable"),
    (BrokenReply("ReadError"), "provider_unavailable"),
    (TimedOut("ReadTimeoutError"), "provider_timeout"),
]


KEY_REFUSED = [error(401, code="invalid_api_key"), error(403), error(429, code="insufficient_quota")]


@pytest.mark.parametrize("operation", [mint, open_call])
@pytest.mark.parametrize(("outcome", "code"), REFUSALS)
async def test_refusals(operation, outcome, code):
    with pytest.raises(Refusal) as refused:
        await operation(outcome)
    assert refused.value.code == code
    assert isinstance(refused.value, ProviderError)
    for secret in ("sk-live", "proj_123", "req_1", "evil"):
        assert secret not in str(refused.value)
        assert secret not in str(refused.value.param)
    if isinstance(outcome, Reply):
        assert refused.value.provider_request_id == "req_1"
    # Only what the provider certainly has not begun may be tried again with the same grant.
    nothing_done = isinstance(outcome, Unreachable) or outcome in KEY_REFUSED or code == "provider_busy"
    assert refused.value.untried is nothing_done


async def test_a_known_field_is_named():
    for param, shown in (
        ("session.audio.output.speed", "session.audio.output.speed"),
        ("session.tools[0].name", "session.tools[0].name"),
        ("session.evil<script>", None),
        ("sess_123", None),
        (7, None),
    ):
        with pytest.raises(ProviderError) as refused:
            await mint(error(400, code="unknown_parameter", param=param))
        assert refused.value.param == shown


@pytest.mark.parametrize(
    ("header", "seconds"), [("17", 17), ("0", 0), ("99999999", 3600), ("7200", 3600), ("soon", 1), ("-3", 1), ("٣", 1)]
)
async def test_retry_after_is_bounded(header, seconds):
    with pytest.raises(ProviderError) as refused:
        await mint(error(429, retry_after=header))
    assert refused.value.retry_after == seconds


@pytest.mark.parametrize("code", ["invalid_offer", None])
async def test_a_hangup_that_is_refused_is_the_providers_doing(code):
    """Whatever it says, the call may be open: a sweeper has to try again."""
    with pytest.raises(ProviderError):
        await provider(error(400, code=code))[0].hang_up("rtc_1", key_name="env:KEY", request_id="r-1")


async def test_an_offer_that_the_provider_cannot_use_is_the_callers_mistake():
    with pytest.raises(InvalidOffer) as refused:
        await open_call(error(400, code="invalid_offer"))
    assert "sk-live" not in str(refused.value)


@pytest.mark.parametrize(
    "answer",
    [
        reply(200, b"not json"),
        reply(200, b"[]"),
        reply(200, {}),
        reply(200, {"value": "", "expires_at": 1, "session": {}}),
        reply(200, {"value": "x" * 5000, "expires_at": 1, "session": {}}),
        reply(200, {"value": "ek_1", "expires_at": "1", "session": {}}),
        reply(200, {"value": "ek_1", "expires_at": True, "session": {}}),
        reply(200, {"value": "ek_1", "expires_at": 1, "session": []}),
        reply(201, {"value": "ek_1", "expires_at": 1, "session": {}}),
        reply(200, {"value": "ek_1", "expires_at": 1, "session": {}}, content_type="text/html; charset=utf-8"),
    ],
)
async def test_a_mint_that_makes_no_sense(answer):
    with pytest.raises(ProviderError) as refused:
        await mint(answer)
    assert refused.value.code == "provider_unavailable"


@pytest.mark.parametrize(
    "answer",
    [
        reply(201, ANSWER, location=""),
        reply(201, ANSWER, location="/v1/realtime/calls/"),
        reply(201, ANSWER, location="/v1/realtime/calls/rtc_1?x=y"),
        reply(201, ANSWER, location="/v1/realtime/calls/" + "x" * 129),
        reply(201, b"", location="/v1/realtime/calls/rtc_1"),
        reply(201, b"<html>", location="/v1/realtime/calls/rtc_1"),
        reply(201, ANSWER[:-2], location="/v1/realtime/calls/rtc_1"),
    ],
)
async def test_an_answer_that_makes_no_sense(answer):
    with pytest.raises(ProviderError) as refused:
        await open_call(answer)
    assert refused.value.code == "provider_unavailable"


async def test_a_server_that_names_no_call():
    assert await open_call(reply(201, ANSWER)) == Opened(None, ANSWER, KEY.name, "req_1")


@pytest.mark.parametrize("failure", [BrokenReply, TimedOut])
async def test_a_call_whose_answer_was_cut_off_is_named(failure):
    head = Reply(201, {"location": "/v1/realtime/calls/rtc_u1_abc", "x-request-id": "req_9"}, b"")
    with pytest.raises(ProviderError) as refused:
        await open_call(failure("ReadError", head))
    found = refused.value
    assert (found.call_id, found.key_name, found.provider_request_id) == ("rtc_u1_abc", KEY.name, "req_9")


@pytest.mark.parametrize("text", ["", "two words", "Bearer=sk-live-abc", "req_é", "req_1\n", "r" * 129])
@pytest.mark.parametrize("header", ["x_request_id", "apim_request_id"])
async def test_what_is_no_request_id_is_not_put_on_record(header, text):
    names = {"x_request_id": text, header: text}
    assert (await open_call(reply(201, ANSWER, **names))).provider_request_id is None
    with pytest.raises(ProviderError) as refused:
        await mint(error(400, **names))
    assert refused.value.provider_request_id is None


async def test_azures_request_id_goes_first():
    opened = await open_call(reply(201, ANSWER, apim_request_id="8d0cbb0f-0b1e-4a52-9f4e-0c0d7f3a1f60"))
    assert opened.provider_request_id == "8d0cbb0f-0b1e-4a52-9f4e-0c0d7f3a1f60"


async def test_hang_up_uses_the_key_that_opened_the_call():
    keys = [ProviderKey("env:A", "sk-a-123456"), ProviderKey("env:B", "sk-b-123456")]
    made, transport = provider(reply(200), keys)
    assert await made.hang_up("rtc_1", key_name="env:B", request_id="r-1") is True
    ((url, request),) = transport.asked
    assert url == "https://api.example/v1/realtime/calls/rtc_1/hangup"
    assert request["headers"]["authorization"] == "Bearer sk-b-123456"
    assert request["body"] == b""


async def test_404_ends_a_call_only_for_the_key_that_opened_it():
    made, _ = provider(error(404, code="call_id_not_found", param=""))
    assert await made.hang_up("rtc_1", key_name=KEY.name, request_id="r-1") is False
    with pytest.raises(ProviderError):
        await made.hang_up("rtc_1", key_name="env:GONE", request_id="r-1")


def test_a_key_does_not_show_itself():
    assert repr(KEY) == "ProviderKey(env:OPENAI_API_KEY)"
