"""The edge: a ceiling of requests per client address, before a body is read and before any cryptography.

slowapi counts, in this process's memory, so it can neither block nor fail. It keeps a
flood from the expensive parts; the quotas of users and tenants, shared by all replicas, come later and elsewhere.
Unknown paths, wrong methods and preflights are answered without a count: they cost less than counting tells.
"""

import math
import os
import time
import warnings
from collections.abc import Awaitable, Collection, Iterable
from typing import TypeVar

from limits import parse_many
from slowapi import Limiter
from slowapi.util import get_remote_address
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from switchboard.clientaddress import UNKNOWN, Network, counted_as, parsed, within
from switchboard.endpoints import Endpoint
from switchboard.errors import RateLimited
from switchboard.ratelimit.windows import SCHEME

SCOPE = "edge"
MAX_ADDRESSES = 100_000  # at one time, about 40 MB: who has more is not held by a limit per address

T = TypeVar("T")


class Edge:
    """One limit for all routes together.

    Args:
        limit: in the notation of `limits`, such as `20/second;300/minute`.
        exempt: networks that are not counted.

    Raises:
        ValueError: the limit cannot be read.
    """

    def __init__(self, limit: str, *, exempt: Collection[Network] = ()) -> None:
        self._items = parse_many(limit)
        self._exempt = exempt
        # Its strategy, and not its decorator: that one costs a request more than a user's token does.
        self._counts = _Limiter().limiter

    def limited(self, routes: Iterable[Route]) -> list[Route]:
        """The same routes, counted."""
        return [self._limited(route) for route in routes]

    def _limited(self, route: Route) -> Route:
        limited = Route(route.path, self._counting(route.endpoint), name=route.name)
        limited.methods = route.methods
        return limited

    def _counting(self, endpoint: Endpoint) -> Endpoint:
        def counting(request: Request) -> Awaitable[Response]:
            self._count((request.client.host if request.client else "") or UNKNOWN)
            return endpoint(request)

        return counting

    def _count(self, address: str) -> None:
        """One request of this address.

        Raises:
            RateLimited: it is one too many.
        """
        if self._exempt and self._is_exempt(address):
            return
        counted = counted_as(address)
        for item in self._items:
            if not self._counts.hit(item, counted, SCOPE):
                seconds = self._seconds_left(counted)
                raise RateLimited(f"This address may send {item}; try again in {seconds} s.", retry_after=seconds)

    def _seconds_left(self, counted: str) -> int:
        """Until every limit that is used up lets go: a sooner try would be refused again."""
        stats = [self._counts.get_window_stats(item, counted, SCOPE) for item in self._items]
        ends = max((reset for reset, remaining in stats if remaining == 0), default=0.0)
        return max(1, math.ceil(ends - time.monotonic()))

    def _is_exempt(self, address: str) -> bool:
        found = parsed(address)
        return found is not None and within(found, self._exempt)


class _Limiter(Limiter):
    """slowapi's, deaf to `.env` and `RATELIMIT_*`."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            # Starlette says that this is no file; without a name slowapi would read `.env`.
            warnings.simplefilter("ignore")
            super().__init__(
                get_remote_address,  # for its decorator; here the address is found elsewhere
                storage_uri=f"{SCHEME}://",
                # Monotonic: a step of the wall clock opens no window and closes none.
                storage_options={"clock": time.monotonic, "most": MAX_ADDRESSES},  # type: ignore[dict-item] # too narrow
                config_filename=os.devnull,
            )

    def get_app_config(self, key: str, default_value: T = None) -> T:  # type: ignore[assignment] # noqa: ARG002 - as slowapi has it
        """The default, whatever the environment says."""
        return default_value
