"""Composition: options in, Starlette out."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from switchboard.emulator.control import Control
from switchboard.emulator.front import Front
from switchboard.emulator.options import Options
from switchboard.emulator.refusal import Refusal, not_found
from switchboard.emulator.routes import Media, NoMedia, Provider
from switchboard.emulator.sockets import Sockets
from switchboard.emulator.state import Emulator


class MediaUnavailableError(RuntimeError):
    """Media was asked for, and aiortc is not installed."""


class EmulatorApp(Starlette):
    """Starlette with the emulator's front as its outermost layer."""

    def build_middleware_stack(self) -> ASGIApp:
        return Front(super().build_middleware_stack(), self.state.emulator)


def create_app(options: Options | None = None, *, clock: Callable[[], float] = time.time) -> Starlette:
    """One emulator; its memory is at `app.state.emulator`, and its end closes every peer.

    Raises:
        MediaUnavailableError: `options.media` is on and aiortc is missing.
    """
    emulator = Emulator(options or Options(), clock)
    media = _media(emulator)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await media.aclose()

    async def refused(_: Request, error: Exception) -> Response:
        return (
            error.response(emulator.flavour.error_extras) if isinstance(error, Refusal) else Response(status_code=500)
        )

    app = EmulatorApp(
        routes=[
            *Provider(emulator, media).routes(),
            *Sockets(emulator).routes(),
            *Control(emulator, media).routes(),
        ],
        exception_handlers={Refusal: refused, 404: _lost, 405: _lost},
        lifespan=lifespan,
    )
    app.state.emulator = emulator
    return app


def _media(emulator: Emulator) -> Media:
    if not emulator.options.media:
        return NoMedia()
    try:
        from switchboard.emulator.peers import Peers  # noqa: PLC0415 - aiortc is optional
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("aiortc", "av", "aioice"):
            raise
        message = "WebRTC needs aiortc: install realtime-switchboard[emulator], or run without media (--no-media)"
        raise MediaUnavailableError(message) from error
    return Peers(emulator)


async def _lost(request: Request, error: Exception) -> Response:
    """No such path, or not with this method; a retired beta path is one of them."""
    status = error.status_code if isinstance(error, HTTPException) else 404
    refusal = not_found(request.method, request.url.path)
    refusal.status = status
    return refusal.response()
