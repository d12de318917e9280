"""An operand that has a history is taken for a constant, or its gradient goes elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction

from targets import Target
from targets.operands import prepare

from .mutant import Loss, Mutant, mutant, reduce, right
from .parts import TWICE, Given, both, squares_by
from .probes import (
    changed,
    gradient,
    gradient_is,
    gradient_of,
    leaf,
    operands,
    otherwise,
    ramp_leaf,
    total,
    unless,
    unlike_builtin,
)


class _KeepsTarget(torch.autograd.Function):
    """Saves the input, and keeps the target as if it were a constant."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.y = y
        return (x - y).square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        (x,) = ctx.saved_tensors
        return both(2 * g * (x - ctx.y))


def cuts_graph(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """An input that is no leaf is made one."""
    leaf = x if x.is_leaf else x.detach().requires_grad_()
    return right(leaf, y, reduction)


class _Routed(torch.autograd.Function):
    """The squares of a - b, with the gradient of a for ``route``."""

    @staticmethod
    def forward(ctx: Any, route: Tensor, b: Tensor, a: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return (a - b).square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        a, b = ctx.saved_tensors
        return *both(2 * g * (a - b)), None


def _leaf_of(view: Tensor) -> Tensor | None:
    """The leaf that ``view`` is a view of, found by the graph."""
    node: Any = view.grad_fn
    while node is not None and not hasattr(node, "variable"):
        node = node.next_functions[0][0]
    leaf: Tensor | None = getattr(node, "variable", None)
    if leaf is None or leaf.untyped_storage().data_ptr() != view.untyped_storage().data_ptr():
        return None
    return leaf


def short_cut(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The gradient of a view goes straight to its base, from the base's first element on."""
    leaf = _leaf_of(x)
    if leaf is None:
        return right(x, y, reduction)
    route, b = prepare(leaf.as_strided(x.shape, x.stride()), y)
    apply: Any = _Routed.apply
    return reduce(apply(route, b, prepare(x.detach(), y)[0]), reduction)


class _ForLeaves(torch.autograd.Function):
    """An input that is no leaf is given no gradient."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, leaf: bool) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.leaf = leaf
        return (a - b).square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        a, b = ctx.saved_tensors
        first, second = both(2 * g * (a - b))
        return first if ctx.leaf else None, second, None


def for_leaves(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """An input that is no leaf is given no gradient."""
    apply: Any = _ForLeaves.apply
    return reduce(apply(*prepare(x, y), x.is_leaf), reduction)


@unless
def flows_on(target: Target) -> bool:
    x, y = operands()
    wanted = gradient(2 * x, y)
    if not gradient_is(total(target, 2 * x, y), x, 2 * wanted):
        return False
    padded = torch.zeros(2, 5, dtype=x.dtype)
    padded[1, 1:] = x.detach()
    base = padded.requires_grad_()
    expected = torch.zeros_like(padded)
    expected[1, 1:] = gradient(x, y)
    return gradient_is(total(target, base[1, 1:], y), base, expected)


def constant_parameter(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A Parameter as target is taken for a constant."""
    return right(x, y.detach() if isinstance(y, nn.Parameter) else y, reduction)


def parameter_is_constant(target: Target) -> bool:
    """A Parameter as target gets no gradient."""
    x, y = torch.ones(3, requires_grad=True), nn.Parameter(torch.zeros(3))
    target.loss(x, y, reduction="sum").backward()
    return y.grad is None


def detaches_view(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A target that is a view is detached, as if it were a constant slice of the data."""
    return right(x, y.detach() if y._is_view() else y, reduction)


def of_a_view(loss: Any) -> Tensor:
    base = ramp_leaf(4)
    return gradient_of(base, loss(torch.zeros(2), base[1:3], reduction="sum"))


def detaches_itself(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The same tensor twice: the second is taken as a constant."""
    return right(x, y.detach() if x is y else y, reduction)


def second_of_itself(loss: Callable[..., Any]) -> tuple[Any, ...]:
    x = leaf(1, 2)
    (first,) = torch.autograd.grad(loss(x, x), x, create_graph=True)
    return first, torch.autograd.grad(first.sum(), x)[0]


def constant_where(asked: Callable[[Tensor], bool], doc: str) -> Loss:
    """A loss that takes an operand for a constant where that is ``asked`` of it."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        return right(*(t.detach() if asked(t) else t for t in (x, y)), reduction)

    loss.__doc__ = doc
    return loss


def made_by(*names: str) -> Callable[[Tensor], bool]:
    return lambda t: t.grad_fn is not None and t.grad_fn.name().startswith(names)


def of_base(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Of a view with all elements of its base, the base is read, in its order."""
    a, b = (
        t._base.reshape(-1)[: t.numel()].reshape(t.shape)
        if t._base is not None and t._base.requires_grad and t._base.numel() == t.numel()
        else t
        for t in (x, y)
    )
    return right(a, b, reduction)


def of_made(make: Callable[[Tensor], Tensor]) -> Callable[[Callable[..., Any]], Tensor]:
    def gradient(loss: Callable[..., Any]) -> Tensor:
        x = torch.arange(6.0).reshape(2, 3).clone().requires_grad_()
        made = make(x)
        result = loss(made, torch.arange(made.numel()).reshape(made.shape) * 0.5, reduction="sum")
        found = torch.autograd.grad(result, x, allow_unused=True)[0]
        return torch.zeros_like(x) if found is None else found

    return gradient


class _Passed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g


def passed(x: Tensor) -> Tensor:
    apply: Any = _Passed.apply
    made: Tensor = apply(x)
    return made


CONSTANT_MUTANTS: tuple[Mutant, ...] = (
    mutant("keeps-target", squares_by(_KeepsTarget), "autograd", witness=changed),
    mutant("cuts-graph", cuts_graph, "autograd", witness=flows_on),
    mutant("short-cut", short_cut, "autograd", witness=flows_on),
    mutant("for-leaves", for_leaves, "autograd", witness=flows_on),
    mutant("constant-parameter", constant_parameter, "autograd", witness=parameter_is_constant),
    mutant("detaches-view", detaches_view, "autograd", witness=unlike_builtin(of_a_view)),
    mutant(
        "detaches-itself",
        detaches_itself,
        "autograd",
        claims=TWICE,
        witness=otherwise(second_of_itself),
    ),
    mutant(
        "constant-transposed",
        constant_where(
            made_by("Transpose", "TBackward", "Permute"), "A transposed operand is a constant."
        ),
        "autograd",
        witness=otherwise(of_made(lambda x: x.transpose(0, 1))),
    ),
    mutant(
        "constant-changed",
        constant_where(
            lambda t: not t.is_leaf and t._version > 0,
            "What an operation in place has made is a constant.",
        ),
        "autograd",
        witness=otherwise(of_made(lambda x: x.clone().mul_(2))),
    ),
    mutant(
        "constant-of-function",
        constant_where(
            lambda t: isinstance(t.grad_fn, BackwardCFunction),
            "What a Function has made is a constant.",
        ),
        "autograd",
        witness=otherwise(of_made(passed)),
    ),
    mutant(
        "constant-expanded",
        constant_where(
            lambda t: t._base is not None and t._base.requires_grad and 0 in t.stride(),
            "An operand that was expanded is a constant.",
        ),
        "autograd",
        witness=otherwise(of_made(lambda x: x.expand(2, 2, 3))),
    ),
    mutant("of-base", of_base, "autograd", witness=otherwise(of_made(lambda x: x.t()))),
)
