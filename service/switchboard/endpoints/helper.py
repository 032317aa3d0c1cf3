"""GET /switchboard.js: the browser helper, for pages of the tenants' origins."""

from types import MappingProxyType

from starlette.routing import Route

from switchboard.endpoints import static

HEADERS = MappingProxyType(
    {
        "cache-control": "public, max-age=600",  # seconds: so long may a page run the one before an update
        "x-content-type-options": "nosniff",
    }
)


def routes() -> list[Route]:
    """The routes of this module."""
    return [static.file("/switchboard.js", "switchboard.js", HEADERS)]
