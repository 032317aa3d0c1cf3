"""A page of the service in a real browser, watched: whatever goes wrong in it unannounced fails the test."""

import json
import re
from typing import Any, Literal, TypeAlias
from urllib.parse import urlencode, urlsplit

import pytest
from playwright.sync_api import BrowserContext, ConsoleMessage, Error, Locator, Request, Response, expect

from tests.support.leaks import LEAKS

REPORT_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) =>
  reportViolation(`${event.effectiveDirective} blocked ${event.blockedURI || "inline"} in ${event.sourceFile}`));
"""

SETTLE_MS = 5000
TELLING = 10  # characters of a name that no text holds by chance

Step: TypeAlias = Literal["login", "token", "microphone", "offer", "answer", "ice", "channel", "session", "audio"]


class Watched:
    """A page, what went wrong in it, and what it was told by the network."""

    def __init__(self, context: BrowserContext, origin: str) -> None:
        self.origin = origin
        self.responses: list[Response] = []
        self.said: list[str] = []
        self._complaints: list[str] = []
        self._foreseen: set[tuple[int, str]] = set()
        self._foreseen_words: set[str] = set()
        self._unread: set[str] = set()
        self._leaving = False
        self._pending: list[Request] = []
        context.expose_binding("reportViolation", lambda _, what: self._complain(f"CSP: {what}"))
        context.add_init_script(REPORT_VIOLATIONS)
        self.page = page = context.new_page()
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self._complain(f"page error: {error}"))
        page.on("crash", lambda _: None if self._leaving else self._complain("crashed"))
        page.on("request", self._asked)
        page.on("requestfinished", self._finished)
        page.on("requestfailed", self._failed)
        page.on("response", self._answered)

    def __getitem__(self, selector: str) -> Locator:
        return self.page.locator(selector)

    def foresee(self, status: int, path: str) -> None:
        """From now on this status is no surprise at a path that fits this pattern."""
        self._foreseen.add((status, path))

    def foresee_words(self, pattern: str) -> None:
        """From now on a line of the console that begins like this is no surprise."""
        self._foreseen_words.add(pattern)

    def foresee_unread(self, *methods: str) -> None:
        """From now on the page may look at the head of an answer alone: Chromium then never ends it, or aborts it."""
        self._unread.update(methods)

    def leave(self) -> None:
        """From now on the page goes away, and a request may be cut short."""
        self._leaving = True

    def crash(self) -> None:
        """The page's process dies, so that nothing in it can say goodbye."""
        self.leave()
        with pytest.raises(Error, match="crash"):
            self.page.goto("chrome://crash")

    def answers(self, method: str, path: str) -> list[Response]:
        """What came back so far, from any origin."""
        return [
            response
            for response in self.responses
            if response.request.method == method and urlsplit(response.url).path == path
        ]

    def hand_over(self) -> None:
        """Gives all that our origin said to the scan for leaks, once every answer has been read to its end."""
        for _ in range(0, SETTLE_MS, 20):
            if all(request.method in self._unread for request in self._pending) or self._leaving:
                break
            self.page.wait_for_timeout(20)
        else:
            self._complain(f"never finished: {[request.url for request in self._pending]}")
        for response in self.responses:
            if response.url.startswith(self.origin) and response.request not in self._pending:
                self._hand_over(response)

    def assert_clean(self) -> None:
        assert not self._complaints, "\n".join(self._complaints)

    def _complain(self, what: str) -> None:
        self._complaints.append(what)

    def _heard(self, message: ConsoleMessage) -> None:
        # A status that is an error is judged in `_answered`, where it can be told which request it was.
        told_elsewhere = "the server responded with a status of" in message.text or (
            self._leaving and "Failed to load resource: net::" in message.text
        )
        self.said.append(message.text)
        foreseen = any(re.match(pattern, message.text) for pattern in self._foreseen_words)
        if message.type in ("error", "warning") and not told_elsewhere and not foreseen:
            self._complain(f"console {message.type}: {message.text} at {message.location}")

    def _asked(self, request: Request) -> None:
        self._pending.append(request)

    def _finished(self, request: Request) -> None:
        self._pending.remove(request)

    def _failed(self, request: Request) -> None:
        self._finished(request)
        unread = request.method in self._unread and request.failure == "net::ERR_ABORTED"
        if not self._leaving and not unread:
            self._complain(f"failed: {request.method} {request.url}: {request.failure}")

    def _answered(self, response: Response) -> None:
        self.responses.append(response)
        path = urlsplit(response.url).path
        if response.status >= 400 and not any(
            response.status == status and re.fullmatch(pattern, path) for status, pattern in self._foreseen
        ):
            self._complain(f"{response.status} for {response.request.method} {response.url}")

    def _hand_over(self, response: Response) -> None:
        try:
            text = response.text()
        except Error:
            # Redirects have no body, and the browser forgets those of a page that was left or did not read them.
            forgotten = self._leaving or response.request.method in self._unread
            assert forgotten or response.status in (204, 301, 302, 307), response.url
            text = ""
        path = urlsplit(response.url).path
        place = f"answer {response.request.method} {path} {response.headers.get('x-request-id')}"
        LEAKS.saw(place, f"{response.status} {response.headers} {text}")
        meant = {"/token": "value", "/v1/realtime/sessions": "value", "/demo/issue": "token"}.get(path)
        if meant and response.status == 200 and text:
            LEAKS.handed_out(place, json.loads(text)[meant])


