"""A connection to Redis by URL, bounded on every side and retrying nothing: the breaker decides about that.

`redis://` and `rediss://` name one server, `redis+sentinel://host:port,host:port/service` a primary by its Sentinels,
`redis+cluster://host:port,host:port` a Cluster; the notation is that of the library `limits`.
"""

from typing import Any, Protocol, cast
from urllib.parse import unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

SOCKET_SECONDS = 0.1  # for one answer, and for a connection
MAX_CONNECTIONS = 64  # one step takes a fraction of a millisecond: more would only queue inside Redis
SCHEMES = ("redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")


class Commands(Protocol):
    """The few commands that are used: a single server's client, a Sentinel's and a Cluster's all have them."""

    async def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Any: ...
    async def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Any: ...
    async def get(self, name: str) -> Any: ...
    async def set(self, name: str, value: bytes, *, px: int) -> Any: ...
    async def delete(self, *names: str) -> Any: ...
    async def config_get(self, pattern: str) -> Any: ...
    async def aclose(self) -> None: ...


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
    }
    if "+" not in parts.scheme:
        try:
            pool = BlockingConnectionPool.from_url(
                url, max_connections=MAX_CONNECTIONS, timeout=SOCKET_SECONDS, **bounds
            )
        except ValueError as error:
            raise RedisUrlError(str(error)) from None
        return cast("Commands", Redis.from_pool(pool))  # and closes it
    credentials, _, addresses = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    if credentials:
        bounds |= {"username": unquote(username) or None, "password": unquote(password) or None}
    bounds["ssl"] = parts.scheme.startswith("rediss")
    hosts = [_host_and_port(address) for address in addresses.split(",")]
    if parts.scheme.endswith("cluster"):
        nodes = [ClusterNode(host, port) for host, port in hosts]
        cluster = RedisCluster(
            startup_nodes=nodes, max_connections=MAX_CONNECTIONS, cluster_error_retry_attempts=0, **bounds
        )
        return cast("Commands", cluster)
    service = parts.path.strip("/")
    if not service:
        raise RedisUrlError("a Sentinel URL names the service: redis+sentinel://host:26379/mymaster")
    sentinel = Sentinel(hosts, **bounds)  # type: ignore[no-untyped-call]  # the library leaves it untyped
    return cast("Commands", sentinel.master_for(service, max_connections=MAX_CONNECTIONS, **bounds))


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise RedisUrlError("each address is host:port")
    return host.strip("[]"), int(port)
