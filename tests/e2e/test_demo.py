"""The demo page as a person uses it: a real browser, real WebRTC, the real process."""

import base64
import json
import os
import re
import signal
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests.e2e.dev_server import dev_server
from tests.support.leaks import LEAKS

INACCESSIBLE = Path(__file__).with_name("inaccessible.js").read_text()
SCREENSHOT = Path(__file__).parents[2] / "docs" / "images" / "demo.png"
# Read now: the tests run without any SWITCHBOARD_ variable.
WRITE_SCREENSHOT = os.environ.get("SWITCHBOARD_WRITE_SCREENSHOT") == "1" or not SCREENSHOT.exists()

SUPPORT = "You help a customer of Acme with orders. Be brief and kind."
CONCIERGE = "You are the concierge of Widgets. Answer in one sentence."
SAID = "Hello from the emulator. All is well."
CHIME_SECONDS = 4
RELAYED = {"tenant": "acme", "preset": "support", "path": "relay"}
SOON = 2000  # milliseconds from the click to a call; generous on loopback, and what the design promises

# button, code and status
ATTACKS = {
    "no-token": ("missing_token", 401, "/token"),
    "garbage-token": ("invalid_token", 401, "/token"),
    "forged-token": ("invalid_token", 401, "/token"),
    "expired-token": ("expired_token", 401, "/token"),
    "unknown-preset": ("unknown_preset", 404, "/token"),
    "override": ("override_not_allowed", 400, "/token"),
    "bad-offer": ("invalid_offer", 400, "/sdp"),
    "other-call": ("call_not_found", 404, "/sdp/rtc_u1_belongstobob"),
}

pytestmark = pytest.mark.browser


