"""The fast run takes some of each kind, and always the same."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sampling import every, only


def taken(mark: pytest.MarkDecorator) -> list[Any]:
    """The values that the fast run takes."""
    _, params = mark.args
    return [p.values for p in params if not any(m.name == "full" for m in p.marks)]


def test_each_third_is_taken_and_none_is_lost() -> None:
    mark = every(3, "value", range(7))
    assert taken(mark) == [(0,), (3,), (6,)]
    assert [p.values for p in mark.args[1]] == [(k,) for k in range(7)]
    assert taken(every(3, "value", range(7), slow=[3])) == [(0,), (6,)]


def test_a_value_may_be_a_tuple_and_several_values_one() -> None:
    assert taken(every(2, "shape", [(1, 2), (3,)])) == [((1, 2),)]
    assert taken(only([("a", 1)], "name, size", [("a", 1), ("b", 2)])) == [("a", 1)]


def test_what_is_to_be_taken_exists() -> None:
    with pytest.raises(ValueError, match="name is never"):
        only(["gone"], "name", ["here"])
