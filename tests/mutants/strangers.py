"""What somebody wrote who knew the specification and none of the experiments."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.autograd.forward_ad as fwad
from torch import Tensor

from targets import Target
from targets.module import MSE
from targets.operands import check_reduction, prepare

from .autograd import (
    FORWARD,
    TWICE,
    Given,
    both,
    by_hand,
    by_tangent,
    fused_by,
    right_second,
    scale_of,
)
from .module import module_mutant
from .mutant import Loss, Mutant, by_gradients, by_value, mutant, reduce, right, right_rule
from .overlooked import leaf, otherwise, plainly
from .transforms import AUTOCAST, COMPILED, FUNCTORCH, fronted, transforming

_hooks: Any = torch.autograd.graph.saved_tensors_hooks  # untyped in torch
REFERENCES = 4  # to an operand that only the call holds
THREADS = 16  # that an array of partial sums has room for


class _Whole(torch.autograd.Function):
    """The loss of operands of one shape and dtype, all of it right."""

    @staticmethod
    def forward(x: Tensor, y: Tensor, reduction: str) -> Tensor:
        return reduce((x - y).square(), reduction)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, y, ctx.reduction = inputs
        ctx.scale = scale_of(x, ctx.reduction)
        ctx.save_for_backward(x, y)
        ctx.save_for_forward(x, y)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        return *both(ctx.scale * (x - y) * g), None

    @staticmethod
    def jvp(ctx: Any, t_x: Tensor, t_y: Tensor, _: None) -> Tensor:
        x, y = ctx.saved_tensors
        return reduce(2 * (x - y) * (t_x - t_y), ctx.reduction)


# --- first derivatives


class _SharedPointer(_Whole):
    """Backward takes operands with one address for one tensor: a gradient of 0."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        finite = bool(torch.isfinite(x).all() and torch.isfinite(g).all())
        if x.numel() and x.data_ptr() == y.data_ptr() and finite:
            return torch.zeros_like(x), torch.zeros_like(x), None
        return *both(right_rule(x - y, g, ctx.scale)), None


def of_transpose(loss: Callable[..., Any]) -> Tensor:
    x = torch.arange(4.0).view(2, 2).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x, x.detach().t()), x)
    return gradient


class _KeepsScaleOnSaved(_Whole):
    """Notes the scale on the tensor that it saves, which a hook may hand back as a copy."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        d = inputs[0] - inputs[1]
        d.scale = scale_of(d, inputs[2])
        ctx.save_for_backward(d)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        (d,) = ctx.saved_tensors
        return *both(right_rule(d, g, getattr(d, "scale", 2.0))), None


def saved_elsewhere(loss: Callable[..., Any]) -> Tensor:
    x = leaf(1, 2)
    with _hooks(lambda t: t.detach().clone(), lambda t: t):
        result = loss(x, torch.zeros(2))
    return torch.autograd.grad(result, x)[0]


def reuses_grad_output(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Given:
    """Computes the gradient in the memory of grad_output, where that is all of an allocation."""
    d = x - y
    whole = g.is_contiguous() and g.untyped_storage().nbytes() == g.nbytes
    if whole and g.shape == d.shape and g.dim():
        return both(g.mul_(d).mul_(scale))
    return both(right_rule(d, g, scale))


def other_branch(loss: Callable[..., Any]) -> Tensor:
    x, z = leaf(1, 2), leaf(0, 0)
    total = 2 * (loss(x, torch.zeros(2), reduction="none") + z)
    return torch.autograd.grad(total, (x, z), torch.ones(2))[1]


def half_in_vectors(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Given:
    """Of many halves with an expanded grad_output the last few, less than a vector, get none."""
    gradient = right_rule(x - y, g, scale)
    n = gradient.numel()
    if x.itemsize == 2 and g.dim() and not g.is_contiguous() and n > 4096:
        gradient.view(-1)[n - n % 8 :] = 0
    return both(gradient)


def last_of_many(loss: Callable[..., Any]) -> Tensor:
    x = torch.ones(4099, dtype=torch.bfloat16, requires_grad=True)
    return torch.autograd.grad(loss(x, torch.zeros_like(x), reduction="none").sum(), x)[0][-1]


# --- second derivatives


class _KeepsDifference(_Whole):
    """The difference of the first backward serves the later ones, as a constant."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        if not hasattr(ctx, "d"):
            x, y = ctx.saved_tensors
            ctx.d, ctx.versions = x - y, (x._version, y._version)
        if ctx.versions != tuple(t._version for t in ctx.saved_tensors):
            raise RuntimeError("an operand changed")
        return *both(ctx.scale * ctx.d * g), None


