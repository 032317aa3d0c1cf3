"""Spans, made at the seams where business code meets its collaborators; it knows nothing of them.

What they say is who was asked and how it ended, by name and code: no token, key, user, address, path, offer or
instruction, and no text of an exception.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar, cast

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from switchboard import __version__, logcontext
from switchboard.audit import Event
from switchboard.errors import Refusal
from switchboard.middleware import QUIET, method_of, route_of
from switchboard.providers.transport import Part, Reply, Transport, TransportError

SHUTDOWN_SECONDS = 2.0  # that the end of the process waits for a collector

# As OpenTelemetry's conventions name them, and ours.
METHOD, ROUTE, STATUS, ERROR = "http.request.method", "http.route", "http.response.status_code", "error.type"
TOLD = ("action", "outcome", "reason", "tenant", "preset", "provider")

T = TypeVar("T")


def provider_for(exporter: str, *, has_name: bool) -> TracerProvider:
    """OpenTelemetry's own, which reads everything else from its `OTEL_…` variables.

    Args:
        exporter: `otlp` or `console`.
        has_name: whether they name the service.
    """
    resource = Resource.create({} if has_name else {"service.name": "switchboard"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter() if exporter == "otlp" else ConsoleSpanExporter()))
    return provider


async def shut_down(provider: TracerProvider) -> None:
    """Have the last spans sent, unless that takes too long."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def shut() -> None:
        provider.shutdown()
        with suppress(RuntimeError):  # nobody waits any more
            loop.call_soon_threadsafe(done.set)

    # A daemon, unlike the threads of an executor: a collector that hangs does not keep the process.
    threading.Thread(target=shut, daemon=True).start()
    with suppress(TimeoutError):
        await asyncio.wait_for(done.wait(), SHUTDOWN_SECONDS)


class Spans:
    """Makes them.

    Args:
        provider: OpenTelemetry's.
        accept_parent: whether a caller's `traceparent` is believed: it then decides whether a request is traced.
        send_on: whether providers get one.
    """

    def __init__(self, provider: trace.TracerProvider, *, accept_parent: bool, send_on: bool) -> None:
        self._tracer = provider.get_tracer("switchboard", __version__)
        self._accept_parent = accept_parent
        self._send_on = send_on

    def app(self, app: ASGIApp) -> ASGIApp:
        """See `Tracing.app`. Health is left out."""

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or scope["path"] in QUIET:
                await app(scope, receive, send)
                return
            method = method_of(scope)

            async def send_seen(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute(STATUS, message["status"])
                    if message["status"] >= 500:
                        span.set_status(StatusCode.ERROR)
                await send(message)

            with self._span(method, SpanKind.SERVER, self._parent(scope)) as span:
                logcontext.add(trace_id=trace.format_trace_id(span.get_span_context().trace_id))
                span.set_attributes({METHOD: method, "switchboard.request_id": scope["request_id"]})
                try:
                    await app(scope, receive, send_seen)
                finally:
                    route = route_of(scope)
                    span.update_name(f"{method} {route}")
                    span.set_attribute(ROUTE, route)

        return traced

    def observe(self, event: Event) -> None:
        """See `Tracing.observe`."""
        told = {f"switchboard.{name}": getattr(event, name) for name in TOLD}
        trace.get_current_span().set_attributes({name: value for name, value in told.items() if value is not None})

    def around(self, inner: T, **named: str) -> T:
        """See `Tracing.around`."""
        return cast(
            "T", _Watched(inner, {method: self._watched(inner, method, name) for method, name in named.items()})
        )

    def transport(self, inner: Transport, provider: str) -> Transport:
        """See `Tracing.transport`."""
        return _TracedTransport(inner, provider, self._span, send_on=self._send_on)

    def _parent(self, scope: Scope) -> Context:
        given = Headers(scope=scope).get("traceparent") if self._accept_parent else None
        # `tracestate` is whatever the caller likes, and would be passed on unread.
        return TraceContextTextMapPropagator().extract({"traceparent": given} if given else {}, Context())

    def _watched(self, inner: object, method: str, name: str) -> Callable[..., Awaitable[Any]]:
        call = getattr(inner, method)

        async def watched(*args: Any, **options: Any) -> Any:
            with self._span(name):
                return await call(*args, **options)

        return watched

    @contextmanager
    def _span(self, name: str, kind: SpanKind = SpanKind.INTERNAL, context: Context | None = None) -> Iterator[Span]:
        """A span that says how it ended, and does not quote an exception."""
        with self._tracer.start_as_current_span(
            name, context, kind, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except Refusal as refusal:
                span.set_attribute(ERROR, refusal.code)
                if refusal.status >= 500:
                    span.set_status(StatusCode.ERROR)
                raise
            except BaseException as error:
                span.set_attribute(ERROR, error.label if isinstance(error, TransportError) else type(error).__name__)
                span.set_status(StatusCode.ERROR)
                raise


class _Watched:
    """Has some methods of its own, and all else of what it stands for."""

    def __init__(self, inner: object, methods: Mapping[str, Callable[..., Any]]) -> None:
        self._inner = inner
        self._methods = methods

    def __getattr__(self, name: str) -> Any:
        return self._methods.get(name) or getattr(self._inner, name)


class _TracedTransport:
    def __init__(self, inner: Transport, provider: str, span: Callable[[str, SpanKind], Any], *, send_on: bool) -> None:
        self._inner = inner
        self._provider = provider
        self._span = span
        self._send_on = send_on

    async def post(
        self,
        url: str,
        *,
        operation: str,
        headers: Mapping[str, str],
        body: bytes | Sequence[Part],
        timeout: float,
        max_bytes: int,
        head_first: bool = False,
    ) -> Reply:
        """See `Transport.post`."""
        with self._span("provider", SpanKind.CLIENT) as span:
            span.set_attributes({"switchboard.provider": self._provider, "switchboard.operation": operation})
            reply = await self._inner.post(
                url,
                operation=operation,
                headers={**headers, **({"traceparent": _traceparent(span)} if self._send_on else {})},
                body=body,
                timeout=timeout,
                max_bytes=max_bytes,
                head_first=head_first,
            )
            span.set_attribute(STATUS, reply.status)
            return reply


def _traceparent(span: Span) -> str:
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, trace.set_span_in_context(span, Context()))
    return carrier["traceparent"]