class TestCalls:
    def test_relay_from_the_click_to_the_hang_up(self, demo, server):
        demo.open(**RELAYED, user="relaying-rosalind-7731")
        demo.expect_state("idle")
        call_id = demo.connect()
        demo.expect_steps("token")
        assert demo.ms("ice") < SOON
        assert demo.ms("channel") < SOON
        assert demo.answers("POST", "/token") == []
        assert [answer.status for answer in demo.answers("POST", "/sdp")] == [201]

        # The provider's own words about the session: the server's preset, with the default of the claim.
        expect(demo["#session-instructions"]).to_have_text(SUPPORT)
        created = demo.event("session.created")["session"]
        assert created["instructions"] == SUPPORT
        assert created["model"] == "gpt-realtime-2.1"
        assert created["audio"]["output"]["voice"] == "marin"

        # It chimes when a call starts; what comes after that silence is the answer to the button.
        demo.expect_sound("assistant")
        demo.expect_sound("you")
        demo.expect_silence("assistant", 300)
        demo["#say-hello"].click()
        demo.expect_sound("assistant")
        demo.expect_event("response.done")
        done = demo.event("response.done")["response"]
        assert done["status"] == "completed"
        assert done["usage"]["total_tokens"] == done["usage"]["input_tokens"] + done["usage"]["output_tokens"] > 0
        expect(demo["#usage"]).to_have_text(
            f"{done['usage']['input_tokens']} tokens in, {done['usage']['output_tokens']} out"
        )
        expect(demo["#transcript [data-role=assistant] span"]).to_have_text(SAID)

        user = server.token("acme", "relaying-rosalind-7731")
        running = server.call(call_id, user)
        assert (running["state"], running["ended_at"], running["ended_by"]) == ("open", None, None)
        demo.hang_up()
        expect(demo["#reason"]).to_have_text("You hung up.")
        expect(demo["#timeline-note"]).to_contain_text("the server has ended the call")
        ended = server.record(action="call.end", call_id=call_id)
        assert (ended["outcome"], ended["tenant"], ended["preset"]) == ("allowed", "acme", "support")
        assert ended["seconds"] > 0
        assert ended["user_key"] == server.record(action="call.open", call_id=call_id)["user_key"]
        over = server.call(call_id, user)
        assert (over["state"], over["ended_by"]) == ("ended", "owner")

    def test_token_with_a_grant(self, demo, server):
        demo.open(tenant="acme", preset="support", path="token", user="granted-griselda-1204")
        call_id = demo.connect()
        demo.expect_steps()
        assert demo.ms("channel") < SOON
        [minted] = demo.answers("POST", "/token")
        assert minted.json()["value"].startswith("ek_swb_")
        assert minted.json()["calls_url"] == f"{server.url}/sdp"
        expect(demo["#session-instructions"]).to_have_text(SUPPORT)
        demo.expect_sound("assistant")
        demo.expect_sound("you")
        demo["#message"].fill("Where is my parcel?")
        demo["#message"].press("Enter")
        demo.expect_event("response.done")
        expect(demo["#transcript [data-role=user] span"]).to_have_text("Where is my parcel?")
        expect(demo["#transcript [data-role=assistant] span"]).to_have_text(SAID)
        demo.hang_up()
        granted = server.record(action="call.end", call_id=call_id)
        assert granted["outcome"] == "allowed"

    def test_token_direct_goes_past_the_server(self, demo, server):
        demo.open(tenant="widgets", preset="concierge", path="token", user="directed-dagobert-559")
        call_id = demo.connect()
        demo.expect_steps()
        assert demo.ms("channel") < SOON
        [minted] = demo.answers("POST", "/token")
        assert minted.json()["value"].startswith("ek_")
        assert not minted.json()["value"].startswith("ek_swb_")
        [opened] = demo.answers("POST", "/v1/realtime/calls")
        assert opened.status == 201
        assert urlsplit(opened.url).netloc not in urlsplit(server.url).netloc
        assert demo.answers("POST", "/sdp") == []
        expect(demo["#session-instructions"]).to_have_text(CONCIERGE)
        demo.expect_sound("assistant")
        demo.expect_sound("you")
        demo["#say-hello"].click()
        demo.expect_event("response.done")
        expect(demo["#transcript [data-role=assistant] span"]).to_have_text(SAID)
        demo.hang_up()
        expect(demo["#timeline-note"]).to_contain_text("can’t be ended by the server")
        assert [record["action"] for record in server.records if record.get("call_id") == call_id] == []

    def test_a_second_call_starts_from_a_clean_page(self, demo, server):
        demo.open(**RELAYED, user="repeating-raimund-88", source="tone")
        first = demo.connect()
        demo["#say-hello"].click()
        demo.expect_event("response.done")
        demo.hang_up()
        second = demo.connect()
        assert second != first
        demo.expect_event("response.done", 0)
        expect(demo["#transcript p"]).to_have_count(0)
        expect(demo["#timeline-note"]).to_be_hidden()
        demo.expect_sound("you")  # the tone stands in for the microphone
        demo.hang_up()

    def test_mute_silences_the_microphone(self, demo):
        demo.open(**RELAYED, user="muting-mechthild-342")
        expect(demo["#mute"]).to_be_disabled()
        demo.connect()
        demo.expect_sound("you")
        demo["#mute"].click()
        expect(demo["#mute"]).to_have_attribute("aria-pressed", "true")
        expect(demo["#mute"]).to_contain_text("Unmute")
        expect(demo["#label-you"]).to_have_text("You, muted")
        demo.expect_silence("you", 1300)  # longer than from one beep to the next
        demo["#mute"].click()
        expect(demo["#mute"]).to_have_attribute("aria-pressed", "false")
        demo.expect_sound("you")
        demo.hang_up()

    def test_no_microphone_is_explained_and_a_tone_goes_on(self, demo):
        demo.page.add_init_script(
            "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('no', 'NotAllowedError'));"
        )
        demo.open(**RELAYED, user="denied-dietlinde-23")
        demo["#connect"].click()
        demo.expect_state("refused")
        demo.expect_refusal("microphone_denied")
        expect(demo["#timeline [data-step=microphone]"]).to_have_attribute("data-status", "failed")
        demo["#refusal-tone"].click()
        demo.expect_state("connected")
        expect(demo["#refusal"]).to_be_hidden()
        demo.expect_sound("you")
        demo.hang_up()

    def test_a_page_that_closes_ends_its_call(self, pages, server):
        going, closing = pages(), pages()
        ids = []
        for demo, path in ((going, "relay"), (closing, "token")):
            demo.open(tenant="acme", preset="support", path=path, user=f"leaving-leopold-{path}")
            ids.append(demo.connect())
            demo.leave()
        going.page.goto("about:blank")
        closing.page.close(run_before_unload=True)
        for call_id in ids:
            ended = server.record(timeout=2, action="call.end", call_id=call_id)
            assert (ended["outcome"], ended["reason"]) == ("allowed", "owner")

    def test_a_server_that_stops_ends_the_call(self, pages, tmp_path):
        with dev_server(tmp_path, signal.SIGTERM) as own:
            demo = pages(own.url)
            demo.open(**RELAYED, user="abandoned-apollonia-6")
            demo.connect()
            demo.leave()
        demo.expect_state("ended")
        expect(demo["#reason"]).to_have_text("The other side closed the call.")
        expect(demo["#connect"]).to_have_attribute("aria-disabled", "false")


