"""The edge: a ceiling of requests per client address, before a body is read and before any cryptography.

slowapi stands in the route table and counts in this process's memory, so it can neither block nor fail. It keeps a
flood from the expensive parts; the quotas of users and tenants, shared by all replicas, come later and elsewhere.
Unknown paths, wrong methods and preflights are answered without a count: they cost less than counting tells.
"""

import inspect
import logging
import math
import os
import time
import warnings
from collections.abc import Collection, Iterable
from typing import Any, TypeVar

from limits import parse_many
from slowapi import Limiter
from slowapi.errors import RateLimitExceeded
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
        self._items = parse_many(limit)  # slowapi would log a mistake and count nothing
        self._exempt = exempt
        self._limiter = _Limiter(_counted)
        self._shared = self._limiter.shared_limit(limit, scope=SCOPE, exempt_when=self._is_exempt if exempt else None)

    def limited(self, routes: Iterable[Route]) -> list[Route]:
        """The same routes, counted."""
        return [self._limited(route) for route in routes]

    def _limited(self, route: Route) -> Route:
        async def endpoint(request: Request) -> Response:
            answer: Response = await route.endpoint(request)
            return answer

        # slowapi keeps limits by the endpoint's name: two of one name would count each request twice.
        endpoint.__name__ = endpoint.__qualname__ = route.path
        limited = Route(route.path, self._refusing(self._shared(endpoint)), name=route.name)
        limited.methods = route.methods
        return limited

    def _refusing(self, endpoint: Endpoint) -> Endpoint:
        async def refusing(request: Request) -> Response:
            try:
                return await endpoint(request)
            except RateLimitExceeded as exceeded:
                seconds = self._seconds_left(request)
                raise RateLimited(
                    f"This address may send {exceeded.detail}; try again in {seconds} s.", retry_after=seconds
                ) from None

        return refusing

    def _seconds_left(self, request: Request) -> int:
        """Until every limit that is used up lets go: a sooner try would be refused again."""
        stats = [self._limiter.limiter.get_window_stats(item, _counted(request), SCOPE) for item in self._items]
        ends = max((reset for reset, remaining in stats if remaining == 0), default=0.0)
        return max(1, math.ceil(ends - time.monotonic()))

    def _is_exempt(self, request: Request) -> bool:
        address = parsed(_address(request))
        return address is not None and within(address, self._exempt)


class _Limiter(Limiter):
    """slowapi's, deaf to `.env` and `RATELIMIT_*`, and silent: a line per refusal would flood the log as well."""

    def __init__(self, key_func: Any) -> None:
        with warnings.catch_warnings():
            # Starlette says that this is no file; without a name slowapi would read `.env`.
            warnings.simplefilter("ignore")
            super().__init__(
                key_func,
                storage_uri=f"{SCHEME}://",
                # Monotonic: a step of the wall clock opens no window and closes none.
                storage_options={"clock": time.monotonic, "most": MAX_ADDRESSES},  # type: ignore[dict-item] # too narrow
                swallow_errors=False,  # memory does not fail; what fails is a defect, and must not open the door
                config_filename=os.devnull,
                key_style="endpoint",  # with "url" it skips an empty path
            )
        self.logger.setLevel(logging.ERROR)
        # slowapi asks for it on every request, and Python makes it anew unless it is there.
        key_func.__signature__ = inspect.signature(key_func)

    def get_app_config(self, key: str, default_value: T = None) -> T:  # type: ignore[assignment] # noqa: ARG002 - as slowapi has it
        """The default, whatever the environment says."""
        return default_value


def _counted(request: Request) -> str:
    return counted_as(_address(request))


def _address(request: Request) -> str:
    # slowapi counts nothing for an empty key.
    return (request.client.host if request.client else "") or UNKNOWN