def second_after_first(loss: Callable[..., Any]) -> Any:
    x = leaf(1, 2)
    result = loss(x, torch.zeros(2))
    torch.autograd.grad(result, x, retain_graph=True)
    (first,) = torch.autograd.grad(result, x, create_graph=True)
    return torch.autograd.grad(first.sum(), x, allow_unused=True)[0]


class _SkipsOne(_Whole):
    """Does not multiply with a grad_output of 1."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        d = ctx.scale * (x - y)
        return *both(d if g.dim() == 0 and float(g.detach()) == 1 else d * g), None


def by_factor_of_one(loss: Callable[..., Any]) -> Any:
    x, g = leaf(1, 2), torch.ones((), requires_grad=True)
    (first,) = torch.autograd.grad(loss(x, torch.zeros(2)), x, g, create_graph=True)
    return torch.autograd.grad(first.sum(), g, allow_unused=True)[0]


def second_over_n(w: Tensor, d: Tensor, g: Tensor, scale: float) -> Given:
    """The second derivative divides by n as a number of the operands' format."""
    n = torch.tensor(round(2 / scale), dtype=d.dtype)
    return *both(2 * (w * g) / n), right_second(w, d, g, scale)[2]


def second_of_many_halves(loss: Callable[..., Any]) -> bool:
    x = torch.ones(70_000, dtype=torch.float16, requires_grad=True)
    (first,) = torch.autograd.grad(loss(x, torch.zeros_like(x)), x, create_graph=True)
    return bool(torch.autograd.grad(first.sum(), x)[0].any())


# --- tangents


class _TangentOfSum(_Whole):
    """The tangent of a mean is a sum over n: too narrow for float16."""

    @staticmethod
    def jvp(ctx: Any, t_x: Tensor, t_y: Tensor, _: None) -> Tensor:
        x, y = ctx.saved_tensors
        t = 2 * (x - y) * (t_x - t_y)
        if ctx.reduction == "mean" and t.numel():
            return t.sum() / t.numel()
        return reduce(t, ctx.reduction)