class TestRefusals:
    def test_a_preset_that_the_plan_does_not_include(self, demo, server):
        demo.open(tenant="acme", preset="expert", path="token", user="planless-placida-61")
        expect(demo["#preset-note"]).to_contain_text("needs plan pro or team")
        demo.foresee(403, "/token")
        demo["#connect"].click()
        demo.expect_state("refused")
        demo.expect_refusal("preset_not_allowed")
        expect(demo["#refusal-title"]).to_have_text("This user’s plan does not include that preset.")
        expect(demo["#timeline [data-step=token]"]).to_have_attribute("data-status", "failed")
        [refused] = demo.answers("POST", "/token")
        assert refused.status == 403
        expect(demo["#refusal-facts"]).to_contain_text(refused.headers["x-request-id"])
        denied = server.record(request_id=refused.headers["x-request-id"])
        assert (denied["outcome"], denied["reason"]) == ("denied", "preset_not_allowed")

        demo["#plan"].select_option("pro")
        demo.connect()
        expect(demo["#refusal"]).to_be_hidden()
        expect(demo["#session-instructions"]).to_contain_text("senior engineer on call for a customer")
        demo.hang_up()

    def test_the_same_on_the_relay_path(self, demo):
        demo.open(tenant="acme", preset="expert", path="relay", user="planless-placida-62")
        demo.foresee(403, "/sdp")
        demo["#connect"].click()
        demo.expect_refusal("preset_not_allowed")
        demo["#refusal-close"].click()
        expect(demo["#refusal"]).to_be_hidden()
        expect(demo["#connect"]).to_be_focused()

    def test_attempts_to_break_it(self, demo):
        demo.open(**RELAYED, user="attacking-attila-453")
        expect(demo["#attacks button"]).to_have_count(len(ATTACKS) + 1)  # and the flood
        for name, (code, status, path) in ATTACKS.items():
            demo.foresee(status, path)
            demo[f"#break-{name}"].click()
            outcome = demo[f"li:has(#break-{name}) output"]
            expect(outcome).to_have_attribute("data-outcome", "refused")
            expect(outcome).to_contain_text(f"{status} {code}")
            demo.expect_refusal(code)
            refused = demo.responses[-1]
            assert (refused.status, urlsplit(refused.url).path) == (status, path)
            expect(demo["#refusal-facts"]).to_contain_text(refused.headers["x-request-id"])
        demo.expect_state("idle")

    def test_a_flood(self, demo):
        demo.open(**RELAYED, user="flooding-florentine-9")
        demo.foresee(429, "/token")
        demo["#break-flood"].click()
        outcome = demo["li:has(#break-flood) output"]
        expect(outcome).to_have_attribute("data-outcome", re.compile("refused|other"), timeout=20_000)
        expect(outcome).to_contain_text("429 rate_limited")
        demo.expect_refusal("rate_limited")
        expect(demo["#refusal-facts"]).to_contain_text("The limit of 10 per minute per user is used up")
        expect(demo["#retry-after"]).to_have_text(re.compile(r"in \d+ s"))

    def test_what_is_left_is_shown(self, demo):
        demo.open(**RELAYED, user="thrifty-theodora-71")
        expect(demo["#quota"]).to_be_hidden()
        for left in (9, 8):
            demo.connect()
            expect(demo["#quota"]).to_contain_text(f"{left} left this minute")
            expect(demo["#quota"]).to_contain_text("left this day, anew in 24 h")
            demo.hang_up()

    def test_a_server_that_is_gone(self, demo):
        demo.open(**RELAYED, user="stranded-stanislaus-5")
        demo.page.route("**/sdp*", lambda route: route.abort("connectionrefused"))
        demo.leave()
        demo["#connect"].click()
        demo.expect_state("refused")
        demo.expect_refusal("network_error")


