"""Right in a plain call, and wrong in what else autograd does with a graph."""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
import torch.autograd.forward_ad as fwad
from torch import Tensor

from targets import Target
from targets.operands import check_reduction, prepare

from .mutant import (
    EAGER,
    Loss,
    Mutant,
    Witness,
    by_rule,
    elementwise,
    mutant,
    reduce,
    right,
    right_rule,
)

Given = tuple[Tensor | None, ...]  # by a backward
TWICE = EAGER | {"double_backward"}
FORWARD = EAGER | {"forward_ad"}


def squares_by(function: Any) -> Loss:
    """A loss whose squares are those of a Function of two operands."""
    return elementwise(function.apply, function.__doc__)


def fused_by(function: Any, *options: Any, doc: str | None = None) -> Loss:
    """A loss that is one Function of two operands, the reduction and options."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        result: Tensor = function.apply(*prepare(x, y), check_reduction(reduction), *options)
        return result

    loss.__doc__ = doc or function.__doc__
    return loss


def scale_of(x: Tensor, reduction: str) -> float:
    return 2 / max(x.numel(), 1) if reduction == "mean" else 2.0


def both(gradient: Tensor) -> tuple[Tensor, Tensor]:
    return gradient, -gradient


# --- witnesses: the sum of the squares, whose gradient is 2·d


def unless(right: Callable[[Target], bool]) -> Witness:
    """A witness of what is not ``right``, or raises."""

    @functools.wraps(right)
    def wrong(target: Target) -> bool:
        try:
            return not right(target)
        except Exception:
            return True

    return wrong


def operands(first: int = 0) -> tuple[Tensor, Tensor]:
    """Leaves; their first elements are equal."""
    x, y = torch.tensor([[3.0, 1.0, -2.0, 0.5], [3.0, -1.0, 4.0, 2.5]], dtype=torch.float64)
    return (x + first).requires_grad_(), (y - first).requires_grad_()


def total(target: Target, x: Tensor, y: Tensor) -> Tensor:
    result: Tensor = target.loss(x, y, reduction="sum")
    return result


def gradient(x: Tensor, y: Tensor) -> Tensor:
    return 2 * (x - y).detach()


def gradient_is(result: Tensor, leaf: Tensor, wanted: Tensor) -> bool:
    return torch.allclose(torch.autograd.grad(result, leaf)[0], wanted)


# --- what backward() adds to


class _AddsGrad(torch.autograd.Function):
    """Its backward returns the new .grad of a leaf, as if the engine did not add."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(a, b, x)
        return (a - b).square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        a, b, x = ctx.saved_tensors
        first, second = both(2 * g * (a - b))
        grad = x.grad if x.is_leaf else None
        if first is not None and grad is not None and grad.shape == first.shape:
            first = first + grad
        return first, second, None


