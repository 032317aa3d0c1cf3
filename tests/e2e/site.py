"""Somebody's app: pages on an origin of their own, with a client of somebody else's built into each."""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
PACKAGES = Path(__file__).with_name("clients") / "node_modules"
ESBUILD = PACKAGES / ".bin" / "esbuild"

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Somebody's app</title>
<link rel="icon" href="data:,">
<audio id="speaker" autoplay></audio>
<script src="{script}"></script>
</html>
"""


class Site:
    """What the site serves; a page is built when it is asked for first."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.files: dict[str, tuple[str, bytes]] = {}

    def page(self, example: str) -> str:
        """The address of a page with this example in it, its exports in the global `example`.

        Args:
            example: a module under docs/examples, such as `whip/publish.js`.
        """
        page, script = f"/{example}.html", f"/{example}"
        if page not in self.files:
            self.files[script] = "text/javascript; charset=utf-8", built(EXAMPLES / example)
            self.files[page] = "text/html; charset=utf-8", PAGE.format(script=script).encode()
        return self.url + page


FOR_BROWSERS = ("--format=iife", "--global-name=example")
FOR_NODE = ("--format=esm", "--platform=node")


def built(module: Path, form: tuple[str, str] = FOR_BROWSERS) -> bytes:
    """The module as one script, with its packages in it, as an app's own build makes it."""
    assert ESBUILD.exists(), "the clients are not installed: run scripts/setup test"
    made = subprocess.run(
        [str(ESBUILD), str(module), "--bundle", *form, "--log-level=warning"],
        env={**os.environ, "NODE_PATH": str(PACKAGES)},  # the examples lie elsewhere
        capture_output=True,
        check=False,
    )
    assert (made.returncode, made.stderr) == (0, b""), made.stderr.decode()
    return made.stdout


@contextmanager
def serving_site() -> Iterator[Site]:
    """A site on a port of its own, which makes it another origin than the service."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, content = site.files.get(self.path, ("text/plain", b""))
            self.send_response(200 if content else 404)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing: the test's output is the test's."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site = Site(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()