class TestPage:
    def test_keyboard_alone_places_a_call(self, demo):
        demo.open(tenant="acme", preset="support", path="token", user="typing-theodora-18")
        keyboard = demo.page.keyboard

        def tab_to(selector: str) -> None:
            for _ in range(20):
                keyboard.press("Tab")
                if demo.page.evaluate("selector => document.activeElement.matches(selector)", selector):
                    return
            pytest.fail(f"Tab does not come to {selector}")

        tab_to(".skip")
        tab_to("#tenant")
        tab_to("#path-token")
        keyboard.press("ArrowDown")
        expect(demo["#path-relay"]).to_be_checked()
        tab_to("#connect")
        keyboard.press("Enter")
        demo.expect_state("connected")
        assert demo.answers("POST", "/token") == []
        keyboard.press("m")
        expect(demo["#mute"]).to_have_attribute("aria-pressed", "true")
        keyboard.press("m")
        expect(demo["#mute"]).to_have_attribute("aria-pressed", "false")
        tab_to("#say-hello")
        keyboard.press("Space")
        demo.expect_event("response.done")
        tab_to("#message")
        keyboard.type("mmm")  # letters, while typing
        expect(demo["#mute"]).to_have_attribute("aria-pressed", "false")
        keyboard.press("Shift+Tab")
        keyboard.press("Escape")
        demo.expect_state("ended")

    def test_a_narrow_phone_scrolls_only_down(self, pages):
        demo = pages(viewport={"width": 360, "height": 740})
        demo.open(tenant="acme", preset="expert", path="token", user="narrow-notburga-77", source="tone")
        _expect_no_sideways_scroll(demo)
        demo.foresee(403, "/token")
        demo["#connect"].click()
        demo.expect_refusal("preset_not_allowed")
        _expect_no_sideways_scroll(demo)
        demo["#plan"].select_option("team")
        demo.connect()
        demo["#say-hello"].click()
        demo.expect_event("response.done")
        demo["#session summary"].click()
        assert demo.event("session.created")["session"]["type"] == "realtime"
        _expect_no_sideways_scroll(demo)
        demo.hang_up()

    def test_light_and_dark(self, pages):
        colours = {}
        for scheme in ("light", "dark"):
            demo = pages(color_scheme=scheme)
            demo.open(**RELAYED, user=f"{scheme}-luitgard-31")
            png = base64.b64encode(demo.page.screenshot()).decode()
            seen = demo.page.evaluate(SEE, png)
            assert seen["colours"] > 50, "it is not blank"
            colours[scheme] = seen["corner"]
        assert sum(colours["light"]) > 3 * 200
        assert sum(colours["dark"]) < 3 * 60

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_accessible_in_every_state(self, pages, scheme):
        demo = pages(color_scheme=scheme)
        demo.open(tenant="acme", preset="expert", path="token", user=f"{scheme}-adelheid-12", source="tone")
        assert demo.page.evaluate(INACCESSIBLE) == []
        demo.foresee(403, "/token")
        demo["#connect"].click()
        demo.expect_refusal("preset_not_allowed")
        assert demo.page.evaluate(INACCESSIBLE) == []
        demo["#plan"].select_option("pro")
        demo.connect()
        demo["#say-hello"].click()
        demo.expect_event("response.done")
        demo["#session summary"].click()
        assert demo.event("response.done")["type"] == "response.done"
        assert demo.page.evaluate(INACCESSIBLE) == []
        demo.hang_up()

    def test_meters_are_announced(self, demo):
        demo.open(**RELAYED, user="measured-mathilde-4")
        for name, selector in (("You", "#meter-you"), ("Assistant", "#meter-assistant")):
            meter = demo[selector]
            expect(meter).to_have_role("meter")
            expect(meter).to_have_accessible_name(name)
            values = [meter.get_attribute(f"aria-value{which}") for which in ("min", "now", "max")]
            assert values == ["0", "0", "100"]
            expect(meter).to_have_attribute("aria-valuetext", "silent")
        expect(demo["#state"]).to_have_role("status")
        expect(demo["#transcript"]).to_have_role("log")

    def test_the_requests_shown_hold_no_credential(self, demo):
        demo.open(tenant="acme", preset="support", path="token", user="copying-cunigunde-8")
        demo.connect()
        demo.hang_up()
        secrets = [demo.answers("POST", "/demo/issue")[0].json()["token"]]
        secrets.append(demo.answers("POST", "/token")[0].json()["value"])
        tabs = demo["#requests button"]
        expect(tabs.filter(has_text="DELETE")).to_have_count(1)
        for tab in tabs.all():
            tab.click()
            shown = demo["#curl"].inner_text()
            assert shown.splitlines()[-1]
            assert not [secret for secret in secrets if secret in shown]
        assert not [secret for secret in secrets if secret in demo.page.content()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_operation_stands_on_the_docs_page(pages, server, scheme):
    docs = pages(color_scheme=scheme)
    docs.page.goto(f"{server.url}/docs")
    expect(docs["#operations article"]).not_to_have_count(0)
    shown = {
        "".join((article.locator("h3").text_content() or "").split()): article.text_content() or ""
        for article in docs["#operations article"].all()
    }
    contract = server.client.get("/openapi.json").json()
    operations = {
        f"{method.upper()}{path}": operation["summary"]
        for path, item in contract["paths"].items()
        for method, operation in item.items()
        if method in ("get", "put", "post", "delete", "options", "head", "patch", "trace")
    }
    assert sorted(shown) == sorted(operations)
    assert [name for name, summary in operations.items() if summary not in shown[name]] == []
    assert docs.page.evaluate(INACCESSIBLE) == []
    docs.page.set_viewport_size({"width": 360, "height": 740})
    assert docs.page.evaluate("document.scrollingElement.scrollWidth") == 360


def test_the_screenshot_of_the_readme(pages):
    demo = pages(viewport={"width": 1280, "height": 860}, device_scale_factor=1, color_scheme="light")
    demo.open(tenant="acme", preset="support", path="token", user="alice")
    demo.connect()
    demo["#message"].fill("Is my parcel on its way?")
    demo["#send"].click()
    demo.expect_event("response.done")
    demo.expect_steps()
    demo.expect_sound("you")
    demo.expect_sound("assistant")
    demo.page.evaluate("scrollTo(0, 0)")
    picture = demo.page.screenshot()
    demo.hang_up()
    if WRITE_SCREENSHOT:
        SCREENSHOT.parent.mkdir(parents=True, exist_ok=True)
        SCREENSHOT.write_bytes(picture)
    assert SCREENSHOT.read_bytes().startswith(b"\x89PNG")


class TestPasted:
    """The three lines that `dev` prints."""

    def test_token(self, server):
        answer = _paste(server, 0)
        minted = json.loads(answer)
        LEAKS.handed_out("the pasted line", minted["value"])
        assert minted["value"].startswith("ek_swb_")
        assert minted["calls_url"] == f"{server.url}/sdp"
        assert minted["session"]["model"] == "gpt-realtime-2.1"

    def test_offer(self, server):
        head, _, body = _paste(server, 1).partition("\n\n")
        status, *lines = head.splitlines()
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        assert status.split()[1] == "201"
        assert headers["content-type"].startswith("application/sdp")
        assert body.startswith("v=0")
        assert server.record(action="call.open", call_id=headers["location"].removeprefix("/sdp/"))

    def test_metrics(self, server):
        server.token("acme", "counted-cordula-3")
        lines = _paste(server, 2).splitlines()
        assert lines
        assert all(line.startswith("switchboard_decisions_total{") for line in lines)


def _paste(server, index: int) -> str:
    lines = server.curl_lines
    assert len(lines) == 3
    ran = subprocess.run(
        ["bash", "-c", lines[index]], env=server.environment, capture_output=True, text=True, timeout=20, check=True
    )
    assert ran.stderr == ""
    LEAKS.saw("the pasted line", ran.stdout)
    return ran.stdout


def _expect_no_sideways_scroll(demo) -> None:
    assert demo.page.evaluate(TOO_WIDE) == []


# What makes the page wider than its window; boxes that scroll by themselves are none of it.
TOO_WIDE = """() => {
  const { scrollWidth } = document.scrollingElement;
  const beyond = (element) => element.getBoundingClientRect().right > innerWidth + 1;
  const scrolling = ".sr, .skip, pre, .requests, #events";
  const found = [...document.querySelectorAll("body *")].filter((one) => beyond(one) && !one.closest(scrolling));
  return [...(scrollWidth > innerWidth ? [scrollWidth] : []), ...found.map((one) => one.id || one.outerHTML)];
}"""

# The picture as the browser sees it: how many colours it has, and that of a corner.
SEE = """async (png) => {
  const image = new Image();
  image.src = `data:image/png;base64,${png}`;
  await image.decode();
  const canvas = new OffscreenCanvas(image.width, image.height).getContext("2d");
  canvas.drawImage(image, 0, 0);
  const { data } = canvas.getImageData(0, 0, image.width, image.height);
  const colours = new Set();
  for (let i = 0; i < data.length; i += 4) colours.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
  const corner = data.length - 4;
  return { colours: colours.size, corner: [...data.slice(corner, corner + 3)] };
}"""