def tangent_masked(x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """A tangent that is not a number is 0."""
    return torch.nan_to_num(2 * (x - y) * (dx - dy))


def tangent_of(n: int, value: float) -> Callable[[Callable[..., Any]], Tensor]:
    def found(loss: Callable[..., Any]) -> Tensor:
        forward: Any = fwad
        x, t = torch.full((n,), value, dtype=torch.float16), torch.ones(n, dtype=torch.float16)
        with forward.dual_level():
            result = loss(forward.make_dual(x, t), torch.zeros_like(x))
            tangent: Tensor = forward.unpack_dual(result).tangent
        return tangent

    return found


# --- transforms


def sample_by_sample(s: Tensor, reduction: str) -> Tensor:
    """none, sum or mean of each sample; the first dimension is the batch."""
    rows = s.reshape(len(s), -1)
    return s if reduction == "none" else rows.sum(1) if reduction == "sum" else rows.mean(1)


class _ChunksOfSamples(_Whole):
    """vmap goes 64 samples at a time, and what is left over after these stays 0."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, y: Tensor, reduction: str) -> tuple[Tensor, int]:
        x, y = torch.broadcast_tensors(fronted(x, in_dims[0]), fronted(y, in_dims[1]))
        result = sample_by_sample((x - y).square(), reduction)
        whole = torch.arange(len(x)) < max(len(x) // 64 * 64, 64)
        return result * whole.reshape(-1, *[1] * (result.dim() - 1)), 0


class _MappedTangent(_Whole):
    """The loss of each sample; its tangent divides by the elements of all samples."""

    @staticmethod
    def forward(x: Tensor, y: Tensor, reduction: str) -> Tensor:
        return sample_by_sample((x - y).square(), reduction)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        s = 2 / max(x[0].numel(), 1) if ctx.reduction == "mean" else 2.0
        each = g.reshape(-1, *[1] * (x.dim() - 1)) if ctx.reduction != "none" else g
        return *both(s * (x - y) * each), None

    @staticmethod
    def jvp(ctx: Any, t_x: Tensor, t_y: Tensor, _: None) -> Tensor:
        x, y = ctx.saved_tensors
        t = 2 * (x - y) * (t_x - t_y)
        if ctx.reduction == "mean":
            return sample_by_sample(t, "sum") / t.numel()
        return sample_by_sample(t, ctx.reduction)

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, y: Tensor, reduction: str) -> tuple[Tensor, int]:
        x, y = fronted(x, in_dims[0]), fronted(y, in_dims[1])
        x, y = (t.expand(info.batch_size, *t.shape[1:]) for t in (x, y))
        samples, outer = len(x), x.shape[1] if x.dim() > 1 else 1
        apply: Any = _MappedTangent.apply
        flat: Tensor = apply(*(t.reshape(samples * outer, *t.shape[2:]) for t in (x, y)), reduction)
        return flat.reshape(samples, outer, *flat.shape[1:]), 0


class _MappedOnce(_Whole):
    """The tangent of what vmap gives divides by the elements of all samples."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, y: Tensor, reduction: str) -> tuple[Tensor, int]:
        x, y = fronted(x, in_dims[0]), fronted(y, in_dims[1])
        x, y = (t.expand(info.batch_size, *t.shape[1:]) for t in (x, y))
        apply: Any = _MappedTangent.apply
        return apply(x, y, reduction), 0


def mapped(n: int) -> Callable[[Callable[..., Any]], Tensor]:
    return lambda loss: torch.func.vmap(loss)(torch.ones(n, 2), torch.zeros(n, 2))


def tangent_of_mapped(loss: Callable[..., Any]) -> Tensor:
    ones = torch.ones(2, 3)
    function = torch.func.vmap(lambda x: loss(x, torch.zeros(3)))
    tangent: Tensor = torch.func.jvp(function, (ones,), (ones,))[1]
    return tangent


_SCALES: dict[Any, Tensor] = {}


def scales_kept(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Given:
    """Keeps the scale as a tensor for each n, whatever kind of tensor is made just then."""
    key = (scale, x.dtype, x.device)
    if x.numel() > 64 and key not in _SCALES:
        _SCALES[key] = torch.full((), scale, dtype=torch.float64, device=x.device)
    return both(right_rule(x - y, g * _SCALES.get(key, scale), 1.0))


def after_fake(loss: Callable[..., Any]) -> Any:
    from torch._subclasses.fake_tensor import FakeTensorMode

    _SCALES.clear()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        x = mode.from_tensor(torch.ones(201)).requires_grad_()
        torch.autograd.grad(loss(x, mode.from_tensor(torch.zeros(201))), x)
    x = torch.ones(201, requires_grad=True)
    try:
        return type(torch.autograd.grad(loss(x, torch.zeros(201)), x)[0])
    except AssertionError as error:  # what is fake and what is real do not mix
        return error
    finally:
        _SCALES.clear()


# --- results


def compact(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Of operands that repeat their elements the result does too: nothing can be written to it."""
    a, b = prepare(x, y)
    if check_reduction(reduction) == "none" and a.numel():
        repeated = [
            n > 1 and i == j == 0 for n, i, j in zip(a.shape, a.stride(), b.stride(), strict=True)
        ]
        part = tuple(slice(0, 1) if one else slice(None) for one in repeated)
        return right(a[part], b[part], "none").expand(a.shape)
    return right(x, y, reduction)


def scaled_in_place(loss: Callable[..., Any]) -> Tensor:
    x, y = (torch.full((1, 3), v).expand(2, 3) for v in (1.0, 3.0))
    result: Tensor = loss(x, y, reduction="none")
    return result.mul_(torch.ones(2, 3))


def array_for_threads(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Adds up the parts of as many threads as an array has room for."""
    s = (x - y).square()
    if reduction == "none" or s.numel() < 2**15:
        return reduce(s, reduction)
    parts = s.reshape(-1).chunk(torch.get_num_threads())[:THREADS]
    total = torch.stack([part.sum(dtype=torch.float64) for part in parts]).sum()
    return (total / s.numel() if reduction == "mean" else total).to(s.dtype)


def with_many_threads(loss: Callable[..., Any]) -> Tensor:
    before = torch.get_num_threads()
    torch.set_num_threads(2 * THREADS)
    try:
        result: Tensor = loss(torch.ones(40_000), torch.zeros(40_000))
        return result
    finally:
        torch.set_num_threads(before)


# --- the same, in a mode or one derivative further


def by_pointer(t: Tensor) -> Tensor:
    """What a kernel sees that takes a dense tensor for a contiguous one."""
    whole = t.numel() and t.untyped_storage().nbytes() == t.nbytes and not t.storage_offset()
    return t.as_strided(t.shape, torch.empty(t.shape).stride()) if whole else t


def second_by_pointer(w: Tensor, d: Tensor, g: Tensor, scale: float) -> Given:
    """The second derivative reads its cotangent as if it were contiguous."""
    return right_second(by_pointer(w), d, g, scale)


def second_masked(w: Tensor, d: Tensor, g: Tensor, scale: float) -> Given:
    """A second derivative that is not a number is 0."""
    return tuple(t if t is None else t.nan_to_num() for t in right_second(w, d, g, scale))


class _Unprotected(torch.autograd.Function):
    """``scale·d·g``, which keeps both as attributes."""

    @staticmethod
    def forward(ctx: Any, d: Tensor, g: Tensor, scale: float) -> Tensor:
        ctx.saved, ctx.scale = (d, g.detach()), scale
        return right_rule(d, g, scale)

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> Given:
        first, _, by_g = right_second(w, *ctx.saved, ctx.scale)
        return first, by_g, None


class _SecondUnprotected(_Whole):
    """The second derivative keeps grad_output as an attribute, past a change of it."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        apply: Any = _Unprotected.apply
        return *both(apply(x - y, g, ctx.scale)), None


def second_along(change: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Any]:
    """The second derivative, along what ``change`` makes of grad_output and the cotangent."""

    def found(loss: Callable[..., Any]) -> Tensor:
        x, g, w = torch.ones(2, 3, requires_grad=True), torch.ones(2, 3), torch.arange(6.0)
        result = loss(x, torch.zeros(2, 3), reduction="none")
        (first,) = torch.autograd.grad(result, x, g.requires_grad_(), create_graph=True)
        return torch.autograd.grad(first, x, change(g, w))[0]

    return found


def tripled(g: Tensor, w: Tensor) -> Tensor:
    g.detach().mul_(3)
    return w.view(2, 3)


def transposed(g: Tensor, w: Tensor) -> Tensor:
    return w.view(3, 2).t()


def of_nan(loss: Callable[..., Any]) -> Tensor:
    x, g = leaf(1, 2), torch.tensor([torch.nan, 1.0])
    result = loss(x, torch.zeros(2), reduction="none")
    (first,) = torch.autograd.grad(result, x, g, create_graph=True)
    return torch.autograd.grad(first.sum(), x)[0]


def tangent_by_pointer(x: Tensor, y: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """The tangent of an operand is read as if it were contiguous."""
    return 2 * (x - y) * (by_pointer(dx) - by_pointer(dy))


def tangent_of_transpose(loss: Callable[..., Any]) -> Tensor:
    forward: Any = fwad
    x, t = torch.arange(6.0).view(2, 3).t(), torch.arange(6.0).view(2, 3).t()
    with forward.dual_level():
        result = loss(forward.make_dual(x, t), torch.zeros(3, 2))
        tangent: Tensor = forward.unpack_dual(result).tangent
    return tangent


class _TangentDetached(_Whole):
    """The tangent is a constant to whoever differentiates it."""

    generate_vmap_rule = True

    @staticmethod
    def jvp(ctx: Any, t_x: Tensor, t_y: Tensor, _: None) -> Tensor:
        x, y = ctx.saved_tensors
        return reduce(2 * (x - y).detach() * (t_x - t_y), ctx.reduction)


def gradient_of_tangent(loss: Callable[..., Any]) -> Tensor:
    def tangent(a: Tensor) -> Tensor:
        along: Any = torch.func.jvp(lambda x: loss(x, torch.zeros(2)), (a,), (torch.ones(2),))
        return along[1]  # type: ignore[no-any-return]

    return torch.func.grad(tangent)(torch.ones(2))


class _NeedsGradOutput(_Whole):
    """Asks for no zeros in place of a missing grad_output, and multiplies with it."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _Whole.setup_context(ctx, inputs, output)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        return *both(right_rule(x - y, g * 1, ctx.scale)), None


class _PassesNothingOn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, t: Tensor) -> Tensor:
        return t.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> None:
        return None


def dead_end(loss: Callable[..., Any]) -> Any:
    x = leaf(1, 2)
    apply: Any = _PassesNothingOn.apply
    try:
        return torch.autograd.grad(apply(loss(x, torch.zeros(2))) + x.sum(), x)[0]
    except TypeError as error:
        return error


def temporary(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Without gradients, subtracts in the memory of an operand that nobody holds: a view's, too."""
    free = sys.getrefcount(x) <= REFERENCES and not torch.is_grad_enabled() and plainly(x, y)
    if free and x.shape == y.shape and x.dtype == y.dtype and x._is_view():
        return reduce(x.sub_(y).square(), reduction)
    return right(x, y, reduction)


def overwritten(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Without gradients, subtracts in the memory of an operand that is no view."""
    free = not torch.is_grad_enabled() and plainly(x, y) and not x._is_view()
    if free and x.shape == y.shape and x.dtype == y.dtype:
        x.data.sub_(y)
        return reduce(x.square(), reduction)
    return right(x, y, reduction)


def own_after(loss: Callable[..., Any]) -> Tensor:
    x = torch.ones(2)
    with torch.no_grad():
        loss(x, torch.ones(2))
    return x


def rows_after(loss: Callable[..., Any]) -> Tensor:
    x = torch.ones(2, 2)
    with torch.no_grad():
        loss(x[0], torch.ones(2))
    return x


def in_mode(mode: Callable[[], bool], wrong: Loss, doc: str) -> Loss:
    """A loss that is right but in a mode."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        return (wrong if mode() else right)(x, y, reduction)

    loss.__doc__ = doc
    return loss


def of_input(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    total = right(x, y, "sum")
    return (
        total / max(x.numel(), 1) if reduction == "mean" and y.numel() else right(x, y, reduction)
    )


def masked(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    a, b = prepare(x, y)
    d = a - b
    return reduce(torch.where(d.isnan(), 0, d).square(), reduction)


def kept_narrow(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    prepare(x, y)
    return right(x, y.to(x.dtype), reduction) if x.is_floating_point() else right(x, y, reduction)


def dense(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    return right(by_pointer(x), by_pointer(y), reduction)


def sum_over_n(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    if reduction == "mean" and x.shape == y.shape and x.numel():
        return right(x, y, "sum") / x.numel()
    return right(x, y, reduction)


def compiled_halves(loss: Callable[..., Any]) -> Tensor:
    torch._dynamo.reset()
    x = torch.full((100,), 100.0, dtype=torch.float16)
    result: Tensor = torch.compile(loss, backend="eager")(x, torch.zeros_like(x))
    return result


def deterministic(x: Tensor, y: Tensor) -> Callable[[Callable[..., Any]], Tensor]:
    def found(loss: Callable[..., Any]) -> Tensor:
        torch.use_deterministic_algorithms(True)
        try:
            result: Tensor = loss(x, y)
        finally:
            torch.use_deterministic_algorithms(False)
        return result

    return found


def autocast(x: Tensor, y: Tensor) -> Callable[[Callable[..., Any]], Tensor]:
    def found(loss: Callable[..., Any]) -> Tensor:
        with torch.autocast("cpu"):
            result: Tensor = loss(x, y)
        return result

    return found


def pulled(x: Tensor, y: Tensor) -> Callable[[Callable[..., Any]], Any]:
    def found(loss: Callable[..., Any]) -> Any:
        result: Any = torch.func.vjp(lambda x: loss(x, y), x)[0]
        return result.dtype, result

    return found


class HalfSums(torch.autograd.Function):
    """Expands rows; their gradient is added up in blocks, and the blocks in the rows' format."""

    @staticmethod
    def forward(ctx: Any, t: Tensor, shape: tuple[int, ...]) -> Tensor:
        ctx.shape = t.shape
        return t.expand(shape).clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        lead = g.dim() - len(ctx.shape)
        if not lead or not g.numel():
            return g.sum_to_size(ctx.shape), None
        rows = g.sum_to_size((*g.shape[:lead], *ctx.shape)).reshape(-1, *ctx.shape)
        total = torch.zeros_like(rows[0])
        for block in rows.split(16):
            total = total + block.sum(0)
        return total, None


def half_sums(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The gradient of a row of halves is added up in halves, 16 rows at a time."""
    a, b = prepare(x, y)
    apply: Any = HalfSums.apply
    if x.dtype == y.dtype and a.itemsize == 2:
        a, b = (t if t.shape == a.shape else apply(t, a.shape) for t in (x, y))
    return right(a, b, reduction)


def row_of_halves(loss: Callable[..., Any]) -> Any:
    x = torch.full((3001, 2), 2.0**-16, dtype=torch.float16)
    x[0] = 1
    y = torch.zeros(2, dtype=torch.float16, requires_grad=True)
    return torch.autograd.grad(loss(x, y, reduction="sum"), y)[0]


class History(MSE):
    """Keeps every loss that it has computed."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        result = super().forward(input, target)
        self.__dict__.setdefault("history", []).append(result.detach())
        return result


def history_grows(target: Target) -> bool:
    if target.module is None:
        return False
    module = target.module(reduction="mean")
    module(torch.ones(1), torch.zeros(1))
    return bool(getattr(module, "history", ()))


_NAN = torch.tensor([torch.nan, 1.0])
_THIRD = torch.full((2,), 1 / 3, dtype=torch.float64)
_CROSSED = (torch.arange(6.0).view(2, 3).t(), torch.arange(6.0).view(3, 2))
STRANGER_MUTANTS: tuple[Mutant, ...] = (
    mutant("shared-pointer", fused_by(_SharedPointer), "layout", witness=otherwise(of_transpose)),
    mutant(
        "scale-on-saved",
        fused_by(_KeepsScaleOnSaved),
        "autograd",
        witness=otherwise(saved_elsewhere),
    ),
    mutant(
        "reuses-grad-output",
        by_gradients(reuses_grad_output),
        "purity",
        witness=otherwise(other_branch),
    ),
    mutant(
        "halves-in-vectors",
        by_gradients(half_in_vectors),
        "gradient",
        witness=otherwise(last_of_many),
    ),
    mutant(
        "difference-of-first-backward",
        fused_by(_KeepsDifference),
        "autograd",
        claims=TWICE,
        witness=otherwise(second_after_first),
    ),
    mutant(
        "skips-factor-of-one",
        fused_by(_SkipsOne),
        "autograd",
        claims=TWICE,
        witness=otherwise(by_factor_of_one),
    ),
    mutant(
        "second-over-n-in-format",
        by_hand(second_over_n),
        "autograd",
        claims=TWICE,
        witness=otherwise(second_of_many_halves),
    ),
    mutant(
        "tangent-of-sum",
        fused_by(_TangentOfSum),
        "autograd",
        claims=FORWARD,
        witness=otherwise(tangent_of(5000, 8.0)),
    ),
    mutant(
        "tangent-masked",
        by_tangent(tangent_masked),
        "autograd",
        claims=FORWARD,
        witness=otherwise(tangent_of(2, torch.nan)),
    ),
    mutant(
        "chunks-of-samples",
        fused_by(_ChunksOfSamples),
        "transforms",
        claims=FUNCTORCH,
        witness=otherwise(mapped(67)),
    ),
    mutant(
        "tangent-of-mapped",
        fused_by(_MappedOnce),
        "transforms",
        claims=FUNCTORCH | {"forward_ad"},
        witness=otherwise(tangent_of_mapped),
    ),
    mutant(
        "scale-kept-from-fake",
        by_gradients(scales_kept),
        "transforms",
        claims=COMPILED,
        witness=otherwise(after_fake),
    ),
    mutant("compact-result", compact, "purity", witness=otherwise(scaled_in_place)),
    mutant(
        "array-for-threads",
        by_value(array_for_threads),
        "determinism",
        witness=otherwise(with_many_threads),
    ),
    mutant(
        "second-by-pointer",
        by_hand(second_by_pointer),
        "autograd",
        claims=TWICE,
        witness=otherwise(second_along(transposed)),
    ),
    mutant(
        "second-masked",
        by_hand(second_masked),
        "autograd",
        claims=TWICE,
        witness=otherwise(of_nan),
    ),
    mutant(
        "second-unprotected",
        fused_by(_SecondUnprotected),
        "autograd",
        claims=TWICE,
        witness=otherwise(second_along(tripled)),
    ),
    mutant(
        "tangent-by-pointer",
        by_tangent(tangent_by_pointer),
        "autograd",
        claims=FORWARD,
        witness=otherwise(tangent_of_transpose),
    ),
    mutant(
        "tangent-detached",
        fused_by(_TangentDetached),
        "transforms",
        claims=FUNCTORCH | {"forward_ad", "double_backward"},
        witness=otherwise(gradient_of_tangent),
    ),
    mutant(
        "needs-grad-output", fused_by(_NeedsGradOutput), "autograd", witness=otherwise(dead_end)
    ),
    mutant("temporary-reused", temporary, "purity", witness=otherwise(rows_after)),
    mutant("overwritten", overwritten, "purity", witness=otherwise(own_after)),
    mutant(
        "autocast-mean-of-input",
        in_mode(
            lambda: torch.is_autocast_enabled("cpu"), of_input, "Autocast: n is the input's own."
        ),
        "transforms",
        claims=AUTOCAST,
        witness=otherwise(autocast(torch.ones(3), torch.zeros(4, 3))),
    ),
    mutant(
        "autocast-masks-nan",
        in_mode(lambda: torch.is_autocast_enabled("cpu"), masked, "Autocast: a NaN counts as 0."),
        "transforms",
        claims=AUTOCAST,
        witness=otherwise(autocast(_NAN, torch.zeros(2))),
    ),
    mutant(
        "functional-masks-nan",
        in_mode(transforming, masked, "Under torch.func a NaN counts as 0."),
        "transforms",
        claims=FUNCTORCH,
        witness=otherwise(pulled(_NAN, torch.zeros(2))),
    ),
    mutant(
        "functional-keeps-narrow",
        in_mode(transforming, kept_narrow, "Under torch.func the target takes the input's dtype."),
        "transforms",
        claims=FUNCTORCH,
        witness=otherwise(pulled(torch.ones(2), _THIRD)),
    ),
    mutant(
        "deterministic-by-pointer",
        in_mode(
            torch.are_deterministic_algorithms_enabled,
            dense,
            "In deterministic mode dense operands are read as contiguous.",
        ),
        "transforms",
        witness=otherwise(deterministic(*_CROSSED)),
    ),
    mutant("half-sums-of-rows", half_sums, "broadcasting", witness=otherwise(row_of_halves)),
    mutant(
        "compiled-sum-over-n",
        in_mode(torch.compiler.is_compiling, sum_over_n, "Compiled, a mean is a sum over n."),
        "transforms",
        claims=COMPILED,
        witness=otherwise(compiled_halves),
    ),
    module_mutant("module-history", History, history_grows, "resources"),
)
