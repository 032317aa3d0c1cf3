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
import ryaml
from playwright.sync_api import Browser, sync_playwright

from tests.e2e.dev_server import dev_server
from tests.e2e.site import serving_site
from tests.e2e.watched import Demo, Watched
from tests.support import world as worlds
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
def server_of_site(site, tmp_path_factory):
    """`switchboard dev` again: the site is among the origins of every tenant, and each has presets of all types; beside
    them is a tenant at Azure that hides its session.
    """
    policy = worlds.example()
    captions = policy["tenants"]["widgets"]["presets"]["captions"]["session"]
    translation = {"type": "translation", "model": "gpt-realtime-translate", "audio": {"output": {"language": "es"}}}
    for name, delivery in (("acme", "relay"), ("widgets", "direct")):
        tenant = policy["tenants"][name]
        tenant["origins"].append(site.url)
        tenant["presets"]["captions"] = {"delivery": delivery, "session": captions}
        tenant["presets"]["interpreter"] = {"delivery": delivery, "session": translation}
    base_url = "https://discreet.openai.azure.com/openai/v1"  # emulated as well
    policy["providers"]["azure"] = {"kind": "azure", "base_url": base_url, "keys": ["env:AZURE_KEY"]}
    session = policy["tenants"]["acme"]["presets"]["support"]["session"]
    presets = {"support": {"delivery": "relay", "hide_instructions": True, "session": session}}
    discreet = {"provider": "azure", "origins": [site.url], "default_preset": "support", "presets": presets}
    policy["tenants"]["discreet"] = discreet
    folder = tmp_path_factory.mktemp("state-of-site")
    config = folder / "switchboard.yaml"
    config.write_text(ryaml.dumps(policy), encoding="utf-8")
    with dev_server(folder, config=config) as running:
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
