"""The inputs that a target says it takes, where that is less than every shape and layout."""

from __future__ import annotations

from dataclasses import dataclass

LAYOUTS = ("any", "dense_rows", "contiguous")


class DomainError(ValueError):
    """A domain that says nothing, or what cannot be. The message says what is wrong."""


@dataclass(frozen=True)
class Domain:
    """What each operand must be like. By default anything is.

    ``ranks``: the least and the largest number of dimensions. ``shape``: one size for each
    dimension, where None is any size; it sets ``ranks``. ``columns``: what the size of the last
    dimension is a multiple of, and its largest; 0 is no limit. ``elements``: the same, for the
    number of elements. ``layout``: ``any``; ``dense_rows``, the last dimension with stride 1;
    or ``contiguous``. ``backward``: whether there is one; without it the loss is judged under no
    gradient alone.

    Cases are generated inside of it; what lies outside is not judged, but whether it raises there
    (clause ``domain.error``). Raises :class:`DomainError` where a field is not valid.
    """

    ranks: tuple[int, int] = (0, 64)
    shape: tuple[int | None, ...] = ()
    columns: tuple[int, int] = (1, 0)
    elements: tuple[int, int] = (1, 0)
    layout: str = "any"
    backward: bool = True

    def __post_init__(self) -> None:
        if self.shape:
            object.__setattr__(self, "shape", tuple(self.shape))
            if any(n is not None and not _is_count(n, 1) for n in self.shape):
                raise DomainError(f"shape is {self.shape!r}: sizes of at least 1, or None for any")
            object.__setattr__(self, "ranks", (len(self.shape),) * 2)
        for name in ("ranks", "columns", "elements"):
            pair = getattr(self, name)
            if not (isinstance(pair, tuple | list) and len(pair) == 2):
                raise DomainError(f"{name} is {pair!r}, not two numbers")
            object.__setattr__(self, name, tuple(pair))
        least, most = self.ranks
        if not (_is_count(least, 0) and _is_count(most, least)):
            raise DomainError(f"ranks is {self.ranks!r}: the least and the largest, from 0 on")
        for name in ("columns", "elements"):
            multiple, largest = getattr(self, name)
            if not (_is_count(multiple, 1) and _is_count(largest, 0)):
                pair = (multiple, largest)
                raise DomainError(f"{name} is {pair!r}: a multiple, and a limit or 0")
            if 0 < largest < multiple:
                raise DomainError(f"{name}: no multiple of {multiple} is at most {largest}")
        if self.layout not in LAYOUTS:
            raise DomainError(f"layout is {self.layout!r}; known: {', '.join(LAYOUTS)}")


def _is_count(value: object, least: int) -> bool:
    return type(value) is int and value >= least


FULL = Domain()
