"""What is asked of the target while a failure is explained, over the wall, and until when."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.cases.case import FLOAT_DTYPES, Case, Operand
from conformance.cases.claimed import Claimed
from conformance.cases.layouts import place
from conformance.cases.plans import derive, within
from conformance.cases.values import FORMAT_OF, INTEGER_GUARD, elements, in_buffer
from conformance.judging.evidence import BadEvidence, Evidence
from conformance.judging.findings import Finding
from conformance.judging.observer import Given, Observer
from conformance.judging.oracle import result_dtypes
from conformance.judging.seen import Observation, Seen
from reference.formats import Floats
from reference.losses import LOSSES, Formula

Indices = NDArray[np.int64]


class Untold(Exception):
    """No cause can be told: the time is over, or a call raised in the middle of a test."""


@dataclass(frozen=True)
class Laid:
    """A call like ``case`` on buffers with these numbers, in which its operands lie.

    ``g``: the buffer of ``grad_output``; without it nothing is differentiated.
    """

    case: Case
    x: Floats
    y: Floats
    g: Floats | None = None

    def operands(self) -> dict[str, tuple[Operand, Floats]]:
        found = {"input": (self.case.input, self.x)}
        if not self.case.same:
            found["target"] = self.case.target, self.y
        if self.g is not None:
            found["grad_output"] = grad_output(self.case), self.g
        return found

    def handed(self, suffix: object = "") -> dict[str, Given]:
        """The buffers, by the names of operands and a suffix."""
        return {
            f"{name}{suffix}": Given(line, operand.dtype)
            for name, (operand, line) in self.operands().items()
        }

    def told(self) -> dict[str, Any]:
        """As a protocol is told of it."""
        forms = {name: form(operand) for name, (operand, _) in self.operands().items()}
        case = self.case
        told = {"needs": case.needs, "reduction": case.reduction, "mode": case.mode}
        return told | {"forms": forms}


def as_made(case: Case) -> Laid:
    """The call that the case is."""
    g = buffer(grad_output(case)) if case.differentiated else None
    return Laid(case, buffer(case.input), buffer(case.target), g)


def buffer(operand: Operand) -> Floats:
    """An operand's buffer: its elements in its layout, with guards and gaps around them."""
    line = in_buffer(elements(operand), operand.layout)[0]
    if operand.dtype in INTEGER_GUARD:
        return np.nan_to_num(line, nan=float(INTEGER_GUARD[operand.dtype]))
    return line


def grad_output(case: Case) -> Operand:
    """Of the shape and the dtype that the result should have."""
    shape = case.shape if case.reduction == "none" else ()
    return case.grad_output.replace(shape=shape, dtype=result_dtypes(case)[0])


def form(operand: Operand) -> tuple[Any, ...]:
    """How its elements lie in its buffer: see ``observer.tensors.Placed``."""
    spot = place(operand.layout, operand.shape)
    return operand.shape, spot.strides, spot.offset, operand.layout == "contiguous"


@functools.lru_cache(maxsize=64)
def length(operand: Operand) -> int:
    """Of its buffer."""
    return place(operand.layout, operand.shape).length


@functools.lru_cache(maxsize=16)
def positions(operand: Operand) -> Indices:
    """Where in its buffer each element lies, of the operand's shape."""
    spot = place(operand.layout, operand.shape)
    return strided(operand.shape, spot.strides, spot.offset)


def strided(shape: Sequence[int], strides: Sequence[int], offset: int) -> Indices:
    index = np.full(shape, offset, np.int64)
    for k, step in enumerate(strides):
        along = [1] * len(shape)
        along[k] = -1
        index = index + step * np.arange(shape[k]).reshape(along)
    return index


