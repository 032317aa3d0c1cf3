"""WebSockets straight to the provider, each by a client secret from Switchboard, which speaks none itself."""

import asyncio
import json
import os
import ssl
import subprocess
from contextlib import asynccontextmanager, closing
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest

from tests.e2e.sdks import loaded
from tests.e2e.site import PACKAGES, built
from tests.support.leaks import LEAKS

EXAMPLES = {"python": "websocket/ask.py", "node": "websocket/ask.js", "page": "websocket/page.js"}
AS_COMMONJS = ("--format=cjs", "--platform=node")  # as the package `ws` is
SAID = "Hello from the emulator. All is well."
OPEN = """async ([url, token, preset]) => {
  window.events = [];
  window.socket = await example.open(url, token, preset, (event) => events.push(event));
}"""
CONNECTED = "events.some((event) => event.type === 'session.created')"
ASK = """() => {
  const session = { type: "realtime", output_modalities: ["text"] };
  for (const event of [{ type: "session.update", session }, { type: "response.create" }]) {
    socket.send(JSON.stringify(event));
  }
}"""
CLOSED = """([url, protocols]) => new Promise((resolve) => {
  const told = [];
  const socket = new WebSocket(url, protocols);
  socket.onmessage = ({ data }) => told.push(JSON.parse(data).error.code);
  socket.onclose = ({ code }) => resolve([...told, code]);
})"""


@pytest.fixture
def server(server_of_site):
    return server_of_site


def user(server, tenant, subject):
    LEAKS.plant("subject", subject)
    return server.token(tenant, subject)


@asynccontextmanager
async def behind_tls(url, folder):
    """The provider under `https`, as OpenAI's package for Node opens `wss:` alone; its base URL, its certificate."""
    certificate, key = folder / "provider.crt", folder / "provider.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-days", "2"]
    command += [*names, "-keyout", str(key), "-out", str(certificate)]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    behind = urlsplit(url)

    async def pump(reader, writer):
        with closing(writer):
            while chunk := await reader.read(65536):
                writer.write(chunk)

    carrying: set[Any] = set()

    async def carry(reader, writer):
        carrying.add(asyncio.current_task())
        upstream, sink = await asyncio.open_connection(behind.hostname, behind.port)
        try:
            await asyncio.gather(pump(reader, sink), pump(upstream, writer))
        finally:  # now: nobody waits for them to be closed in due form
            sink.transport.abort()
            writer.transport.abort()

    server = await asyncio.start_server(carry, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}/v1", certificate
    for each in carrying:
        each.cancel()
    await asyncio.gather(*carrying, return_exceptions=True)


@pytest.mark.anyio
async def test_openai_for_python_connects(server, client):
    token = user(server, "widgets", "socketed-silvester-41")
    ask = loaded(EXAMPLES["python"]).ask
    with client("openai for Python", "WebSocket"):
        said = await asyncio.to_thread(ask, server.url, f"{server.provider_url}/v1", token, "Are you there?")
    assert said == SAID
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="sk-dev-nobody") as nobody,
        pytest.raises(openai.AuthenticationError),
    ):
        await asyncio.to_thread(nobody.realtime.client_secrets.create)


@pytest.mark.anyio
async def test_openai_for_node_connects(server, client, tmp_path):
    token = user(server, "widgets", "socketed-sibylle-42")
    script = tmp_path / "websocket.cjs"
    script.write_bytes(built(PACKAGES.parent / "websocket.js", AS_COMMONJS))
    async with behind_tls(server.provider_url, tmp_path) as (provider, authority):
        environment = {**os.environ, "NODE_EXTRA_CA_CERTS": str(authority)}
        command = ["node", str(script), server.url, provider, token, "Are you there?"]
        with client("openai for Node", "WebSocket"):
            ran = await asyncio.to_thread(
                subprocess.run, command, env=environment, capture_output=True, text=True, timeout=20, check=False
            )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout) == {"gave": SAID}


@pytest.mark.browser
def test_a_page_connects_by_subprotocol(visit, server, client):
    page = visit(EXAMPLES["page"]).page
    token = user(server, "widgets", "socketed-swanhild-43")
    with client("WebSocket of a page", "WebSocket"):
        page.evaluate(OPEN, [server.url, token, "concierge"])
        page.wait_for_function(CONNECTED)
    session = page.evaluate("events[0].session")
    assert (session["model"], session["instructions"]) == (
        "gpt-realtime-2.1-mini", "You are the concierge of Widgets. Answer in one sentence.",
    )  # fmt: skip
    page.evaluate(ASK)
    page.wait_for_function("events.some((event) => event.type === 'response.done')")
    done = page.evaluate("events.find((event) => event.type === 'response.done').response")
    assert done["output"][0]["content"][0]["text"] == SAID
    assert done["usage"]["total_tokens"] > 0
    assert page.evaluate("socket.protocol") == "realtime"
    page.evaluate("socket.close()")


@pytest.mark.browser
def test_a_secret_of_nobody_and_switchboard_itself_let_no_socket_in(visit, server):
    watched = visit(EXAMPLES["page"])
    watched.foresee_words("WebSocket connection to 'ws://")
    protocols = ["realtime", "openai-insecure-api-key.ek_nobodys"]
    refused = watched.page.evaluate(
        CLOSED, [f"{server.provider_url.replace('http', 'ws')}/v1/realtime?model=x", protocols]
    )
    assert refused == ["invalid_api_key", 3000]
    at_switchboard = f"{server.url.replace('http', 'ws')}/v1/realtime?model=support"
    assert watched.page.evaluate(CLOSED, [at_switchboard, protocols]) == [1006]  # there was no upgrade