class Demo(Watched):
    """The demo page."""

    def open(self, **choices: str) -> None:
        """Opens it with the form filled in: tenant, user, plan, preset, path, source."""
        if len(choices["user"]) >= TELLING:
            LEAKS.plant("subject", choices["user"])
        self.page.goto(f"{self.origin}/demo?{urlencode(choices)}")
        expect(self["html[data-ready=true]"]).to_be_attached()

    def expect_state(self, state: str) -> None:
        expect(self["#state"]).to_have_attribute("data-state", state, timeout=15_000)

    def connect(self) -> str:
        """Clicks, waits for the connection; the call's id."""
        self["#connect"].click()
        self.expect_state("connected")
        return self.call_id

    @property
    def call_id(self) -> str:
        return self["#facts div:has(dt:text-is('Call')) dd"].inner_text()

    def expect_steps(self, *skipped: Step) -> None:
        """All steps of the timeline are done, but for these."""
        steps: list[Step] = ["login", "token", "microphone", "offer", "answer", "ice", "channel", "session", "audio"]
        for step in steps:
            status = "skipped" if step in skipped else "done"
            expect(self[f"#timeline [data-step={step}]"]).to_have_attribute("data-status", status)

    def ms(self, step: Step) -> int:
        """Milliseconds from the click to this step, by the page's own clock."""
        return int(self[f"#timeline [data-step={step}]"].get_attribute("data-ms") or "-1")

    def expect_event(self, kind: str, count: int = 1) -> None:
        expect(self[f"#events [data-type='{kind}']"]).to_have_count(count)

    def event(self, kind: str) -> dict[str, Any]:
        """The first event of a kind, from the JSON that its row opens to."""
        row = self[f"#events [data-type='{kind}']"].first
        row.locator("summary").click()
        return dict(json.loads(row.locator("pre").inner_text()))

    def expect_sound(self, whose: Literal["you", "assistant"]) -> None:
        self.page.wait_for_function(
            "id => Number(document.getElementById(id).getAttribute('aria-valuenow')) > 0", arg=f"meter-{whose}"
        )

    def expect_silence(self, whose: Literal["you", "assistant"], milliseconds: int) -> None:
        """Waits until the meter has stood at zero for so long."""
        self.page.wait_for_function(
            """([id, ms]) => {
              const silent = document.getElementById(id).getAttribute("aria-valuenow") === "0";
              if (!silent) delete window.silentSince;
              else window.silentSince ??= performance.now();
              return silent && performance.now() - window.silentSince > ms;
            }""",
            arg=[f"meter-{whose}", milliseconds],
        )

    def expect_refusal(self, code: str) -> None:
        expect(self["#refusal"]).to_be_visible()
        expect(self["#refusal"]).to_have_attribute("data-code", code)

    def hang_up(self) -> None:
        self["#hangup"].click()
        self.expect_state("ended")