@dataclass(frozen=True)
class Subject:
    """What is being explained. ``until``: by ``time.monotonic()``; nothing is asked after it.

    ``mode``: what calls are made inside, by its name in ``observer/protocols/causes.py``.
    """

    observer: Observer
    until: float
    mode: str = ""

    @property
    def target(self) -> Claimed:
        """What the target claims."""
        return self.observer.claimed

    @property
    def reductions(self) -> tuple[str, ...]:
        return self.target.reductions

    @property
    def formula(self) -> Formula:
        """What the loss of the target computes, its parameters at their defaults."""
        return LOSSES[self.target.loss_of].formula

    def allows(self, case: Case) -> bool:
        return list(within(self.target, case)) == [case]

    def dtype_of(self, finding: Finding) -> str:
        return finding.dtype if finding.dtype in FLOAT_DTYPES else self.target.dtypes[0]

    def observe(self, cases: Sequence[Case]) -> list[Observation]:
        """Run each of ``cases`` once."""
        if self.mode:
            return self.call([as_made(case) for case in cases])
        self._in_time()
        return self.observer.observe(cases)

    def call(self, calls: Sequence[Laid]) -> list[Observation]:
        """Values and gradients of calls on buffers; nothing else is seen of them."""
        handed = {
            name: given for k, one in enumerate(calls) for name, given in one.handed(k).items()
        }
        found = self.ask("laid", calls=[one.told() for one in calls], mode=self.mode, **handed)
        return [_observation(parts(one)) for one in each(found, "seen", len(calls))]

    def ask(self, protocol: str, /, **named: Any) -> Evidence:
        """What a protocol of ``observer/protocols/causes.py`` sees.

        Tensors (:class:`Given`) and settings (plain data) by the names of its parameters. Raises
        Raised where it raised.
        """
        self._in_time()
        given = {name: value for name, value in named.items() if isinstance(value, Given)}
        settings = {name: value for name, value in named.items() if name not in given}
        return self.observer.ask(f"causes.{protocol}", given, settings)

    def _in_time(self) -> None:
        if time.monotonic() > self.until:
            raise Untold


def each(evidence: Evidence, name: str, count: int) -> list[Any]:
    """What was seen of each of so many calls."""
    found = evidence.listed(name)
    if len(found) != count:
        raise BadEvidence("the observer's answer does not speak of each call once")
    return found


def parts(data: Any) -> Evidence:
    """What was seen of one call, by name."""
    if not isinstance(data, dict):
        raise BadEvidence("what the observer saw of a call has another form")
    return Evidence(data)


def _observation(seen: Evidence) -> Observation:
    """Of one call on buffers."""
    found = Observation()
    for name in ("raised", "raised_backward"):
        if name in seen:
            setattr(found, name, seen.text(name))
    if "value" in seen:
        found.requires_grad = seen.flag("requires_grad")
        if isinstance(seen["value"], Seen):
            found.value = seen["value"]
        else:
            found.rubbish = str(seen["value"])
    if "gradients" in seen:
        found.gradients = {
            name: gradient if isinstance(gradient, Seen) else None
            for name, gradient in seen.items_of("gradients").items.items()
        }
    return found


def answers(subject: Subject, calls: Sequence[Laid], aspect: str) -> list[Floats | None]:
    """The value or a gradient (``aspect``) that each call gives; None where that is no tensor.

    Raises Untold where one raises.
    """
    found: list[Floats | None] = []
    for seen in subject.call(calls):
        if seen.raised is not None or seen.raised_backward is not None:
            raise Untold
        got = seen.value if aspect == "value" else seen.gradients.get(aspect.partition(".")[2])
        found.append(None if got is None else got.values)
    return found


# --- tensors of a test's own


def eighths(n: int, salt: int) -> Floats:
    """Numbers that every dtype holds, none of them 0, and no two differences alike in sum."""
    random = np.random.Generator(np.random.PCG64(derive("cause", n, salt)))
    return np.asarray(random.integers(1, 25, n) * random.choice([-1.0, 1.0], n) / 8)


def is_near(got: Any, wanted: Floats, dtype: str) -> bool:
    """Equal but for a few roundings."""
    if not isinstance(got, Seen) or got.values.shape != np.shape(wanted):
        return False
    few = 4 * FORMAT_OF[dtype].u
    return bool(np.allclose(got.values, wanted, rtol=few, atol=few * 1e-3))