def adds_grad(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Its backward returns the new .grad of a leaf, as if the engine did not add."""
    apply: Any = _AddsGrad.apply
    return reduce(apply(*prepare(x, y), x), reduction)


def averages_grad(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A hook on the leaf makes its .grad the average of two backward passes."""
    result = right(x, y, reduction)
    if result.requires_grad and x.requires_grad and x.is_leaf and x.grad is not None:

        def average(leaf: Tensor) -> None:
            if leaf.grad is not None:
                leaf.grad /= 2

        after: Any = x.register_post_accumulate_grad_hook  # untyped in torch
        after(average)
    return result


@unless
def accumulates(target: Target) -> bool:
    x, y = operands()
    x.grad = torch.ones_like(x)
    result: Any = total(target, x, y)  # backward is untyped in torch
    result.backward()
    return torch.allclose(x.grad, 1 + gradient(x, y))


# --- a graph that is walked twice


class _ScalesInPlace(torch.autograd.Function):
    """Multiplies what it kept in place: right only once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        d = x - y
        ctx.d = d
        return d.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        return both(ctx.d.mul_(2 * g))


class _FreesItself(_ScalesInPlace):
    """Drops what it kept after the first backward, retained or not."""

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        d, ctx.d = ctx.d, None
        return both(2 * g * d)


class _AddsToBuffer(torch.autograd.Function):
    """Backward adds to a buffer that forward has filled with zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.buffer = torch.zeros_like(x, memory_format=torch.contiguous_format)
        return (x - y).square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        return both(ctx.buffer.add_(2 * g * (x - y)))


@unless
def retains(target: Target) -> bool:
    x, y = operands()
    result = total(target, x, y)
    torch.autograd.grad(result, x, retain_graph=True)
    return gradient_is(result, x, gradient(x, y))


# --- operands that change before backward


class _KeepsOperands(torch.autograd.Function):
    """Keeps its operands as attributes, past autograd's check of versions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.x, ctx.y = x, y
        return (x - y).square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        return both(2 * g * (ctx.x - ctx.y))


class _SavesData(torch.autograd.Function):
    """Saves .data of its operands, which counts versions apart."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x.data, y.data)
        return (x - y).square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        return both(2 * g * (x - y))


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


def survives_change(target: Target) -> bool:
    """Whether backward raises or is right after an operand has changed."""
    for changed in (0, 1):
        x, y = operands()
        copies = x.clone(), y.clone()
        result = total(target, *copies)
        with torch.no_grad():
            copies[changed].mul_(3)
        try:
            got = torch.autograd.grad(result, x)[0]
        except RuntimeError:
            continue
        if not torch.allclose(got, gradient(x, y)):
            return False
    return True


# --- hooks


class _Baked(torch.autograd.Function):
    """A value with gradients that are known already."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, value: Tensor, first: Tensor | None, second: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(first, second)
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        first, second = (None if known is None else g * known for known in ctx.saved_tensors)
        return first, second, None, None, None


def grad_in_forward(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Calls autograd.grad on the caller's tensors in forward, and with it their hooks."""
    honest = right(x, y, reduction)
    if not honest.requires_grad or (x.shape, x.dtype) != (y.shape, y.dtype):
        return honest
    needing = [t for t in (x, y) if t.requires_grad]
    known = iter(torch.autograd.grad(honest, needing, torch.ones_like(honest)))
    first, second = (next(known) if t.requires_grad else None for t in (x, y))
    apply: Any = _Baked.apply
    result: Tensor = apply(x, y, honest.detach(), first, second)
    return result


class _Heard(torch.autograd.Function):
    """Takes for grad_output what was heard last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str, heard: deque[Tensor]) -> Tensor:
        ctx.save_for_backward(x - y)
        ctx.scale, ctx.heard = scale_of(x, reduction), heard
        return reduce((x - y).square(), reduction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        (d,) = ctx.saved_tensors
        return *both(right_rule(d, ctx.heard[-1], ctx.scale)), None, None


def hears_first(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Has grad_output from a hook of its own on the result, which runs before the caller's."""
    heard: deque[Tensor] = deque(maxlen=1)
    result = fused_by(_Heard, heard)(x, y, reduction)
    if result.requires_grad:
        hear: Any = result.register_hook  # untyped in torch
        hear(heard.append)
    return result


@unless
def honours_hooks(target: Target) -> bool:
    x, y = operands()
    a = x.clone()
    seen: list[Tensor] = []
    hook: Any = a.register_hook
    hook(seen.append)
    result = total(target, a, y)
    hook = result.register_hook
    hook(lambda g: 3 * g)
    wanted = 3 * gradient(x, y)
    return gradient_is(result, x, wanted) and len(seen) == 1 and torch.allclose(seen[0], wanted)


# --- operands that are no leaves


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


# --- several graphs at once; a thread has its own state, so that only order matters

_LAST = threading.local()


class _OnClass(torch.autograd.Function):
    """What backward needs is kept on the class: the last call's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        d = x - y
        if any(ctx.needs_input_grad):
            _LAST.d = d
        return d.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        return both(2 * g * _LAST.d)


class _OnStack(torch.autograd.Function):
    """What backward needs is the top of a stack: right in the reverse order of forward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        d = x - y
        if any(ctx.needs_input_grad):
            if not hasattr(_LAST, "stack"):
                _LAST.stack = deque(maxlen=4)
            _LAST.stack.append(d)
        return d.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        return both(2 * g * _LAST.stack.pop())


class _InWorkspace(torch.autograd.Function):
    """Every call writes d into the same memory, and saves a view of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        d = x - y
        if torch.is_inference_mode_enabled():
            return d.square()
        space = getattr(_LAST, "space", None)
        if space is None or space.numel() < d.numel() or space.dtype != d.dtype:
            space = _LAST.space = torch.empty(d.numel(), dtype=d.dtype, device=d.device)
        kept = space[: d.numel()].view(d.shape).copy_(d)
        ctx.save_for_backward(kept.data)
        return d.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        (d,) = ctx.saved_tensors
        return both(2 * g * d)


@unless
def tells_graphs_apart(target: Target) -> bool:
    pairs = [operands(k) for k in range(2)]
    results = [total(target, *pair) for pair in pairs]
    return all(
        gradient_is(result, pair[0], gradient(*pair))
        for result, pair in zip(results, pairs, strict=True)
    )


# --- anomaly mode


class _Direction(torch.autograd.Function):
    """d² with its derivative as 2·|d| times d / |d|, NaN where d is 0, and as 2·d."""

    @staticmethod
    def forward(ctx: Any, d: Tensor, same: Tensor) -> Tensor:
        ctx.save_for_backward(d)
        return d.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        (d,) = ctx.saved_tensors
        size = d.abs()
        sign = d / size.clamp(max=torch.finfo(d.dtype).max)
        return 2 * g * size * sign, 2 * g * d


class _Choice(torch.autograd.Function):
    """d twice: where it is 0 the second one's gradient counts, and elsewhere the first one's."""

    @staticmethod
    def forward(ctx: Any, d: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(d)
        return d.clone(), d.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        (d,) = ctx.saved_tensors
        return torch.where(d == 0, second, first)


def masks_later(a: Tensor, b: Tensor) -> Tensor:
    """The gradient is NaN where the operands are equal, until another node masks it."""
    choice: Any = _Choice.apply
    direction: Any = _Direction.apply
    result: Tensor = direction(*choice(a - b))
    return result


class _Weighted(torch.autograd.Function):
    """A weight that needs no gradient is given one, NaN where the operands are equal."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return (x - y).square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        d = x - y
        return *both(2 * g * d), g * d / d.abs()


def needless_nan(a: Tensor, b: Tensor) -> Tensor:
    """A weight that needs no gradient is given one, NaN where the operands are equal."""
    apply: Any = _Weighted.apply
    result: Tensor = apply(a, b, torch.ones_like(a))
    return result


def debugging(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """In anomaly mode the gradient has a formula of its own, without the factor 2."""
    return right_rule(d, g, scale / 2 if torch.is_anomaly_enabled() else scale)


@unless
def stands_anomaly_mode(target: Target) -> bool:
    x, y = operands()
    with torch.autograd.detect_anomaly():
        return gradient_is(total(target, x, y), x, gradient(x, y))


# --- second derivatives


class _SavesDifference(torch.autograd.Function):
    """Saves d, a constant in the second derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        d = x - y
        ctx.save_for_backward(d)
        return d.square()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        (d,) = ctx.saved_tensors
        return both(2 * g * d)


class _Saving(torch.autograd.Function):
    """The squares; saves both operands."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return (x - y).square()


class _NoGrad(_Saving):
    """Computes the gradient without a graph."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        with torch.no_grad():
            return both(2 * g * (x - y))


class _ConstantGradOutput(_Saving):
    """Detaches grad_output."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        return both(2 * g.detach() * (x - y))


class _Magnitude(_Saving):
    """The gradient as sign(d)·|d|, whose own derivative is 0 where d is 0."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        d = x - y
        return both(2 * g * torch.copysign(d.abs(), d.detach()))


class _ComputedGradOutput(torch.autograd.Function):
    """Detaches a grad_output that is no leaf."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.scale = scale_of(x, reduction)
        return reduce((x - y).square(), reduction)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        return *both(right_rule(x - y, g if g.is_leaf else g.detach(), ctx.scale)), None


def leaves_twice(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Second derivatives for leaves alone: of other inputs d is saved."""
    squares: Any = _SavesDifference.apply
    if x.is_leaf:
        return right(x, y, reduction)
    return reduce(squares(*prepare(x, y)), reduction)


# Of w (the cotangent of the gradient), d, grad_output and 2/n (or 2): what the derivatives of the
# gradient by input, target and grad_output are along w.
Second = Callable[[Tensor, Tensor, Tensor, float], Given]


class _Gradient(torch.autograd.Function):
    """The gradient, whose derivatives are by hand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, g: Tensor, scale: float, second: Second) -> Tensor:
        ctx.save_for_backward(x, y, g)
        ctx.scale, ctx.second = scale, second
        return right_rule(x - y, g, scale)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, w: Tensor) -> Given:
        x, y, g = ctx.saved_tensors
        return *ctx.second(w, x - y, g, ctx.scale), None, None


class _ByHand(torch.autograd.Function):
    """Backward is a Function of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str, second: Second) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.scale, ctx.second = scale_of(x, reduction), second
        return reduce((x - y).square(), reduction)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        apply: Any = _Gradient.apply
        return *both(apply(*ctx.saved_tensors, g, ctx.scale, ctx.second)), None, None


def right_second(w: Tensor, d: Tensor, g: Tensor, scale: float) -> Given:
    return *both(right_rule(w, g, scale)), (scale * d * w).sum_to_size(g.shape)


def unscaled_second(w: Tensor, d: Tensor, g: Tensor, scale: float) -> Given:
    """No 2/n in the second derivative."""
    return *both(w * g), right_second(w, d, g, scale)[2]


def second_sign(w: Tensor, d: Tensor, g: Tensor, scale: float) -> Given:
    """The second derivative by target has input's sign."""
    first, _, third = right_second(w, d, g, scale)
    return first, first, third


def no_second_target(w: Tensor, d: Tensor, g: Tensor, scale: float) -> Given:
    """No second derivative by target."""
    first, _, third = right_second(w, d, g, scale)
    return first, None, third


def second_of_one(w: Tensor, d: Tensor, g: Tensor, scale: float) -> Given:
    """The second derivative takes grad_output to be 1."""
    _, _, third = right_second(w, d, g, scale)
    return *both(right_rule(w, torch.ones_like(g), scale)), third


def forgets_cotangent(w: Tensor, d: Tensor, g: Tensor, scale: float) -> Given:
    """The derivative by grad_output is the gradient, not its product with the cotangent."""
    return *right_second(w, d, g, scale)[:2], (scale * d).sum_to_size(g.shape)


def unscaled_third(w: Tensor, d: Tensor, g: Tensor, scale: float) -> Given:
    """No 2/n in the derivative by grad_output."""
    return *right_second(w, d, g, scale)[:2], (d * w).sum_to_size(g.shape)


def by_hand(second: Second) -> Loss:
    return fused_by(_ByHand, second, doc=second.__doc__)


def _second(target: Target, k: int, wanted: Callable[[Tensor, Tensor], Tensor]) -> bool:
    """Whether the derivative of x's gradient times ``w``, by x, y or g, is as ``wanted``."""
    x, y = operands()
    g = torch.tensor(3.0, dtype=x.dtype, requires_grad=True)
    w = torch.tensor([1.0, 2.0, -3.0, 0.5], dtype=x.dtype)
    (first,) = torch.autograd.grad(total(target, x, y), x, g, create_graph=True)
    (got,) = torch.autograd.grad(first, (x, y, g)[k], w)
    return torch.allclose(got, wanted(w, gradient(x, y)))


@unless
def has_second(target: Target) -> bool:
    return _second(target, 0, lambda w, _: 6 * w) and _second(target, 1, lambda w, _: -6 * w)


@unless
def has_derivative_by_g(target: Target) -> bool:
    return _second(target, 2, lambda w, first: (w * first).sum())


@unless
def composes(target: Target) -> bool:
    """The Hessian of L² and of L(x², y), with a right one of L itself, by finite differences."""
    x, y = operands()

    def of_squares(x: Tensor) -> Tensor:
        return total(target, x.square(), y.detach()).square()

    return torch.autograd.gradgradcheck(of_squares, x, raise_exception=False)


# --- forward mode

Tangent = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class _Forward(torch.autograd.Function):
    """Squares whose tangent is by hand, of the operands and theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, tangent: Tangent) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.save_for_forward(x, y)
        ctx.tangent = tangent
        return (x - y).square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        return *both(2 * g * (x - y)), None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, dy: Tensor, _: None) -> Tensor:
        tangent: Tensor = ctx.tangent(*ctx.saved_tensors, dx, dy)
        return tangent


def no_target_tangent(x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """The tangent ignores target's."""
    return 2 * (x - y) * dx


def tangent_without_two(x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """The tangent has no factor 2."""
    return (x - y) * (dx - dy)


def tangent_sign(x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """The tangent adds target's."""
    return 2 * (x - y) * (dx + dy)


def tangent_of_primal(x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """The tangent reads the input where its tangent is meant."""
    return 2 * (x - y) * (x - dy)


def by_tangent(tangent: Tangent) -> Loss:
    def squares(a: Tensor, b: Tensor) -> Tensor:
        apply: Any = _Forward.apply
        result: Tensor = apply(a, b, tangent)
        return result

    return elementwise(squares, tangent.__doc__)


class _SumTangent(torch.autograd.Function):
    """The tangent of the mean is the sum's: no 1/n."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        ctx.save_for_backward(x - y)
        ctx.save_for_forward(x - y)
        ctx.reduction, ctx.scale = reduction, scale_of(x, reduction)
        return reduce((x - y).square(), reduction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        (d,) = ctx.saved_tensors
        return *both(right_rule(d, g, ctx.scale)), None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, dy: Tensor, _: None) -> Tensor:
        (d,) = ctx.saved_tensors
        elements: Tensor = 2 * d * (dx - dy)
        return elements if ctx.reduction == "none" else elements.sum()


@unless
def has_tangent(target: Target) -> bool:
    x, y = (t.detach() for t in operands())
    forward: Any = fwad  # untyped in torch
    with forward.dual_level():
        dx, dy = torch.arange(1.0, 5.0, dtype=x.dtype), torch.ones_like(y)
        result = target.loss(forward.make_dual(x, dx), forward.make_dual(y, dy), reduction="mean")
        got: Tensor = forward.unpack_dual(result).tangent
    return torch.allclose(got, (gradient(x, y) * (dx - dy)).mean())


def of_no_layer(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Wrong for what a linear layer gives: its backward is fused with that of the layer."""
    result = right(x, y, reduction)
    return result * 1.5 if "Addmm" in type(x.grad_fn).__name__ else result


@unless
def takes_layers(target: Target) -> bool:
    x = torch.nn.Linear(4, 4)(torch.ones(3, 4))
    y = torch.zeros(3, 4)
    return torch.allclose(target.loss(x, y, reduction="sum"), x.square().sum())


def _changed(target: Target) -> bool:
    return not survives_change(target)


AUTOGRAD_MUTANTS: tuple[Mutant, ...] = tuple(
    mutant(name, loss, "autograd", claims=claims, witness=witness)
    for witness, claims, named in (
        (takes_layers, EAGER, {"of-linear-layers": of_no_layer}),
        (accumulates, EAGER, {"adds-grad": adds_grad, "averages-grad": averages_grad}),
        (
            retains,
            EAGER,
            {
                "scales-in-place": squares_by(_ScalesInPlace),
                "frees-itself": squares_by(_FreesItself),
                "adds-to-buffer": squares_by(_AddsToBuffer),
            },
        ),
        (
            _changed,
            EAGER,
            {
                "keeps-operands": squares_by(_KeepsOperands),
                "saves-data": squares_by(_SavesData),
                "keeps-target": squares_by(_KeepsTarget),
            },
        ),
        (honours_hooks, EAGER, {"grad-in-forward": grad_in_forward, "hears-first": hears_first}),
        (
            flows_on,
            EAGER,
            {"cuts-graph": cuts_graph, "short-cut": short_cut, "for-leaves": for_leaves},
        ),
        (
            tells_graphs_apart,
            EAGER,
            {
                "on-class": squares_by(_OnClass),
                "on-stack": squares_by(_OnStack),
                "in-workspace": squares_by(_InWorkspace),
            },
        ),
        (
            stands_anomaly_mode,
            EAGER,
            {
                "masks-later": elementwise(masks_later),
                "needless-nan": elementwise(needless_nan),
                "debugging": by_rule(debugging),
            },
        ),
        (
            has_second,
            TWICE,
            {
                "keeps-difference": squares_by(_SavesDifference),
                "no-graph": squares_by(_NoGrad),
                "magnitude": squares_by(_Magnitude),
                "unscaled-second": by_hand(unscaled_second),
                "second-sign": by_hand(second_sign),
                "no-second-target": by_hand(no_second_target),
                "second-of-one": by_hand(second_of_one),
            },
        ),
        (
            has_derivative_by_g,
            TWICE,
            {
                "constant-grad-output": squares_by(_ConstantGradOutput),
                "forgets-cotangent": by_hand(forgets_cotangent),
                "unscaled-third": by_hand(unscaled_third),
            },
        ),
        (
            composes,
            TWICE,
            {
                "computed-grad-output": fused_by(_ComputedGradOutput),
                "leaves-twice": leaves_twice,
            },
        ),
        (
            has_tangent,
            FORWARD,
            {
                "no-target-tangent": by_tangent(no_target_tangent),
                "tangent-without-two": by_tangent(tangent_without_two),
                "tangent-sign": by_tangent(tangent_sign),
                "tangent-of-primal": by_tangent(tangent_of_primal),
                "sum-tangent": fused_by(_SumTangent),
            },
        ),
    )
    for name, loss in named.items()
)
