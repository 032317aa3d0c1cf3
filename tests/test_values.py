"""Values that are frozen for whoever reads the code, and quick to make."""

from dataclasses import replace

import pytest

from switchboard.values import light_dataclass


@light_dataclass(frozen=True, slots=True)
class Point:
    """Of two fields."""

    x: int
    y: int = 0


@light_dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Whose fields have to be named."""

    name: str


def test_it_is_a_value():
    assert Point(1) == Point(1, 0) != Point(1, 2)
    assert len({Point(1), Point(1), Point(2)}) == 2
    assert replace(Point(1), y=3) == Point(1, 3)
    assert repr(Point(1)) == "Point(x=1, y=0)"


def test_it_takes_nothing_new():
    with pytest.raises(AttributeError):
        Point(1).z = 1  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        Named("a")  # type: ignore[call-arg]  # not by its place
    assert Named(name="a").name == "a"


def test_mypy_holds_it_to_be_frozen():
    """The comment is needed, or mypy, which allows none that is not, would fail: there lies what this test shows."""
    made = Point(1)
    made.x = 2  # type: ignore[misc]
    assert made.x == 2
