"""What every experiment works with: operands, what is asked of the observer, the comparison.

The script of a broken clause holds a copy of its experiment, of this file's :class:`Bench` and of
whatever else they refer to (see ``report/bundle.py``): the less that is, the easier it is to read.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from conformance.cases.case import promote
from conformance.cases.claimed import Claimed
from conformance.cases.domain import FULL, enlarged, holds, padded
from conformance.cases.plans import derive
from conformance.cases.values import FORMAT_OF
from conformance.clauses import BY_ID, WIDER
from conformance.judging.checks import number
from conformance.judging.evidence import BadEvidence, Evidence
from conformance.judging.observer import Given, Observer, Outside, Raised
from conformance.judging.seen import Seen
from reference.bounds import slack
from reference.formats import Floats, Format, round_nearest
from reference.losses.formula import Formula
from reference.reductions import EVERYTHING

T = TypeVar("T")
Messages = Iterator[str]
Shape = tuple[int, ...]
LARGE = 2**18 + 3  # elements: from so many on some take another path, or share work out
DRIFTING = 2**20 + 3  # one awkward number so many times in one running sum: see SPEC, rule 4
_EIGHTHS = np.array([sign * n / 8 for sign in (-1, 1) for n in range(1, 33)])
_POWERS = np.array([sign * 2.0**exponent for exponent in range(-2, 3) for sign in (-1, 1)])


@dataclass(frozen=True)
class Bench:
    """One target, behind its observer, one dtype, one seed.

    ``formula``: what its loss computes. ``announced``: what a call is called where it ends the
    observer. ``turn``: what :func:`shared_out` has handed out and is at work on, of which other
    dtypes have no part.
    """

    observer: Observer
    dtype: str
    seed: int
    formula: Formula
    announced: str = ""
    turn: list[object] = field(default_factory=list)

    @property
    def target(self) -> Claimed:
        """What the target claims."""
        return self.observer.claimed

    @property
    def device(self) -> str:
        return self.observer.device

    @property
    def fmt(self) -> Format:
        return FORMAT_OF[self.dtype]

    @property
    def reductions(self) -> tuple[str, ...]:
        return self.target.reductions

    def claims(self, *names: str) -> bool:
        return self.target.claims.issuperset(names)

    def tensor(self, shape: Shape, index: int, dtype: str | None = None) -> Given:
        """The ``index``-th random tensor of this experiment: magnitudes from 1/4 to 8."""
        shape = enlarged(self.target.domain, shape)
        return _tensor(self.seed, shape, index, *self._rounded, dtype or self.dtype)

    def nearest(self, values: Floats, dtype: str) -> Floats:
        """In ``dtype``, and in whatever the target may round to first: so it rounds nothing."""
        return _nearest(values, (*self._rounded, dtype))

    @property
    def _rounded(self) -> tuple[str, ...]:
        """Dtypes that a target may round to first: what they all hold is the same after it."""
        result = self.target.domain.result
        named = {*result.rounded} - {""} if result else set()
        return tuple(
            d for n in sorted(named) for d in (self.target.dtypes if n == "input" else (n,))
        )

    @property
    def own_dtype(self) -> str:
        """That of each result, or ``input``; empty where it is what torch promotes to."""
        result = self.target.domain.result
        return result.dtype if result else ""

    def promoted(self, x: str, y: str) -> str:
        """The dtype of a result, of operands of these."""
        return x if self.own_dtype == "input" else self.own_dtype or promote(x, y)

    @property
    def result_dtype(self) -> str:
        """The same, of operands of this dtype."""
        return self.promoted(self.dtype, self.dtype)

    @property
    def coarse(self) -> str:
        """Of the dtypes of an operand and a result, that with the least range."""
        return max(self.dtype, self.result_dtype, key=lambda name: FORMAT_OF[name].emin)

    def result_shape(self, shape: Shape, reduction: str) -> Shape:
        """That of a result, where operands broadcast to ``shape``."""
        return self.formula.form.shape(shape, reduction)

    @property
    def adds_everything(self) -> bool:
        """Whether sum and mean are over all elements, and the mean over their number."""
        form = self.formula.form
        return (form.over, form.divisor) == (EVERYTHING.over, EVERYTHING.divisor)

    def grad_output(self, values: Floats) -> Given:
        """For a result: no operand, so that the domain says nothing of it."""
        return Given(np.asarray(values, np.float64), self.result_dtype)

    def plain(self, shape: Shape, index: int) -> Floats:
        """Multiples of 1/8 as :func:`eighths` gives, of this very shape."""
        return np.asarray(_EIGHTHS[self.bits(shape, "eighths", index) & 63])

    def rows(self, shape: Shape, indices: Iterable[int]) -> Given:
        """Some of these tensors as one, which a protocol takes apart."""
        return Given(np.stack([self.tensor(shape, k).values for k in indices]), self.dtype)

    def bits(self, shape: Shape, *place: object) -> Any:
        """Random numbers of 64 bits, in an array."""
        return _bits(self.seed, shape, *place)

    def made(self, values: Floats, *, needs: bool = False) -> Given:
        """A tensor with these values, which the dtype holds; a leaf if it needs a gradient.

        Of a shape that the target takes, where there is one (see ``cases.domain.padded``).
        """
        found = np.asarray(values, np.float64)
        shape = padded(self.target.domain, found.shape)
        return Given(found.reshape(shape), self.dtype, needs)

    def inside(self, *shapes: Shape) -> bool:
        """Whether the target takes operands of these shapes, or of such as they become here."""
        domain = self.target.domain
        return all(holds(domain, enlarged(domain, shape)) for shape in shapes)

    def ask(self, protocol: str, /, **named: Any) -> Evidence:
        """What a protocol of ``observer/protocols`` sees: ``family.function``.

        Tensors (:class:`Given`) and settings (plain data) by the names of its parameters. Raises
        Raised where it raised, Unavailable where it cannot run here.
        """
        given = {name: value for name, value in named.items() if isinstance(value, Given)}
        settings = {name: value for name, value in named.items() if name not in given}
        return self.observer.ask(protocol, given, settings, self.announced)

    def loss(self, x: Given, y: Given, reduction: Any) -> Any:
        """What one call gives: a tensor, where it is one."""
        return self.ask("plain.loss", x=x, y=y, reduction=reduction)["result"]


def _bits(seed: int, shape: Shape, *place: object) -> Any:
    generator = np.random.PCG64(derive(seed, *place))
    return np.asarray(generator.random_raw(math.prod(shape))).reshape(shape)


@functools.lru_cache(maxsize=256)
def _tensor(seed: int, shape: Shape, index: int, *dtypes: str) -> Given:
    """In the last of these dtypes. Experiments ask for the same ones again and again."""
    bits = _bits(seed, shape, "tensor", index)
    # The lowest bits give the sign and the exponent, the highest the significand.
    values = np.asarray((1 + (bits >> 11) * 2.0**-53) * _POWERS[bits % 10])
    values = np.array(_nearest(values, dtypes))
    values.flags.writeable = False
    return Given(values, dtypes[-1])


def _nearest(values: Floats, dtypes: Iterable[str]) -> Floats:
    """Rounded to one after the other."""
    for name in dtypes:
        values = round_nearest(values, FORMAT_OF[name])
    return values


EXPERIMENTS: dict[str, Callable[[Bench], Messages]] = {}


def experiment(
    clause: str,
) -> Callable[[Callable[[Bench], Messages]], Callable[[Bench], Messages]]:
    """Register a function as the experiment of ``clause``."""
    assert clause in BY_ID, clause

    def add(function: Callable[[Bench], Messages]) -> Callable[[Bench], Messages]:
        assert clause not in EXPERIMENTS, clause
        EXPERIMENTS[clause] = function
        return function

    return add


def run_experiment(clause: str, bench: Bench) -> tuple[list[str], str | None]:
    """The first deviation that the experiment of ``clause`` meets, and what the target raised.

    Raises Unavailable where it cannot run here, Lost where a call ended the observer, and
    BadEvidence where that did not answer in the form that was asked for.
    """
    try:
        return list(itertools.islice(EXPERIMENTS[clause](bench), 1)), None
    except Raised as raised:
        return [], f"{raised}{raised.asked}"
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # its parts do not fit
        if bench.target.domain != FULL:
            raise Outside(f"{clause} knows no operands like these") from None
        raise BadEvidence(f"its parts do not fit: {type(error).__name__}: {error}") from error


def deviation(
    bench: Bench,
    what: str,
    got: Any,
    value: Floats,
    magnitude: Floats,
    terms: int = 1,
    of_result: bool = False,
) -> Messages:
    """A message where ``got`` is no tensor within :func:`reference.bounds.slack` of ``value``.

    ``value`` and ``magnitude``: arrays of the shape that ``got`` must have. ``of_result``: whether
    it has the dtype of a result, where that is another than its operands'.
    """
    dtype = bench.result_dtype if of_result else bench.dtype
    fmt = FORMAT_OF[dtype]
    if not of_result and bench.result_dtype != dtype:  # it may come by way of the result's
        fmt = max(fmt, FORMAT_OF[bench.result_dtype], key=lambda f: f.u)
    if bench.target.domain != FULL and isinstance(got, Seen) and got.values.size == np.size(value):
        value, magnitude = (np.reshape(v, got.values.shape) for v in (value, magnitude))
    shape = np.shape(value)
    if not isinstance(got, Seen):
        yield f"{what} is {brief(got)}, not a tensor"
    elif got.dtype != dtype or got.values.shape != shape:
        yield f"{what} is {brief(got)}, not {dtype}{list(shape)}"
    else:
        seen = got.values
        wide = slack(fmt.u, fmt.accumulator.u, fmt.eta, magnitude, terms)
        low, high = value - wide, value + wide
        wrong = np.argwhere(~((low <= seen) & (seen <= high)))
        if len(wrong):
            at = tuple(int(i) for i in wrong[0])
            place = f"[{', '.join(map(str, at))}]" if at else ""
            yield (
                f"{what}{place} is {number(float(seen[at]))}, "
                f"permitted: {number(float(low[at]))} to {number(float(high[at]))}"
            )


def deviation_of_loss(
    bench: Bench, what: str, got: Any, x: Given, y: Given, reduction: str
) -> Messages:
    """A message where ``got`` is not the loss of ``x`` and ``y``."""
    yield from deviation_of_value(bench, what, got, x.values - y.values, reduction)


def deviation_of_value(
    bench: Bench, what: str, got: Any, d: Floats, reduction: str, terms: int | None = None
) -> Messages:
    """A message where ``got`` is not the loss of operands that differ by ``d``.

    ``terms``: how many are added up, where these are not all.
    """
    exact, size = (np.asarray(f(d, reduction)) for f in (bench.formula.value, bench.formula.size))
    count = d.size if terms is None else terms
    yield from deviation(bench, what, got, exact, size, count, of_result=True)


def deviation_of_both(
    bench: Bench,
    where: str,
    result: Any,
    gradient: Any,
    x: Floats,
    y: Floats,
    reduction: str,
) -> Messages:
    """A message where these are not the loss of ``x`` and ``y``, of one shape, and its gradient.

    By input, with a ``grad_output`` of 1.
    """
    yield from deviation_of_value(
        bench, f"{where} the result ({reduction})", result, x - y, reduction
    )
    slope = bench.formula.vjp(x - y, 1.0, reduction)
    yield from deviation(bench, f"{where} the gradient ({reduction})", gradient, slope, abs(slope))


def two_dtypes(bench: Bench) -> list[tuple[str, str]]:
    """This dtype after a narrower one, and before it; none where such pairs are not claimed."""
    narrow = next((d for d in ("bfloat16", "float16") if d in bench.target.dtypes), None)
    if not narrow or bench.dtype not in WIDER or not bench.claims("mixed_dtype"):
        return []
    return [(narrow, bench.dtype), (bench.dtype, narrow)]


def narrower(bench: Bench, kinds: tuple[str, str]) -> Bench:
    """For what two dtypes give in the accuracy of the one that this dtype is wider than."""
    return replace(bench, dtype=next(kind for kind in kinds if kind != bench.dtype))


def shared_out(bench: Bench, every: Iterable[T]) -> Iterator[tuple[T, str]]:
    """Each of ``every`` with each reduction, this dtype's part of what is slow: the dtypes of the
    target take turns, and no dtype meets one reduction alone.
    """
    turns = math.lcm(len(bench.target.dtypes), len(bench.reductions))
    for k, pair in enumerate(itertools.product(every, bench.reductions)):
        yield from _own(bench, k + k // turns, pair)


def in_turn(bench: Bench, every: Iterable[T]) -> Iterator[tuple[T, str]]:
    """Each of ``every`` once, with one reduction in one dtype: this one's part."""
    for k, pair in enumerate(zip(every, itertools.cycle(bench.reductions), strict=False)):
        yield from _own(bench, k, pair)


