"""The real process, a real Chromium, and a page of it per test.

A test that puts a client before the service tells the table of `make clients` how long it took to connect:

    def test_it_connects(visit, server, client):
        with client("openai for Python", "relay"):  # as in the table of docs/clients.md: its client, one of its paths
            ...  # from asking for a token, or offering, to connected
        ...  # what else has to be true: a row passes if its tests do

A client that stands in that table and is tested by nobody fails `make test`.
"""

import shutil
import time
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.e2e.dev_server import dev_server
from tests.e2e.served import policy, served
from tests.e2e.site import serving_site
from tests.e2e.watched import Demo, Watched
from tests.support.clients import KNOWN

ARGUMENTS = [
    "--use-fake-device-for-media-stream",  # a microphone that beeps once a second
    "--use-fake-ui-for-media-stream",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def client(request):
    """Tells the table of clients of this test; see above."""

    @contextmanager
    def connecting(name, path):
        assert path in KNOWN[name].paths
        told = {"client": name, "path": path, "ms": None}
        request.node.user_properties.append(("client", told))
        began = time.perf_counter()
        yield
        told["ms"] = round((time.perf_counter() - began) * 1000)

    return connecting


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """`switchboard dev`, for the whole run."""
    with dev_server(tmp_path_factory.mktemp("state")) as running:
        yield running
        running.metrics()  # for the scan


@pytest.fixture(scope="module")
def browser():
    """Chromium.

    Not for the whole session: the event loop of Playwright's synchronous API counts as running as long as it lives,
    and no asynchronous test could run after these.
    """
    with sync_playwright() as playwright:
        found = shutil.which("chromium") or shutil.which("google-chrome")
        launched = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture
def contexts(browser: Browser):
    """Makes browser contexts that may use the microphone, and closes them."""
    made = []

    def make(**options):
        context = browser.new_context(**{"permissions": ["microphone"], **options})
        context.set_default_timeout(10_000)
        made.append(context)
        return context

    yield make
    for context in made:
        context.close()


@pytest.fixture(scope="session")
def reports_are_taken(server):
    """Whether the service takes the page's reports; the contract says."""
    return "/report" in server.client.get("/openapi.json").json()["paths"]


@pytest.fixture
def pages(server, contexts, reports_are_taken):
    """Makes watched pages, each in a context of its own; all have to be clean at the end."""
    made: list[Demo] = []

    def make(origin=server.url, **options):
        demo = Demo(contexts(**options), origin)
        if not reports_are_taken:
            demo.foresee(404, r"(/sdp/[\w-]+)?/report")
        made.append(demo)
        return demo

    yield make
    for demo in made:
        demo.hand_over()
    for demo in made:
        demo.assert_clean()


@pytest.fixture(scope="session")
def site():
    """Somebody's app, on another origin than the service."""
    with serving_site() as running:
        yield running


@pytest.fixture(scope="session")
def server_of_site(site):
    """`switchboard serve` for the clients of the site, and for those without a browser; for the whole run."""
    with served(policy(site.url)) as running:
        yield running
        running.metrics()  # for the scan


@pytest.fixture
def visit(site, server_of_site, contexts):
    """Opens watched pages of the site, each with an example in it; all have to be clean at the end."""
    made: list[Watched] = []

    def open_page(example):
        page = Watched(contexts(), server_of_site.url)
        made.append(page)
        page.page.goto(site.page(example))
        return page

    yield open_page
    for page in made:
        page.hand_over()
    for page in made:
        page.assert_clean()


@pytest.fixture
def demo(pages):
    """The demo page of this test."""
    return pages()
