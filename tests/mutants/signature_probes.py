"""That a mutant is wrong where it takes a weight, the deprecated form or a tensor subclass."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from conformance.observer.protocols.subclass import Container, Labelled
from targets import Target
from tests.right.signatures import OWN, PARAMETER

REDUCTIONS = ("none", "sum", "mean")
Outcome = list[Any] | None  # None: it raised


def _outcome(call: Callable[..., list[Any]], *args: Any) -> Outcome:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return call(*args)
        except (ValueError, RuntimeError, TypeError):
            return None


def _same(one: Outcome, other: Outcome) -> bool:
    if one is None or other is None:
        return one is other
    return all(_alike(a, b) for a, b in zip(one, other, strict=True))


def _alike(a: Any, b: Any) -> bool:
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return a is b or a == b
    rtol, atol = (1e-2, 1e-3) if a.dtype == torch.half else (1e-4, 1e-6)  # ℓ − L cancels
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and torch.allclose(a, b, rtol, atol, equal_nan=True)
    )


# --- weights


def _weighings() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    torch.manual_seed(5)
    x, y = torch.randn(4, 5) * 3, torch.randn(4, 5)
    w = torch.rand(4, 5) + 0.5
    yield x, y, w
    yield x, y, torch.where(w > 1, w, -w / 8)
    yield x, y, torch.where(w > 1, w, 0)
    yield x, y, (torch.rand(5, 4) + 0.5).t()
    yield x, y, w.double()
    yield x, y, (4 * w).long()
    yield x, y, w[0]
    yield x, y, w.reshape(-1)
    yield x, y[0], w
    yield x, y, 0 * w
    yield x[0], y, w[0]
    yield x[0], y, w
    yield torch.tensor([math.nan, 1, 2]), torch.zeros(3), torch.tensor([0.0, 1, 2])
    yield torch.randn(2050) * 2, torch.zeros(2050), torch.rand(2050)
    yield x.half(), y.half(), w.half()


def weighs_wrongly(target: Target) -> bool:
    """Whether a weighted call is not torch's own, coarsely, or changes the weight."""
    own = PARAMETER[target.loss_of]
    limits: tuple[float | None, ...] = (None,) if own is None else (None, 0.5)
    needing = ((True, True, True), (True, False, False), (False, False, True))
    for (x, y, w), reduction, limit, needs in itertools.product(
        _weighings(), REDUCTIONS, limits, needing
    ):
        given = {"reduction": reduction} | ({} if limit is None else {str(own): limit})
        seen = [
            _outcome(_weighted, f, x, y, w, needs, given)
            for f in (target.loss, OWN[target.loss_of])
        ]
        if x.isnan().any() or not w.any():  # of which the gradient is free
            seen = [one and one[:1] for one in seen]
        if not _same(*seen):
            return True
    return False


def _weighted(
    f: Any, x: Tensor, y: Tensor, w: Tensor, needs: tuple[bool, ...], given: dict[str, Any]
) -> list[Any]:
    """The value, what was made of the weight, and the gradients."""
    leaves = [
        t.clone(memory_format=torch.preserve_format).requires_grad_(n and t.is_floating_point())
        for t, n in zip((x, y, w), needs, strict=True)
    ]
    result = f(leaves[0], leaves[1], weight=leaves[2], **given)
    kept = leaves[2].detach().clone()
    needed = [t for t in leaves if t.requires_grad]
    if not needed:
        return [result, kept]
    g = torch.linspace(0.5, 2, max(result.numel(), 1)).to(result.dtype)[: result.numel()]
    by = torch.autograd.grad(result, needed, g.reshape(result.shape), allow_unused=True)
    return [result, kept, *by]


# --- the deprecated form

_CALLS: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...] = (
    *(
        ((), {"size_average": a, "reduce": b, "reduction": r})
        for a, b, r in itertools.product((None, True, False), (None, True, False), REDUCTIONS)
    ),
    ((), {"size_average": 0}),
    ((), {"reduce": 0}),
    *(((a,), {}) for a in (True, False)),
    *(((a, b), {}) for a, b in itertools.product((None, True, False), (True, False))),
    *(((None, None, r), {}) for r in REDUCTIONS),
)


def reads_wrongly(target: Target) -> bool:
    """Whether a call in the deprecated form is not torch's own; a text in it may raise."""
    x, y = torch.tensor([3.0, -1, 0.5, 2]), torch.tensor([1.0, 1, 1, -2])
    for positional, named in _CALLS:
        seen = [
            _outcome(_trained, f, x, y, positional, named)
            for f in (target.loss, OWN[target.loss_of])
        ]
        if not _same(*seen):
            return True
    for word in ("none", "sum"):
        got, right = (
            _outcome(lambda *args: [args[0](*args[1:])], f, x, y, word)
            for f in (target.loss, OWN[target.loss_of])
        )
        if got is not None and not _same(got, right):
            return True
    return False


def _trained(f: Any, x: Tensor, y: Tensor, positional: Any, named: Any) -> list[Any]:
    leaf = x.clone().requires_grad_()
    result = f(leaf, y, *positional, **named)
    return [result, *torch.autograd.grad(result.sum(), leaf)]


# --- tensor subclasses


def takes_apart(target: Target) -> bool:
    """Whether the loss of operands of a subclass is not as torch's own."""
    for reduction, which in itertools.product(REDUCTIONS, ("x", "y", "xy")):
        for of in (_labelled, _contained):
            seen = [_outcome(of, f, reduction, which) for f in (target.loss, OWN[target.loss_of])]
            if not _same(*seen):
                return True
    return False


def _pair() -> tuple[Tensor, Tensor]:
    return torch.tensor([3.0, -1, 0.5], requires_grad=True), torch.tensor([1.0, 1, 1])


def _labelled(f: Any, reduction: str, which: str) -> list[Any]:
    a, b = (
        t.detach().as_subclass(Labelled).requires_grad_(t.requires_grad) if n in which else t
        for n, t in zip("xy", _pair(), strict=True)
    )
    result = f(a, b, reduction=reduction)
    (by,) = torch.autograd.grad(result.as_subclass(Tensor).sum(), a)
    return [result.as_subclass(Tensor), isinstance(result, Labelled), by.as_subclass(Tensor)]


def _contained(f: Any, reduction: str, which: str) -> list[Any]:
    x, y = _pair()
    a, b = (Container.of(t) if n in which else t for n, t in (("x", x), ("y", y)))
    result = f(a, b, reduction=reduction)
    elements = result.__dict__["elements"] if isinstance(result, Container) else result
    return [elements, *torch.autograd.grad(elements.sum(), x)]
