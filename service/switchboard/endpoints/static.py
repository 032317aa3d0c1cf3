"""Pages and their assets, read once at start: a bounded set of names, no path ever comes from a request."""

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
        _file(path, page_file, headers),
        *(_file(f"{path}/{name}", name, headers) for name in assets),
    ]


def _file(path: str, name: str, headers: dict[str, str]) -> Route:
    content = files("switchboard.web").joinpath(name).read_bytes()
    answer_headers = {**headers, "content-type": MEDIA_TYPES[name.rpartition(".")[2]]}

    async def answer(_: Request) -> Response:
        return Response(content, headers=answer_headers)

    return Route(path, answer)