def _own(bench: Bench, turn: int, pair: tuple[T, str]) -> Iterator[tuple[T, str]]:
    """``pair`` where it is this dtype's turn."""
    if bench.target.dtypes[turn % len(bench.target.dtypes)] == bench.dtype:
        bench.turn.append(pair)
        yield pair
        bench.turn.clear()


def eighths(bench: Bench, shape: Shape, index: int) -> Floats:
    """Random multiples of 1/8 in ±4, which every dtype holds; none is 0.

    Their differences are exact or 0, and no product of a few of them under- or overflows.
    """
    return bench.plain(enlarged(bench.target.domain, shape), index)


def several(seen: Evidence, name: str, count: int) -> list[Any]:
    """A list of so many; raises BadEvidence where it is another one."""
    found = seen.listed(name)
    if len(found) != count:
        raise BadEvidence(f"the observer's answer has {len(found)} of {count} in {name!r}")
    return found


def close(a: Any, b: Any, dtype: str | None = None) -> bool:
    """Equal but for a few roundings, to ``dtype`` or their own, by which two calls may differ.

    Only a target that claims ``deterministic`` must give the same bits (``determinism.repeat``).
    """
    if not (isinstance(a, Seen) and isinstance(b, Seen)) or a.dtype != b.dtype:
        return False
    fmt = FORMAT_OF.get(dtype or a.dtype)
    if fmt is None or a.values.shape != b.values.shape:
        return same_bits(a, b)
    if np.array_equal(a.values, b.values):  # as nearly always, and in a tenth of the time
        return True
    few = 32 * fmt.u  # 16 times the distance from 1 to the next number
    with np.errstate(all="ignore"):
        return np.allclose(a.values, b.values, rtol=few, atol=fmt.eta, equal_nan=True)


def same_bits(a: Any, b: Any) -> bool:
    """Equal dtype, shape and elements; NaN equals NaN, and the sign of zero is free."""
    if not (isinstance(a, Seen) and isinstance(b, Seen)) or a.dtype != b.dtype:
        return False
    return np.array_equal(a.values, b.values, equal_nan=True)


def brief(value: Any) -> str:
    """A value in a few words, for messages."""
    if isinstance(value, Seen):
        if value.values.size == 1 and value.device != "meta":
            return f"{value.dtype} {number(float(value.values.reshape(())))}"
        return f"{value.dtype}{list(value.values.shape)}"
    shape = getattr(value, "shape", None)
    return str(value) if shape is None else f"{value.dtype}{list(shape)}"
