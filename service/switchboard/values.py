"""Frozen values that are made for each request.

The library's frozen dataclasses are slow to make: each field is set by a call that goes around the very guard that
freezes it, and a request makes some thirty values. These are dataclasses that only mypy holds to be frozen, which it
does with every run of the tests. Took 6 % of a request's processor time; docs/decisions/0025-hot-path.md.
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeVar

T = TypeVar("T")

if TYPE_CHECKING:
    from dataclasses import dataclass as light_dataclass
else:

    def light_dataclass(
        *, frozen: Literal[True], slots: Literal[True], kw_only: bool = False
    ) -> Callable[[type[T]], type[T]]:
        """`dataclasses.dataclass`, whose `frozen` is the type checker's business; equal values have equal hashes."""
        return dataclasses.dataclass(slots=slots, kw_only=kw_only, unsafe_hash=frozen)


__all__ = ["light_dataclass"]
