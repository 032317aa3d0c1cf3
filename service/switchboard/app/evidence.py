"""The audit as the settings ask for it: where its records go, and where the anchors of their chain."""

import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol, cast

import structlog
from redis.exceptions import RedisError

from switchboard import __version__
from switchboard.app.background import run_until_closed
from switchboard.app.needs import CannotServe, Needed
from switchboard.audit.anchors import Anchor, Anchoring, Anchors, AnchorsAway, FileAnchors
from switchboard.audit.appender import Appender
from switchboard.audit.chain import Chain
from switchboard.audit.sinks import QueuedSink
from switchboard.audit.targets import FileTarget, StreamTarget, Target
from switchboard.clientaddress import network_of
from switchboard.endpoints.ops import Readiness
from switchboard.ledger.connection import RedisUrlError, connect
from switchboard.metrics import Metrics
from switchboard.settings import Settings

ANCHOR_KEY = "swb:audit:anchor:"
ANCHOR_DAYS = 400  # longer than records are usually kept
FILE = "file:"

SHOWN_ADDRESS: Mapping[str, Callable[[str], str | None]] = {"full": str, "prefix": network_of, "off": lambda _: None}

_log = structlog.get_logger("switchboard")


class _Keys(Protocol):
    """The few commands that are used: a single server's client, a Sentinel's and a Cluster's all have them."""

    async def set(self, name: str, value: bytes, *, ex: int) -> Any: ...
    async def get(self, name: str) -> Any: ...
    def scan_iter(self, match: str, count: int) -> AsyncIterator[bytes]: ...
    async def aclose(self) -> None: ...


class RedisAnchors:
    """Anchors in Redis, a key for each chain."""

    def __init__(self, url: str) -> None:
        self._client = cast("_Keys", connect(url))

    async def put(self, anchor: Anchor) -> None:
        """See `Anchors.put`."""
        try:
            await self._client.set(f"{ANCHOR_KEY}{anchor.chain}", anchor.as_json(), ex=ANCHOR_DAYS * 86400)
        except (RedisError, OSError) as error:
            raise AnchorsAway(f"Redis: {type(error).__name__}") from None

    async def read(self) -> list[Anchor]:
        """All anchors that are there.

        Raises:
            AnchorsAway: they could not be read.
        """
        try:
            keys = [key async for key in self._client.scan_iter(match=f"{ANCHOR_KEY}*", count=1000)]
            values = [await self._client.get(key.decode()) for key in keys]
            return [Anchor.from_json(value) for value in values if value is not None]
        except (RedisError, OSError, ValueError) as error:
            raise AnchorsAway(f"Redis: {type(error).__name__}") from None

    async def aclose(self) -> None:
        """Close the connection."""
        await self._client.aclose()


async def sink_of(
    settings: Settings, needed: Needed, metrics: Metrics, readiness: Readiness, stack: AsyncExitStack, *, part: str
) -> QueuedSink:
    """The sink that the settings ask for, open until the stack closes; its chain is anchored meanwhile.

    Several processes have a file each: `audit.worker-1.jsonl` for the part `worker-1` of `audit.jsonl`.

    Raises:
        CannotServe: its file cannot be opened, or is another process's.
    """

    def on_health(failure: str | None) -> None:
        metrics.observe_audit(failure)
        if failure is None:
            readiness.degraded.pop("audit", None)
            _log.warning("the audit is written again")
        else:
            readiness.degraded["audit"] = failure
            _log.error("the audit cannot be written; every request is refused", reason=failure)

    chain = None if needed.audit_key is None else Chain(needed.audit_key)
    target, place = _target(settings, part)
    sink = QueuedSink(Appender(target, chain, sync=settings.audit_fsync), on_health=on_health)
    host = socket.gethostname()
    anchors = None if chain is None else await _anchors(settings, stack)
    anchoring = None
    if chain is not None and anchors is not None:
        anchoring = Anchoring(anchors, chain, lambda: sink.link, host=host, on_outcome=_telling(metrics))
        stack.push_async_callback(anchoring.put)  # when the closing record is written
    try:
        await sink.open({"version": __version__, "host": host, **({"process": part} if part else {})})
    except OSError as error:
        raise CannotServe(f"SWITCHBOARD_AUDIT: {place}: {error.strerror}") from None
    stack.push_async_callback(sink.aclose)
    if anchoring is not None:
        run_until_closed(anchoring.run, stack)
    return sink


def _target(settings: Settings, part: str) -> tuple[Target, str]:
    """Where a process writes, and how the settings would say that."""
    if settings.audit == "stdout":
        return StreamTarget(sys.stdout.fileno()), settings.audit
    path = Path(settings.audit.removeprefix(FILE))
    if part:
        path = path.with_name(f"{path.stem}.{part}{path.suffix}")
    target = FileTarget(
        path,
        rotate_bytes=settings.audit_rotate_bytes,
        on_problem=lambda problem: _log.error("the audit goes on in its old file", reason=problem),
        durable=settings.audit_fsync,
    )
    return target, f"{FILE}{path}"


async def _anchors(settings: Settings, stack: AsyncExitStack) -> Anchors | None:
    place = settings.audit_anchors or ("redis" if settings.redis_url else "off")
    if place == "off":
        return None
    if place.startswith(FILE):
        return FileAnchors(Path(place.removeprefix(FILE)))
    anchors = redis_anchors(settings)
    stack.push_async_callback(anchors.aclose)
    return anchors


def redis_anchors(settings: Settings) -> RedisAnchors:
    """The anchors in the settings' Redis.

    Raises:
        CannotServe: there is no Redis, or its URL cannot be used.
    """
    if settings.redis_url is None:
        raise CannotServe("SWITCHBOARD_REDIS_URL: where the anchors of the audit are")
    try:
        return RedisAnchors(settings.redis_url.get_secret_value())
    except RedisUrlError as error:
        raise CannotServe(f"SWITCHBOARD_REDIS_URL: {error}") from None


def _telling(metrics: Metrics) -> Callable[[str | None], None]:
    failing = False

    def tell(failure: str | None) -> None:
        nonlocal failing
        metrics.observe_anchor(failure)
        if failing == (failure is not None):
            return
        failing = not failing
        if failing:
            _log.error("the audit's chain cannot be anchored", reason=failure)
        else:
            _log.warning("the audit's chain is anchored again")

    return tell
