"""CORS, origins and grants as a real browser has them: pages that a tenant lists, and one that nobody does."""

from contextlib import ExitStack

import pytest
import ryaml
from playwright.sync_api import Page

from tests.e2e.dev_server import dev_server
from tests.e2e.site import serving_site
from tests.support import world as worlds
from tests.support.leaks import LEAKS

pytestmark = pytest.mark.browser

BLANK = (
    b'<!doctype html><html lang="en"><meta charset="utf-8"><title>An app</title><link rel="icon" href="data:,"></html>'
)
# What a script of the page learns: the answer, or that there was none to read.
ASK = """async ([url, how]) => {
  try {
    const answer = await fetch(url, how);
    const text = await answer.text();
    return { type: answer.type, status: answer.status, headers: Object.fromEntries(answer.headers), text };
  } catch (error) {
    return { error: error.name };
  }
}"""
UNREADABLE = {"error": "TypeError"}


class Apps:
    """Three apps, each on an origin of its own, and the service; acme lists the first two, widgets the second."""

    def __init__(self, server, urls: dict[str, str], contexts) -> None:
        self.server = server
        self.urls = urls
        self._contexts = contexts

    def page(self, name: str) -> Page:
        page: Page = self._contexts().new_page()
        page.goto(f"{self.urls[name]}/blank.html")
        return page

    def ask(self, page: Page, path: str, token: str = "", **how):
        """What a script of the page learns of a request."""
        bearer = {"authorization": f"Bearer {token}"} if token else {}
        how["headers"] = {**bearer, **how.pop("headers", {})}
        return page.evaluate(ASK, [f"{self.server.url}{path}", how])

    def offer(self, page: Page, token: str):
        headers = {"content-type": "application/sdp"}
        return self.ask(page, "/sdp", token, method="POST", headers=headers, body=worlds.OFFER.decode())


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with ExitStack() as stack:
        sites = {name: stack.enter_context(serving_site()) for name in ("first", "second", "nobodys")}
        for site in sites.values():
            site.files["/blank.html"] = ("text/html; charset=utf-8", BLANK)
        urls = {name: site.url for name, site in sites.items()}
        policy = worlds.example()
        policy["tenants"]["acme"]["origins"] = [urls["first"], urls["second"]]
        policy["tenants"]["widgets"]["origins"] = [urls["second"]]
        folder = tmp_path_factory.mktemp("origins")
        config = folder / "switchboard.yaml"
        config.write_text(ryaml.dumps(policy), encoding="utf-8")
        yield stack.enter_context(dev_server(folder, config=config)), urls


@pytest.fixture
def apps(running, contexts):
    server, urls = running
    return Apps(server, urls, contexts)


def user(apps, tenant="acme", subject="user-of-two-apps-62e1"):
    return apps.server.token(tenant, LEAKS.plant("subject", subject))


def test_a_listed_page_reads_answers_and_what_they_say(apps):
    page, token = apps.page("first"), user(apps)
    minted = apps.ask(page, "/token", token)
    assert minted["status"] == 200
    assert {"x-request-id", "ratelimit", "ratelimit-policy"} <= minted["headers"].keys()
    opened = apps.offer(page, token)
    assert opened["status"] == 201
    assert opened["headers"]["location"].startswith("/sdp/")
    ended = apps.ask(page, opened["headers"]["location"], token, method="DELETE")
    assert (ended["status"], '"ended"' in ended["text"]) == (200, True)
    refused = apps.ask(page, "/token?preset=nope", token)
    assert (refused["status"], '"unknown_preset"' in refused["text"]) == (404, True)


def test_a_page_that_nobody_lists_reads_nothing_and_gets_nothing(apps):
    """Its requests with a token need a preflight, which is refused: they never leave the browser."""
    page, token = apps.page("nobodys"), user(apps, subject="user-lured-to-another-page-0d")
    before = len(apps.server.records)
    for path, how in (
        ("/token", {}),
        ("/token", {"method": "POST", "headers": {"content-type": "application/json"}, "body": "{}"}),
        ("/calls", {}),
        ("/sdp/rtc_u1_x", {"method": "DELETE"}),
    ):
        assert apps.ask(page, path, token, **how) == UNREADABLE
    assert apps.offer(page, token) == UNREADABLE
    assert len(apps.server.records) == before


def test_what_needs_no_preflight_does_nothing_either(apps):
    """A form's request goes out to any origin; without a token it is nobody's, and cookies there are none."""
    page = apps.page("nobodys")
    simple = {"method": "POST", "headers": {"content-type": "text/plain"}, "body": worlds.OFFER.decode()}
    assert apps.ask(page, "/sdp", **simple) == UNREADABLE
    blind = apps.ask(page, "/sdp", mode="no-cors", **simple)
    assert (blind["type"], blind["text"], blind["headers"]) == ("opaque", "", {})
    record = apps.server.record(action="call.open", origin=apps.urls["nobodys"])
    assert (record["outcome"], record["reason"]) == ("denied", "missing_token")


def test_no_page_sends_credentials_of_the_browser(apps):
    """No answer allows them, so a request that carries cookies cannot be read by a listed page either."""
    page, token = apps.page("first"), user(apps)
    assert apps.ask(page, "/token", token, credentials="include") == UNREADABLE


def test_a_grant_opens_no_call_on_another_page_of_the_same_tenant(apps):
    home, other = apps.page("first"), apps.page("second")
    token = user(apps, subject="user-whose-grant-is-carried-off-5")
    grant = home.evaluate("(text) => JSON.parse(text).value", apps.ask(home, "/token", token)["text"])
    LEAKS.plant("client secret or grant", grant[:40])
    # The preflight passes, since the page is listed; the grant was minted for another one.
    assert apps.offer(other, grant) == UNREADABLE
    apps.server.record(action="call.open", outcome="denied", reason="origin_not_allowed", origin=apps.urls["second"])
    assert apps.offer(home, grant)["status"] == 201


def test_one_tenants_page_is_no_page_of_another(apps):
    """The union of all tenants' origins passes preflights; the request itself is held against its own tenant."""
    page = apps.page("first")
    token = user(apps, "widgets", "user-walter-on-a-foreign-page")
    assert apps.ask(page, "/token", token) == UNREADABLE
    apps.server.record(tenant="widgets", outcome="denied", reason="origin_not_allowed", origin=apps.urls["first"])
    assert apps.ask(apps.page("second"), "/token", token)["status"] == 200


def test_a_frame_without_an_origin_is_refused(apps):
    """A sandboxed frame, a data: address and a file say `Origin: null`, which anybody can."""
    page, token = apps.page("first"), user(apps)
    asking = (
        f"fetch('{apps.server.url}/token', {{ headers: {{ authorization: 'Bearer {token}' }} }})"
        ".then((answer) => answer.status, (error) => error.name).then((said) => parent.postMessage(said, '*'))"
    )
    said = page.evaluate(
        """(asking) => new Promise((resolve) => {
          addEventListener("message", (event) => resolve([event.origin, event.data]));
          const frame = document.createElement("iframe");
          frame.sandbox = "allow-scripts";
          frame.srcdoc = `<script>${asking}</` + "script>";
          document.body.append(frame);
        })""",
        asking,
    )
    assert said == ["null", "TypeError"]
