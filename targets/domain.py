"""The inputs that a target says it takes, where that is less than every shape and layout."""

from __future__ import annotations

from dataclasses import dataclass

LAYOUTS = ("any", "dense_rows", "contiguous")
DTYPES = ("float64", "float32", "float16", "bfloat16")
Span = tuple[int | None, int | None]  # some dimensions, as a slice of all


class DomainError(ValueError):
    """A domain that says nothing, or what cannot be. The message says what is wrong."""


@dataclass(frozen=True)
class Result:
    """The form of what a target returns, where that is not the builtin's.

    ``over``: the dimensions that sum and mean add up, as a slice: with ``(1, None)`` there is one
    loss for each sample. ``divisor``: those by whose sizes a mean divides, where these are others:
    ``(0, 1)`` is the sum over shape[0]. ``mean``: what the target calls such a mean, ``batchmean``.
    ``scalar``: the shape of one number, ``()`` or ``(1,)``. ``flat``: whether none has one
    dimension. ``dtype``: a dtype that the result always has, or ``input`` for that of input.
    ``rounded``: what input and target may be rounded to before the difference, likewise.

    Raises :class:`DomainError` where a field is not valid.
    """

    over: Span = (0, None)
    divisor: Span | None = None
    mean: str = "mean"
    scalar: tuple[int, ...] = ()
    flat: bool = False
    dtype: str = ""
    rounded: tuple[str, str] = ("", "")

    def __post_init__(self) -> None:
        for name in ("over", "divisor", "scalar", "rounded"):
            given = getattr(self, name)
            if not (isinstance(given, tuple | list) or (name == "divisor" and given is None)):
                raise DomainError(f"{name} is {given!r}, not a tuple")
            object.__setattr__(self, name, None if given is None else tuple(given))
        for name in ("over", "divisor"):
            span = getattr(self, name)
            if span is not None and not (len(span) == 2 and all(map(_is_place, span))):
                raise DomainError(
                    f"{name} is {span!r}: where a slice of dimensions begins and ends"
                )
        if self.scalar not in ((), (1,)):
            raise DomainError(f"scalar is {self.scalar!r}: the shape () or (1,)")
        if len(self.rounded) != 2:
            raise DomainError(f"rounded is {self.rounded!r}: of input and of target")
        known = ("", "input", *DTYPES)
        for name, dtype in (("dtype", self.dtype), *(("rounded", d) for d in self.rounded)):
            if dtype not in known:
                raise DomainError(f"{name}: {dtype!r}; known: {', '.join(known[1:])}")
        if not (isinstance(self.mean, str) and self.mean) or self.mean in ("none", "sum"):
            raise DomainError(f"mean is {self.mean!r}: the name of a reduction that is a mean")


@dataclass(frozen=True)
class Domain:
    """What each operand must be like, and what comes out. By default anything is, and the
    builtin's result.

    ``ranks``: the least and the largest number of dimensions. ``shape``: one size for each
    dimension, where None is any size; it sets ``ranks``. ``columns``: what the size of the last
    dimension is a multiple of, and its largest; 0 is no limit. ``elements``: the same, for the
    number of elements. ``layout``: ``any``; ``dense_rows``, the last dimension with stride 1;
    or ``contiguous``. ``backward``: whether there is one; without it the loss is judged under no
    gradient alone. ``result``: the form of what comes out, where that is not the builtin's.

    Cases are generated inside of it; what lies outside is not judged, but whether it raises there
    (clause ``domain.error``). Raises :class:`DomainError` where a field is not valid.
    """

    ranks: tuple[int, int] = (0, 64)
    shape: tuple[int | None, ...] = ()
    columns: tuple[int, int] = (1, 0)
    elements: tuple[int, int] = (1, 0)
    layout: str = "any"
    backward: bool = True
    result: Result | None = None

    def __post_init__(self) -> None:
        if self.result is not None and not isinstance(self.result, Result):
            raise DomainError(f"result is {self.result!r}, not a Result")
        if self.result == Result():
            object.__setattr__(self, "result", None)
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


def _is_place(value: object) -> bool:
    return value is None or type(value) is int


def _is_count(value: object, least: int) -> bool:
    return type(value) is int and value >= least


FULL = Domain()
