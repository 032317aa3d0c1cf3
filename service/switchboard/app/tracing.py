"""Whether requests are traced: if the extra `otel` is installed, and OpenTelemetry's own variables say where to."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Protocol, TypeVar

import structlog
from starlette.types import ASGIApp

from switchboard.audit import Event
from switchboard.providers.transport import Transport
from switchboard.settings import Settings

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
SPOKEN = "http/protobuf"
EXPORTERS = ("otlp", "console")

T = TypeVar("T")

_log = structlog.get_logger("switchboard")


class Tracing(Protocol):
    """Puts spans around things. What it gives back does the same as what it was given."""

    def app(self, app: ASGIApp) -> ASGIApp:
        """An app, with a span around each request."""

    def around(self, inner: T, **named: str) -> T:
        """A collaborator, with a span of the given name around each of the given methods."""

    def transport(self, inner: Transport, provider: str) -> Transport:
        """A transport, with a span around each request to a provider."""

    def observe(self, event: Event) -> None:
        """Put on the span of a request what has been decided."""


class NoTracing:
    """Gives back the thing itself, so that what is not traced costs nothing."""

    def app(self, app: ASGIApp) -> ASGIApp:
        """See `Tracing.app`."""
        return app

    def around(self, inner: T, **_: str) -> T:
        """See `Tracing.around`."""
        return inner

    def transport(self, inner: Transport, _: str) -> Transport:
        """See `Tracing.transport`."""
        return inner

    def observe(self, event: Event) -> None:
        """See `Tracing.observe`."""


def tracing_of(settings: Settings, environ: Mapping[str, str], stack: AsyncExitStack) -> Tracing:
    """What the environment asks for, until the stack closes."""
    exporter = environ.get("OTEL_TRACES_EXPORTER") or ("otlp" if any(map(environ.get, ENDPOINTS)) else "none")
    if exporter == "none" or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return NoTracing()
    protocol = next(filter(None, map(environ.get, PROTOCOLS)), SPOKEN)
    if exporter not in EXPORTERS or protocol != SPOKEN:
        _log.warning(
            "there will be no traces: they go by OTLP over HTTP, or to the console",
            exporter=exporter,
            protocol=protocol,
        )
        return NoTracing()
    try:
        from switchboard.app import spans  # noqa: PLC0415 - an extra, which nobody else has to have
    except ImportError as error:
        _log.warning("there will be no traces: the extra `otel` is not installed", missing=error.name)
        return NoTracing()
    provider = spans.provider_for(exporter, has_name="OTEL_SERVICE_NAME" in environ)
    stack.push_async_callback(spans.shut_down, provider)
    return spans.Spans(provider, accept_parent=settings.trace_parent == "accept", send_on=settings.trace_providers)
