"""Which tests the fast run takes, ``tox -e tests``: the others are marked ``full``.

What takes long stays in the fast run once for each behaviour, and it is the same in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import pytest

# Tests that share what ``tests.pages.verdict`` remembers: one worker has them all.
VERDICTS = pytest.mark.xdist_group("verdicts")


def every(
    step: int, names: str, values: Iterable[Any], slow: Collection[Any] = (), **options: Any
) -> pytest.MarkDecorator:
    """``pytest.mark.parametrize``; the fast run takes each ``step``-th that is not in ``slow``."""

    def is_fast(place: int, value: Any) -> bool:
        return place % step == 0 and value not in slow

    return _parametrize(names, values, is_fast, options)


def only(
    fast: Collection[Any], names: str, values: Iterable[Any], **options: Any
) -> pytest.MarkDecorator:
    """``pytest.mark.parametrize``; the fast run takes the values that are in ``fast``."""
    values = [*values]
    if absent := [value for value in fast if value not in values]:
        raise ValueError(f"{names} is never {absent}")
    return _parametrize(names, values, lambda _, value: value in fast, options)


def _parametrize(
    names: str, values: Iterable[Any], is_fast: Callable[[int, Any], bool], options: dict[str, Any]
) -> pytest.MarkDecorator:
    one = "," not in names
    params = [
        pytest.param(
            *((value,) if one else value),
            marks=() if is_fast(place, value) else pytest.mark.full,
        )
        for place, value in enumerate(values)
    ]
    return pytest.mark.parametrize(names, params, **options)
