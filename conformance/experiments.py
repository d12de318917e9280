"""Clauses that need several calls, or calls that must fail: small experiments of their own.

Each is a function of a :class:`Bench` that yields a message for every deviation it meets. Adding
one is one function with the decorator's clause id.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from conformance.case import Case, Fill, Operand
from conformance.checks import number
from conformance.clauses import BY_ID
from conformance.observation import call, text_of
from conformance.oracle import permitted_value
from conformance.plans import derive, plain, with_shapes
from conformance.state import Settings, fresh_randomness, world, world_changes
from conformance.tensors import DTYPE_NAMES, make, to_numpy
from targets import Target

Messages = Iterator[str]


@dataclass(frozen=True)
class Bench:
    """What an experiment works with: one target, one dtype, one device, one seed."""

    target: Target
    dtype: str
    device: str
    seed: int

    def tensor(self, shape: tuple[int, ...], index: int, dtype: str | None = None) -> torch.Tensor:
        """The ``index``-th random tensor of this experiment."""
        fill = Fill("ordinary", derive(self.seed, "experiment", index))
        return make(Operand(shape, dtype or self.dtype, fill=fill), self.device).tensor

    def loss(self, x: torch.Tensor, y: torch.Tensor, reduction: str) -> Any:
        return call(self.target, x, y, reduction)


EXPERIMENTS: dict[str, Callable[[Bench], Messages]] = {}


def _experiment(
    clause: str,
) -> Callable[[Callable[[Bench], Messages]], Callable[[Bench], Messages]]:
    assert clause in BY_ID, clause

    def add(function: Callable[[Bench], Messages]) -> Callable[[Bench], Messages]:
        EXPERIMENTS[clause] = function
        return function

    return add


def run_experiment(clause: str, bench: Bench) -> tuple[list[str], str | None]:
    """The deviations that the experiment of ``clause`` meets, and what it raised, as text."""
    settings, messages = Settings.now(), []
    try:
        for message in EXPERIMENTS[clause](bench):
            messages.append(message)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return messages, text_of(error)
    finally:
        settings.changes()
    return messages, None


@_experiment("broadcasting.error")
def _broadcasting_error(bench: Bench) -> Messages:
    pairs = [((3,), (4,)), ((2, 3), (3, 2)), ((6,), (2, 3)), ((2, 3), (2, 1, 2)), ((0,), (2,))]
    for (x, y), reduction in itertools.product(pairs, bench.target.reductions):
        if 0 in x and "empty" not in bench.target.claims:
            continue
        try:
            result = bench.loss(bench.tensor(x, 1), bench.tensor(y, 2), reduction)
        except Exception:
            continue
        yield f"shapes {x} and {y} ({reduction}) gave {_brief(result)} instead of an error"


@_experiment("broadcasting.warning")
def _broadcasting_warning(bench: Bench) -> Messages:
    x, y = bench.tensor((4, 3), 1), bench.tensor((3,), 2)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bench.loss(x, y, bench.target.reductions[0])
    if not any(issubclass(w.category, UserWarning) for w in caught):
        yield "sizes (4, 3) and (3,) gave no UserWarning"


@_experiment("dtypes.scalar")
def _dtypes_scalar(bench: Bench) -> Messages:
    if "float32" not in bench.target.dtypes:
        return
    for x, y in (((), (3,)), ((3,), ())):
        kinds = ("float64", "float32") if x == () else ("float32", "float64")
        a, b = bench.tensor(x, 1, kinds[0]), bench.tensor(y, 2, kinds[1])
        result = bench.loss(a, b, bench.target.reductions[0])
        if getattr(result, "dtype", None) != torch.float64:
            yield f"{kinds[0]}{list(x)} with {kinds[1]}{list(y)} gave {_brief(result)}, not float64"


@_experiment("dtypes.unsupported")
def _dtypes_unsupported(bench: Bench) -> Messages:
    """Pairs that the builtin refuses: raise, or be exactly right in a dtype that can hold it."""
    kinds = [torch.int64, torch.int32, torch.uint8, torch.bool, torch.complex64]
    a, b = [1, 0, 1, 1], [0, 1, 1, 3]
    for kind, reduction in itertools.product(kinds, bench.target.reductions):
        x = torch.tensor(a, device=bench.device).to(kind)
        y = torch.tensor(b, device=bench.device).to(kind)
        if kind.is_complex:
            x = x * 1j
        try:
            result = bench.loss(x, y, reduction)
        except Exception:
            continue
        exact = (np.asarray(x.cpu().numpy()) * 1.0 - y.cpu().numpy()) ** 2
        wanted = {"none": exact, "sum": exact.sum(), "mean": exact.mean()}[reduction]
        if not isinstance(result, torch.Tensor) or not np.array_equal(result.cpu().numpy(), wanted):
            yield f"two {kind} operands ({reduction}) gave {_brief(result)}: wrong, and no error"


@_experiment("purity.repeat")
def _purity_repeat(bench: Bench) -> Messages:
    """Same tensors with new contents, in turn with other reductions: a cache would show."""
    for reduction in bench.target.reductions:
        x, y = bench.tensor((6,), 1), bench.tensor((6,), 2)
        for k in range(14):
            fills = (
                Fill("ordinary", derive(bench.seed, k, 0)),
                Fill("ordinary", derive(bench.seed, k, 1)),
            )
            case = with_shapes(plain(bench.dtype, reduction), (6,), (6,))
            case = case.replace(
                input=case.input.replace(fill=fills[0]), target=case.target.replace(fill=fills[1])
            )
            with torch.no_grad():
                x.copy_(make(case.input, bench.device).tensor)
                y.copy_(make(case.target, bench.device).tensor)
            result = bench.loss(x, y, reduction)
            if not _is_permitted(case, result):
                if not k:
                    break  # wrong from the start: other clauses say so
                text = "on the same tensors with new contents"
                yield f"call {k + 1} {text} ({reduction}) gave {_brief(result)}"
                break
            other = bench.target.reductions[k % len(bench.target.reductions)]
            bench.loss(x, y, other)


@_experiment("purity.result")
def _purity_result(bench: Bench) -> Messages:
    """Results and gradients of one call, after another call on equal shapes."""
    for reduction in bench.target.reductions:
        kept: list[tuple[torch.Tensor, torch.Tensor]] = []
        for k in range(3):
            x = bench.tensor((7,), 2 * k).requires_grad_()
            y = bench.tensor((7,), 2 * k + 1).requires_grad_()
            result = bench.loss(x, y, reduction)
            ones = torch.ones_like(result)
            gradients = torch.autograd.grad(result, (x, y), ones, allow_unused=True)
            seen = [t.detach() for t in (result, *gradients) if t is not None]
            kept += [(t, t.clone()) for t in seen]
        if any(not torch.equal(now, then) for now, then in kept):
            yield f"a later call changed an earlier result or gradient ({reduction})"


@_experiment("purity.state")
def _purity_state(bench: Bench) -> Messages:
    """Random states, warning filters and well-known functions; settings are seen in every run."""
    for reduction in bench.target.reductions:
        x, y = bench.tensor((9,), 1).requires_grad_(), bench.tensor((9,), 2).requires_grad_()
        with fresh_randomness(derive(bench.seed, "state", reduction)):
            before = world()
            result = bench.loss(x, y, reduction)
            torch.autograd.grad(result, x, torch.ones_like(result))
            changed = world_changes(before)
        for name in changed:
            yield f"a call changed {name}"


def _is_permitted(case: Case, result: Any) -> bool:
    if not isinstance(result, torch.Tensor) or result.dtype not in DTYPE_NAMES:
        return False
    values = to_numpy(result)
    shape = case.shape if case.reduction == "none" else ()
    if values.shape != shape:
        return False
    return bool(permitted_value(case, DTYPE_NAMES[result.dtype]).contains(values).all())


def _brief(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return str(value) if not callable(value) else getattr(value, "__qualname__", repr(value))
    kind = str(value.dtype).removeprefix("torch.")
    if value.numel() == 1 and not value.is_complex():
        return f"{kind} {number(float(value))}"
    return f"{kind}{list(value.shape)}"
