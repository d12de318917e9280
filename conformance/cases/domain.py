"""Which inputs a target takes, and how a shape is changed so that it is one of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

Shape = tuple[int, ...]
Span = tuple[int | None, int | None]
SPLIT = 12  # a line from so many elements on is made a matrix, where one is needed


@dataclass(frozen=True)
class Result:
    """See ``targets.Result``, which has the same fields."""

    over: Span = (0, None)
    divisor: Span | None = None
    mean: str = "mean"
    scalar: tuple[int, ...] = ()
    flat: bool = False
    dtype: str = ""
    rounded: tuple[str, str] = ("", "")

    def words(self) -> Iterator[str]:
        """For people, each thing in which it differs from the builtin's."""
        if self.over != (0, None):
            yield f"sum and mean over {_dimensions(self.over)}"
        if self.divisor is not None or self.mean != "mean":
            over = self.over if self.divisor is None else self.divisor
            yield f"{self.mean} divides by the sizes of {_dimensions(over)}"
        if self.scalar:
            yield f"a result of shape {self.scalar}"
        if self.flat:
            yield "none flattened"
        if self.dtype:
            yield f"the result {_kind(self.dtype)}"
        for name, dtype in zip(("input", "target"), self.rounded, strict=True):
            if dtype:
                yield f"{name} rounded to {_kind(dtype)}"

    def to_json(self) -> dict[str, Any]:
        """Only what differs from the builtin's."""
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        return {k: v for k, v in every.items() if v != getattr(BUILTIN, k)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Result:
        """The inverse of :meth:`to_json`. Raises ValueError and TypeError."""
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        found = cls(**given)
        spans = (*found.over, *(found.divisor or ()), *found.scalar)
        texts = (found.mean, found.dtype, *found.rounded)
        if not all(n is None or type(n) is int for n in spans):
            raise ValueError("a dimension that is no number")
        if not all(isinstance(text, str) for text in texts) or type(found.flat) is not bool:
            raise ValueError("a form of a result that is none")
        return found


BUILTIN = Result()


def _dimensions(span: Span) -> str:
    start, stop = ("" if n is None else n for n in span)
    return f"dimensions [{start or ''}:{stop}]"


def _kind(dtype: str) -> str:
    return "input's dtype" if dtype == "input" else dtype


@dataclass(frozen=True)
class Domain:
    """See ``targets.Domain``, which has the same fields."""

    ranks: tuple[int, int] = (0, 64)
    shape: tuple[int | None, ...] = ()
    columns: tuple[int, int] = (1, 0)
    elements: tuple[int, int] = (1, 0)
    layout: str = "any"
    backward: bool = True
    result: Result | None = None

    @property
    def takes_all(self) -> bool:
        """Whether it is every input, whatever comes out."""
        return replace(self, result=None) == FULL

    def words(self) -> str:
        """For people: what it takes; empty where that is everything."""
        least, most = self.ranks
        parts = []
        if self.shape:
            parts.append(f"shape ({', '.join('any' if n is None else str(n) for n in self.shape)})")
        elif (least, most) != (0, 64):
            parts.append(f"{least} to {most} dimensions" if least < most else f"{least} dimensions")
        for name in ("columns", "elements"):
            multiple, largest = getattr(self, name)
            parts += [f"{name} a multiple of {multiple}"] * (multiple > 1)
            parts += [f"at most {largest:,} {name}"] * (largest > 0)
        if self.layout != "any":
            parts.append({"dense_rows": "last stride 1"}.get(self.layout, self.layout))
        parts += ["no backward"] * (not self.backward)
        return ", ".join([*parts, *(self.result.words() if self.result else ())])

    def to_json(self) -> dict[str, Any]:
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        return every | {"result": self.result and self.result.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Domain:
        """The inverse of :meth:`to_json`. Raises ValueError and TypeError."""
        listed = ("ranks", "shape", "columns", "elements")
        result = None if data["result"] is None else Result.from_json(data["result"])
        found = cls(**data | {"result": result} | {name: tuple(data[name]) for name in listed})
        if not all(isinstance(n, int) for name in listed for n in data[name] if n is not None):
            raise ValueError("a size that is no number")
        return found


FULL = Domain()


def holds(domain: Domain, shape: Shape) -> bool:
    """Whether an operand of ``shape`` lies in it, its layout apart."""
    least, most = domain.ranks
    if not least <= len(shape) <= most:
        return False
    if any(n not in (None, m) for n, m in zip(domain.shape, shape, strict=False)):
        return False
    last = shape[-1] if shape else 1
    return _fits(last, domain.columns) and _fits(math.prod(shape), domain.elements)


def _fits(n: int, limits: tuple[int, int]) -> bool:
    multiple, largest = limits
    return n % multiple == 0 and (not largest or n <= largest)


def dense(domain: Domain, shape: Shape, strides: Shape) -> bool:
    """Whether its layout lies in it."""
    if domain.layout == "any":
        return True
    if domain.layout == "dense_rows":
        return not shape or shape[-1] < 2 or strides[-1] == 1
    expected = 1
    for n, stride in zip(reversed(shape), reversed(strides), strict=True):
        if n == 0:
            return True
        if n > 1 and stride != expected:
            return False
        expected *= n
    return True


def padded(domain: Domain, shape: Shape) -> Shape:
    """``shape``, after as many dimensions of size 1 as it lacks: two are broadcast as before.

    Where that does not lie inside, it stays as it is; and so does 0-d.
    """
    longer = (*(1,) * (domain.ranks[0] - len(shape)), *shape)
    return longer if shape and holds(domain, longer) else shape


def enlarged(domain: Domain, shape: Shape) -> Shape:
    """The same, with more elements where there are none like it."""
    longer = padded(domain, shape)
    if not shape or holds(domain, longer):
        return longer
    return settled(domain, (*(1,) * (domain.ranks[0] - len(shape)), *shape)) or shape


def fitted(domain: Domain, shape: Shape) -> Shape | None:
    """A shape of about as many elements inside of it; None where there is none."""
    if holds(domain, shape):
        return shape
    least, most = domain.ranks
    while len(shape) > max(most, 1):
        shape = (shape[0] * shape[1], *shape[2:])
    while len(shape) < least:
        shape = _longer(shape)
    return settled(domain, shape)


def _longer(shape: Shape) -> Shape:
    """One dimension more: a long line is split, to a short one comes a row or a column."""
    if not shape:
        return (1,)
    *rest, n = shape
    factor = next((k for k in (2, 3, 5, 7) if n >= SPLIT and n % k == 0), 1)
    if factor == 1 and n % 2:
        return (*rest, n, 1)
    return (*rest, factor, n // factor)


def settled(domain: Domain, shape: Shape) -> Shape | None:
    """Its sizes changed as little as may be so that it lies inside; None where they cannot be."""
    if not shape:
        return shape if holds(domain, shape) else None
    fixed = domain.shape or (None,) * len(shape)
    sizes = [n if m is None else m for n, m in zip(shape, fixed, strict=False)]
    multiple, largest = domain.columns
    if largest and sizes[-1] > largest:
        if len(sizes) > 1 and fixed[-2] is None:
            sizes[-2] *= -(-sizes[-1] // largest)
        sizes[-1] = largest // multiple * multiple
    elif 0 < sizes[-1] < multiple < math.prod(sizes[-2:-1]) and fixed[-2] is None:
        sizes[-2] = -(-sizes[-2] * sizes[-1] // multiple)  # not many times as many elements
    rest = max(math.prod(sizes[:-1]), 1)
    step = math.lcm(multiple, domain.elements[0] // math.gcd(domain.elements[0], rest))
    sizes[-1] = -(-sizes[-1] // step) * step
    for k in range(len(sizes)):
        over = domain.elements[1] and math.prod(sizes) > domain.elements[1]
        if over and fixed[k] is None:
            others = math.prod(sizes[:k] + sizes[k + 1 :])
            sizes[k] = max(domain.elements[1] // others // step * step, step if k else 1)
    return tuple(sizes) if holds(domain, tuple(sizes)) else None


def fitted_pair(domain: Domain, x: Shape, y: Shape) -> tuple[Shape, Shape] | None:
    """Two shapes that are broadcast as these are; None where the domain has none."""
    if x == y:
        one = fitted(domain, x)
        return None if one is None else (one, one)
    found = []
    for shape in (x, y):
        one = settled(domain, (*(1,) * max(domain.ranks[0] - len(shape), 0), *shape))
        if one is None:
            return None
        found.append(one)
    for n, m in zip(reversed(found[0]), reversed(found[1]), strict=False):
        if n != m and 1 not in (n, m):
            return None
    return found[0], found[1]
