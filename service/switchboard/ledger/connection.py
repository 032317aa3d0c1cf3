"""A connection to Redis by URL, retrying nothing: the ledger bounds each step, and the breaker decides what then.

`redis://` and `rediss://` name one server, `redis+sentinel://host:port,host:port/service` a primary by its Sentinels,
`redis+cluster://host:port,host:port` a Cluster; the notation is that of the library `limits`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, cast
from urllib.parse import unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis, SSLConnection
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import RedisSSLContext
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelManagedSSLConnection
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

# For one answer, and for a connection. Longer than a step of the ledger, which has a bound of its own: this one lets
# the search for a primary go on to the next address, and ends what is being closed.
SOCKET_SECONDS = 0.25
# For one answer where there is one address alone. The step's own bound knows what this process is slow at itself
# (`patience`), the library's does not.
LONE_SOCKET_SECONDS = 1.0
MAX_CONNECTIONS = 32  # to one server: twice what is asked at a time (`resilient.LANES`); some may be on their way out
SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")


class Commands(Protocol):
    """The few commands that are used: a single server's client, a Sentinel's and a Cluster's all have them."""

    async def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Any: ...
    async def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Any: ...
    async def hget(self, name: str, key: str) -> Any: ...
    async def hmget(self, name: str, keys: Sequence[str]) -> Any: ...
    async def config_get(self, pattern: str) -> Any: ...
    async def aclose(self) -> None: ...


class _OneContext(SSLConnection):
    """TLS with one context for all connections of a client. The library makes one for each, and each reads the
    machine's certificates: tens of milliseconds during which the event loop stands still.
    """

    shared: ClassVar[RedisSSLContext]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.ssl_context = self.shared


class _Primary(Redis):
    """Leaves no connections to Sentinels behind, as the library does."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        manager: Sentinel = self.connection_pool.sentinel_manager  # type: ignore[attr-defined]  # of its own kind of pool
        await manager.aclose()


class _Cluster(RedisCluster):
    """Closed, it begins anew where it began: the library goes on with the addresses it has found, which may all be gone
    by then, and takes a client that has met an error for closed.
    """

    async def aclose(self) -> None:
        self._initialize = False
        await super().aclose()
        for node in self.startup_nodes:
            self.nodes_manager.startup_nodes.setdefault(node.name, node)


class RedisUrlError(ValueError):
    """The URL cannot be used; the message says what would be right, and quotes no password."""


def connect(url: str) -> Commands:
    """A client; the first command connects.

    Raises:
        RedisUrlError: the URL is none of the known forms.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise RedisUrlError(f"the scheme has to be one of {', '.join(SCHEMES)}")
    bounds: dict[str, Any] = {
        "socket_timeout": SOCKET_SECONDS,
        "socket_connect_timeout": SOCKET_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        # For managed services that announce their maintenance; it costs each connection a round trip.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
    if "+" not in parts.scheme:
        return cast("Commands", _server(url, bounds | {"socket_timeout": LONE_SOCKET_SECONDS}))
    credentials, _, addresses = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    if credentials:
        bounds |= {"username": unquote(username) or None, "password": unquote(password) or None}
    hosts = [_host_and_port(address) for address in addresses.split(",")]
    tls = parts.scheme.startswith("rediss")
    if parts.scheme.endswith("cluster"):
        return cast("Commands", _cluster(hosts, bounds, tls=tls))
    service = parts.path.strip("/")
    if not service:
        raise RedisUrlError("a Sentinel URL names the service: redis+sentinel://host:26379/mymaster")
    return cast("Commands", _primary(hosts, service, bounds, tls=tls))


def _server(url: str, bounds: dict[str, Any]) -> Redis:
    try:
        pool = BlockingConnectionPool.from_url(url, max_connections=MAX_CONNECTIONS, timeout=SOCKET_SECONDS, **bounds)
    except ValueError as error:
        raise RedisUrlError(str(error)) from None
    if issubclass(pool.connection_class, SSLConnection):
        pool.connection_class = _one_context(SSLConnection, pool.connection_kwargs)
    return Redis.from_pool(pool)  # and closes it


def _cluster(hosts: list[tuple[str, int]], bounds: dict[str, Any], *, tls: bool) -> RedisCluster:
    nodes = [ClusterNode(host, port) for host, port in hosts]
    cluster = _Cluster(startup_nodes=nodes, max_connections=MAX_CONNECTIONS, ssl=tls, **bounds)
    # The library does not hand these on to the connections of its nodes.
    options: dict[str, Any] = {"maint_notifications_config": bounds["maint_notifications_config"]}
    if tls:
        options["connection_class"] = _one_context(SSLConnection, {})
    cluster.connection_kwargs.update(options)
    for node in cluster.startup_nodes:
        node.connection_kwargs["maint_notifications_config"] = options["maint_notifications_config"]
        node.connection_class = options.get("connection_class", node.connection_class)
    return cluster


def _primary(hosts: list[tuple[str, int]], service: str, bounds: dict[str, Any], *, tls: bool) -> Redis:
    # Without these the library would ask a Sentinel that is down ten times, with pauses.
    asking = {name: bounds[name] for name in bounds if name not in ("username", "password")}
    sentinel = Sentinel(hosts, sentinel_kwargs=asking, **bounds)  # type: ignore[no-untyped-call]  # left untyped
    if tls:
        bounds = {**bounds, "connection_class": _one_context(SentinelManagedSSLConnection, {})}
    primary: Redis = sentinel.master_for(service, redis_class=_Primary, max_connections=MAX_CONNECTIONS, **bounds)
    return primary


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise RedisUrlError("each address is host:port")
    return host.strip("[]"), int(port)


def _one_context(kind: type[SSLConnection], options: Mapping[str, Any]) -> type[SSLConnection]:
    """A kind of connection whose context is made now, before there are requests that would wait for it."""
    shared = SSLConnection(**{name: value for name, value in options.items() if name.startswith("ssl_")}).ssl_context
    try:
        shared.get()
    except OSError as error:
        raise RedisUrlError(f"TLS: {error.strerror or error}") from None
    return type("OneContext", (_OneContext, kind), {"shared": shared})
