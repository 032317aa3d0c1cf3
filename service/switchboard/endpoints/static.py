"""Pages and their assets, read once at start: a bounded set of names, no path ever comes from a request."""

from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cache-control": "no-cache",
}


def page(path: str, page_file: str, assets: tuple[str, ...], *, policy: str) -> list[Route]:
    """The routes of a page at `path` and of its assets below it.

    Args:
        path: of the page, such as `/docs`.
        page_file: its HTML in `switchboard/web`.
        assets: names in `switchboard/web`, served at `{path}/{name}`.
        policy: the page's Content-Security-Policy.
    """
    headers = {**SECURITY_HEADERS, "content-security-policy": policy}
    return [
        file(path, page_file, headers),
        *(file(f"{path}/{name}", name, headers) for name in assets),
    ]


def file(path: str, name: str, headers: Mapping[str, str]) -> Route:
    """The route of one file of `switchboard/web`; who has it already is told so by 304 (RFC 9110, section 13.1.2)."""
    content = files("switchboard.web").joinpath(name).read_bytes()
    etag = f'"{sha256(content).hexdigest()[:32]}"'
    told = {**headers, "etag": etag}
    typed = {**told, "content-type": MEDIA_TYPES[name.rpartition(".")[2]]}

    async def answer(request: Request) -> Response:
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=told)
        return Response(content, headers=typed)

    return Route(path, answer)
