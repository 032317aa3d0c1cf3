"""What every line of the log says while one request is served: its id, whose it is.

structlog has the same, with a context variable for each name; this is one for all of them, since it is set up anew for
every request. Tasks that a request starts share what it says.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_said: ContextVar[dict[str, Any] | None] = ContextVar("switchboard_log", default=None)


def begin(**said: Any) -> None:
    """A request begins: from now on lines say this, and nothing of the one before."""
    _said.set(said)


def add(**said: Any) -> None:
    """More of it, if there is a request."""
    current = _said.get()
    if current is not None:
        current.update(said)


def current() -> Mapping[str, Any]:
    """What lines say now."""
    return _said.get() or _NOTHING


@contextmanager
def during(**said: Any) -> Iterator[None]:
    """Lines inside the block say this, and nothing else."""
    token = _said.set(said)
    try:
        yield
    finally:
        _said.reset(token)
