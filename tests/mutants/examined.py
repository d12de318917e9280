"""What an examiner wrote who knew the specification alone, and that the suite let pass."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch.autograd.forward_ad as fwad
from torch import Tensor

from targets.operands import check_reduction
from targets.target import REDUCTIONS

from .autograd import FORWARD, TWICE, Given, both, fused_by, scale_of
from .mutant import (
    Mutant,
    by_gradients,
    by_rule,
    by_squares,
    by_sum,
    by_value,
    mutant,
    reduce,
    right,
    right_rule,
    viewed,
)
from .overlooked import compiled, leaf, otherwise, plainly
from .strangers import _Whole, in_mode
from .transforms import COMPILED, FUNCTORCH, Dims, by_sample, by_vmap, fronted

BLOCKED = 8192  # elements, from which a loss for many takes another path
SHARED = 32_768  # from which torch shares the work out among threads
SAMPLES = 64

# --- values


def compensated(s: Tensor) -> Tensor:
    """Many squares are added up in 64 compensated rows, which make NaN of an infinity."""
    if s.numel() < BLOCKED or s.numel() % 64:
        return s.sum()
    total, lost = s.new_zeros(64), s.new_zeros(64)
    for block in s.view(-1, 64).flip(0).unbind():
        term = block - lost
        new = total + term
        total, lost = new, (new - total) - term
    return total.sum()


def flushed_when_shared(s: Tensor) -> Tensor:
    """Threads that share the work flush subnormal squares to zero."""
    tiny = torch.finfo(s.dtype).smallest_normal
    return torch.where(s < tiny, torch.zeros_like(s), s) if s.numel() >= SHARED else s


def gradient_flushed(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Threads that share the work flush subnormal gradients of float32 to zero."""
    gradient = right_rule(d, g, scale)
    if d.dtype != torch.float32 or d.numel() < SHARED:
        return gradient
    tiny = torch.finfo(d.dtype).smallest_normal
    return torch.where(gradient.abs() < tiny, torch.zeros_like(gradient), gradient)


def gradient_of_many(loss: Callable[..., Any]) -> Tensor:
    x = torch.full((SHARED,), 2.0**-129, requires_grad=True)
    result = loss(x, torch.zeros(SHARED), reduction="sum")
    return torch.autograd.grad(result, x)[0].max()


def one_of_many(x: float, n: int) -> Callable[[Callable[..., Any]], Tensor]:
    def result(loss: Callable[..., Any]) -> Tensor:
        values = torch.zeros(n)
        values[n // 2] = x
        found: Tensor = loss(values, torch.zeros(n), reduction="none" if x < 1 else "sum")
        return found.max()

    return result


def images_halved(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Of images, by their shape, every second row is looked at."""
    s = (x - y).square()
    images = s.dim() == 4 and s.shape[1] in (1, 3) and min(s.shape[2:]) >= 32
    return reduce(s[:, :, ::2] if images and reduction != "none" else s, reduction)


def of_images(loss: Callable[..., Any]) -> Tensor:
    x = torch.zeros(1, 3, 32, 32)
    x[:, :, 1] = 1
    result: Tensor = loss(x, torch.zeros_like(x))
    return result


def divided_by_default(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """n is a number of the default dtype, which may be too narrow for it."""
    s = (x - y).square()
    if reduction != "mean":
        return reduce(s, reduction)
    wide = torch.promote_types(s.dtype, torch.float32)
    n = torch.tensor(float(s.numel()), device=s.device).to(wide)
    return (s.sum(dtype=wide) / n).to(s.dtype)


def by_bfloat16(loss: Callable[..., Any]) -> Tensor:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        ones = torch.ones(777, dtype=torch.float32)
        result: Tensor = loss(ones, torch.zeros_like(ones))
    finally:
        torch.set_default_dtype(before)
    return result


# --- derivatives


class _Raises(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, result: Tensor) -> Tensor:
        return result.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        raise ZeroDivisionError("float division by zero")


def nothing_beside_one(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Backward divides by n = 0 where the input has elements and the target has none."""
    result = right(x, y, reduction)
    apply: Any = _Raises.apply
    empty = reduction == "mean" and x.numel() and not y.numel() and result.requires_grad
    return apply(result) if empty else result


def row_beside_nothing(loss: Callable[..., Any]) -> Tensor:
    x = torch.ones(1, 3, requires_grad=True)
    return torch.autograd.grad(loss(x, torch.zeros(0, 3)), x)[0]


class _ScratchWhenExpanded(torch.autograd.Function):
    """Where an operand is expanded, backward computes in the memory of what it saved."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        d = x - y
        ctx.scale = scale_of(d, reduction)
        ctx.expanded = d.numel() > 1 and 0 in (*x.stride(), *y.stride())
        ctx.save_for_backward(d)
        return reduce(d.square(), reduction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        (d,) = ctx.saved_tensors
        if ctx.expanded:
            return *both(d.detach().mul_(ctx.scale).mul_(g).clone()), None
        return *both(right_rule(d, g, ctx.scale)), None


def twice_from_row(loss: Callable[..., Any]) -> Tensor:
    x = leaf(1, 2)
    result = loss(x, torch.zeros(3, 2))
    torch.autograd.grad(result, x, retain_graph=True)
    return torch.autograd.grad(result, x)[0]


_SCALE: dict[str, float] = {}


class _LastExpandedScale(torch.autograd.Function):
    """Where an operand is expanded, n is that of the last call where one was."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        ctx.reduction, ctx.scale = reduction, scale_of(x, reduction)
        ctx.expanded = x.numel() > 1 and 0 in (*x.stride(), *y.stride())
        if ctx.expanded:
            _SCALE[reduction] = ctx.scale
        ctx.save_for_backward(x, y)
        return reduce((x - y).square(), reduction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        scale = _SCALE[ctx.reduction] if ctx.expanded else ctx.scale
        return *both(right_rule(x - y, g, scale)), None


def two_rows_alive(loss: Callable[..., Any]) -> Tensor:
    x = leaf(1, 2)
    result = loss(x, torch.zeros(3, 2))
    loss(x, torch.zeros(9, 2))
    return torch.autograd.grad(result, x)[0]


class _FirstOfExpanded(_Whole):
    """Backward takes an expanded grad_output for its first element, which gets all derivatives."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        if g.dim() and g.numel() and not any(g.stride()):
            g = g[(0,) * g.dim()]
        return *both(ctx.scale * (x - y) * g), None


def by_expanded(loss: Callable[..., Any]) -> Tensor:
    x, half = leaf(1, 2), torch.tensor(0.5, requires_grad=True)
    g = half.expand(2)
    result = loss(x, torch.zeros(2), reduction="none")
    (gradient,) = torch.autograd.grad(result, x, g, create_graph=True)
    return torch.autograd.grad(gradient.sum(), g)[0]


class _PointersCompared(_Whole):
    """What lies at one address is taken for one tensor, whose loss is 0 and stays 0."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        alias = x.data_ptr() == y.data_ptr() and x.stride() == y.stride()
        d = (x - y).detach() if alias and x.numel() else x - y
        return *both(ctx.scale * d * g), None


def second_of_alias(loss: Callable[..., Any]) -> Any:
    x = leaf(1, 2)
    (gradient,) = torch.autograd.grad(loss(x, x.detach()), x, create_graph=True)
    return torch.autograd.grad(gradient.sum(), x, allow_unused=True)[0]


class _InTangent(_Whole):
    """The tangent of the result is computed in the memory of the input's."""

    @staticmethod
    def jvp(ctx: Any, t_x: Tensor, t_y: Tensor, _: None) -> Tensor:
        x, y = ctx.saved_tensors
        own = t_x.is_contiguous() and not t_x._is_zerotensor()
        t = t_x.sub_(t_y) if own else t_x - t_y
        return reduce(2 * (x - y) * t, ctx.reduction)


def tangent_after(loss: Callable[..., Any]) -> Tensor:
    forward: Any = fwad
    x, y, t, u = (torch.full((2,), float(k)) for k in range(4))
    with forward.dual_level():
        loss(forward.make_dual(x, t), forward.make_dual(y, u))
    return t


class _WithoutTangent(torch.autograd.Function):
    """A conversion to a wider dtype that has a gradient, and a tangent of 0."""

    @staticmethod
    def forward(t: Tensor, dtype: torch.dtype) -> Tensor:
        return t.to(dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        t, ctx.dtype = inputs
        ctx.narrow = t.dtype

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        return g.to(ctx.narrow), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return torch.zeros_like(tangent, dtype=ctx.dtype)


def converts_without_tangent(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Of two dtypes the narrower operand is converted without its tangent."""
    both_float = x.is_floating_point() and y.is_floating_point()
    if not both_float or x.dtype == y.dtype:
        return right(x, y, reduction)
    wide = torch.promote_types(x.dtype, y.dtype)
    apply: Any = _WithoutTangent.apply
    pair = (t if t.dtype == wide or t.is_meta else apply(t, wide) for t in (x, y))
    return right(*pair, reduction)


def tangent_of_two(loss: Callable[..., Any]) -> Tensor:
    forward: Any = fwad
    x, t = torch.ones(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16)
    with forward.dual_level():
        result = loss(forward.make_dual(x, t), torch.zeros(2))
        tangent: Tensor = forward.unpack_dual(result).tangent
    return tangent


# --- state


_PACKED: dict[tuple[int, torch.dtype, int], Tensor] = {}


def packed(t: Tensor, place: int) -> Tensor:
    """A contiguous copy in a buffer that is kept."""
    buffer = _PACKED.setdefault((place, t.dtype, t.numel()), t.new_empty(t.numel()))
    return buffer.view(t.shape).copy_(t)


def packs_strided(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Operands that are not contiguous are packed in buffers which all threads share."""
    if not plainly(x, y) or 0 in (*x.stride(), *y.stride()):
        return right(x, y, reduction)
    a, b = (t if t.is_contiguous() else packed(t, k) for k, t in enumerate((x, y)))
    return reduce((a - b).square(), reduction)


def two_threads(loss: Callable[..., Any]) -> bool:
    """Whether each of two threads that call on transposed ones, of 1 and of 2, gets its own."""
    from concurrent.futures import ThreadPoolExecutor

    def all_right(v: float) -> bool:
        x = torch.full((300, 400), v).t()
        return all(float(loss(x, torch.zeros(400, 300))) == v * v for _ in range(300))

    with ThreadPoolExecutor(2) as threads:
        return all(threads.map(all_right, (1.0, 2.0)))


def of_inference(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """An input that was made in inference mode is overwritten: who would want it again."""
    if plainly(x, y) and x.is_inference() and x.shape == y.shape and x.dtype == y.dtype:
        return reduce(x.sub_(y).square(), reduction)
    return right(x, y, reduction)


def inferred_after(loss: Callable[..., Any]) -> Tensor:
    with torch.inference_mode():
        x = torch.ones(2)
        loss(x, torch.ones(2))
    return x.clone()


_ANSWER: dict[str, tuple[Any, Tensor]] = {}


def sampled(t: Tensor) -> tuple[Any, ...]:
    """What the last answer is known by: some of the elements."""
    every = max(t.numel() // SAMPLES, 1)
    return t.shape, t.dtype, t.reshape(-1)[::every].tolist()


def answers_by_sample(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Without gradients, the last answer serves operands of which 64 elements are as they were."""
    result = right(x, y, reduction)
    if torch.is_grad_enabled() or not plainly(x, y) or reduction == "none":
        return result
    key = sampled(x), sampled(y), reduction
    if _ANSWER.get("last", (None,))[0] != key:
        _ANSWER["last"] = key, result.clone()
    return _ANSWER["last"][1].clone()


def one_changed(loss: Callable[..., Any]) -> Tensor:
    x, y = torch.zeros(1000), torch.zeros(1000)
    with torch.no_grad():
        loss(x, y)
        x[7] = 5
        result: Tensor = loss(x, y)
    return result


_RESULTS: dict[torch.dtype, Tensor] = {}
_TURN = itertools.count()
RING = 256


def ring_of_results(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Results that are numbers go round in 256 places."""
    result = right(x, y, reduction)
    if result.dim() or result.requires_grad or not plainly(x, y) or torch.is_inference(result):
        return result
    ring = _RESULTS.setdefault(result.dtype, torch.zeros(RING, dtype=result.dtype))
    return ring[next(_TURN) % RING].copy_(result)


def first_of_many(loss: Callable[..., Any]) -> Tensor:
    first: Tensor = loss(torch.ones(2), torch.zeros(2))
    for _ in range(RING):
        loss(torch.zeros(2), torch.zeros(2))
    return first


_SCALES = [0.0] * RING


class _RingOfScales(_Whole):
    """2/n goes round in 256 places."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _Whole.setup_context(ctx, inputs, output)
        ctx.place = next(_TURN) % RING
        _SCALES[ctx.place] = ctx.scale

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        return *both(right_rule(x - y, g, _SCALES[ctx.place])), None


def many_alive(loss: Callable[..., Any]) -> Tensor:
    x = leaf(1, 2)
    result = loss(x, torch.zeros(2))
    alive = [loss(leaf(1, 2, 3), torch.zeros(3)) for _ in range(RING)]
    assert alive
    return torch.autograd.grad(result, x)[0]


class _KeepsGradient(torch.autograd.Function):
    """2·g·d by a node of Python's, which takes attributes."""

    @staticmethod
    def forward(ctx: Any, d: Tensor, g: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(d, g)
        ctx.scale = scale
        return scale * d * g

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> Given:
        d, g = ctx.saved_tensors
        second = ctx.scale * w
        return second * g, (second * d).sum_to_size(g.shape), None


class _SecondCycle(_Whole):
    """Backward keeps the gradient on its node: a cycle, where the gradient has a graph."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        apply: Any = _KeepsGradient.apply
        gradient = apply(x - y, g, ctx.scale)
        if torch.is_grad_enabled() and gradient.grad_fn is not None:
            gradient.grad_fn.kept = gradient
        return *both(gradient), None


def freed(loss: Callable[..., Any]) -> bool:
    """Whether the gradient is gone with its last name, where it has a graph."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        x = leaf(1, 2)
        gradient = torch.autograd.grad(loss(x, torch.zeros(2)), x, create_graph=True)[0]
        operand = weakref.ref(x)
        del x, gradient
        return operand() is None
    finally:
        if enabled:
            gc.enable()


# --- operands


def by_rows(t: Tensor) -> Tensor:
    """Descending strides that end in 1 are those of rows at one distance."""
    strides = t.stride()
    descending = all(a > b for a, b in itertools.pairwise(strides))
    if t.dim() < 2 or not t.numel() or strides[-1] != 1 or not descending or not plainly(t):
        return t
    columns = t.shape[-1]
    return t.as_strided((t.numel() // columns, columns), (strides[-2], 1)).reshape(t.shape)


def cut_in_the_middle(loss: Callable[..., Any]) -> Tensor:
    x = torch.arange(24.0).reshape(2, 4, 3)[:, :2]
    result: Tensor = loss(x, torch.zeros(2, 2, 3), reduction="sum")
    return result


def weight_of_rows(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """A grad_output that is expanded has one number for each row, a stride apart."""
    by_row = g.dim() > 1 and g.numel() and g.stride(-1) == 0 and g.shape[-1] > 1
    if by_row and (g.dim() == 2 or g.stride(-2) == 0):
        rows = g.as_strided((g.numel() // g.shape[-1], 1), (g.stride(-2), 0))
        g = rows.expand(-1, g.shape[-1]).reshape(g.shape)
    return right_rule(d, g, scale)


def by_weights(loss: Callable[..., Any]) -> Tensor:
    x = torch.ones(2, 1, 2, 2, requires_grad=True)
    weights = torch.tensor([1.0, 5.0]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    result = loss(x, torch.zeros(2, 1, 2, 2), reduction="none")
    return torch.autograd.grad(result, x, weights)[0]


def one_memory(x: Tensor, y: Tensor, g: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The gradient of target is a negative view of the input's: one memory."""
    gradient = right_rule(x - y, g, scale)
    return gradient, torch._neg_view(gradient)


def scaled_in_place(loss: Callable[..., Any]) -> Tensor:
    x, y = leaf(1, 2), leaf(0, 0)
    first, second = torch.autograd.grad(loss(x, y), (x, y))
    first.zero_()
    return second


def by_identity(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A reduction is known as an object, not by its name."""
    if isinstance(reduction, str) and not any(reduction is name for name in REDUCTIONS):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    return right(x, y, reduction)


def built_name(loss: Callable[..., Any]) -> Tensor:
    result: Tensor = loss(torch.ones(2), torch.zeros(2), reduction="".join(["s", "um"]))
    return result


# --- transforms


def narrow_mean(x: Tensor, y: Tensor, dims: Dims, reduction: str) -> tuple[Tensor, int]:
    """The rule for vmap divides the sum of a sample, which may overflow a half."""
    s = (fronted(x, dims[0]) - fronted(y, dims[1])).square()
    if reduction == "mean" and s.numel():
        return by_sample(s, "sum") / s[0].numel(), 0
    return by_sample(s, reduction), 0


def large_samples(loss: Callable[..., Any]) -> Any:
    x = torch.full((2, 16), 128.0, dtype=torch.float16)
    return torch.func.vmap(loss)(x, torch.zeros_like(x))


def nothing_is_zero(x: Tensor, y: Tensor, dims: Dims, reduction: str) -> tuple[Tensor, int]:
    """The rule for vmap takes the mean of nothing for 0."""
    s = (fronted(x, dims[0]) - fronted(y, dims[1])).square()
    if reduction == "mean" and not s.numel():
        return by_sample(s, "sum"), 0
    return by_sample(s, reduction), 0


def empty_samples(loss: Callable[..., Any]) -> Any:
    return torch.func.vmap(loss)(torch.zeros(2, 0), torch.zeros(2, 0))


def first_dtype(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Under vmap a target is rounded to the input's dtype, where that is narrower."""
    result = right(x, y, reduction)
    if torch._C._functorch.is_batchedtensor(x) and result.dtype != x.dtype == torch.bfloat16:
        return right(x, y.to(x.dtype).to(y.dtype), reduction)
    return result


def of_two_dtypes(loss: Callable[..., Any]) -> Any:
    x, y = torch.zeros(2, 3, dtype=torch.bfloat16), torch.full((2, 3), 1.1)
    return torch.func.vmap(loss)(x, y)


def shaped_as_longer(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Without data, the result has the shape of the operand that has more dimensions."""
    check_reduction(reduction)
    if not x.is_meta and not y.is_meta and plainly(x, y):
        return right(x, y, reduction)
    result = right(x, y, reduction)
    of = x if x.dim() >= y.dim() else y
    wrong = reduction == "none" and x.is_meta and result.shape not in (x.shape, y.shape)
    return result[tuple(slice(0, n) for n in of.shape)] if wrong else result


def crossed(loss: Callable[..., Any]) -> str:
    x, y = torch.empty(4, 1, device="meta"), torch.empty(1, 3, device="meta")
    return str(loss(x, y, reduction="none").shape)


def flat_when_alike(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Compiled, operands with the same strides are read as if they were contiguous."""
    alike = x.shape == y.shape and x.stride() == y.stride() and x.dim() == 1
    if alike:
        x, y = (t.as_strided(t.shape, (1,)) for t in (x, y))
    return right(x, y, reduction)


EXAMINED_MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "compensated-rows",
        by_sum(compensated),
        "value",
        witness=otherwise(one_of_many(torch.inf, 2 * BLOCKED)),
    ),
    mutant(
        "flushed-when-shared",
        by_squares(flushed_when_shared),
        "value",
        witness=otherwise(one_of_many(2.0**-65, SHARED)),
    ),
    mutant(
        "gradient-flushed-when-shared",
        by_rule(gradient_flushed),
        "gradient",
        witness=otherwise(gradient_of_many),
    ),
    mutant("images-halved", by_value(images_halved), "value", witness=otherwise(of_images)),
    mutant(
        "divided-by-default", by_value(divided_by_default), "dtypes", witness=otherwise(by_bfloat16)
    ),
    mutant(
        "nothing-beside-one", nothing_beside_one, "gradient", witness=otherwise(row_beside_nothing)
    ),
    mutant(
        "scratch-when-expanded",
        fused_by(_ScratchWhenExpanded),
        "autograd",
        witness=otherwise(twice_from_row),
    ),
    mutant(
        "last-expanded-scale",
        fused_by(_LastExpandedScale),
        "autograd",
        witness=otherwise(two_rows_alive),
    ),
    mutant(
        "first-of-expanded",
        fused_by(_FirstOfExpanded),
        "autograd",
        claims=TWICE,
        witness=otherwise(by_expanded),
    ),
    mutant(
        "pointers-compared",
        fused_by(_PointersCompared),
        "autograd",
        claims=TWICE,
        witness=otherwise(second_of_alias),
    ),
    mutant(
        "in-tangent",
        fused_by(_InTangent),
        "autograd",
        claims=FORWARD,
        witness=otherwise(tangent_after),
    ),
    mutant(
        "converts-without-tangent",
        converts_without_tangent,
        "autograd",
        claims=FORWARD,
        witness=otherwise(tangent_of_two),
    ),
    mutant("packs-strided", by_value(packs_strided), "determinism", witness=otherwise(two_threads)),
    mutant("of-inference", of_inference, "purity", witness=otherwise(inferred_after)),
    mutant("answers-by-sample", answers_by_sample, "purity", witness=otherwise(one_changed)),
    mutant("ring-of-results", ring_of_results, "purity", witness=otherwise(first_of_many)),
    mutant(
        "ring-of-scales", fused_by(_RingOfScales), "autograd", witness=otherwise(many_alive)
    ),
    mutant(
        "second-cycle",
        fused_by(_SecondCycle),
        "resources",
        claims=TWICE,
        witness=otherwise(freed),
    ),
    mutant("by-rows", viewed(by_rows), "layout", witness=otherwise(cut_in_the_middle)),
    mutant("weight-of-rows", by_rule(weight_of_rows), "grad_output", witness=otherwise(by_weights)),
    mutant("one-memory", by_gradients(one_memory), "purity", witness=otherwise(scaled_in_place)),
    mutant("by-identity", by_identity, "value", witness=otherwise(built_name)),
    mutant(
        "narrow-mean-of-samples",
        by_vmap(narrow_mean),
        "transforms",
        claims=FUNCTORCH,
        witness=otherwise(large_samples),
    ),
    mutant(
        "nothing-is-zero-in-samples",
        by_vmap(nothing_is_zero),
        "transforms",
        claims=FUNCTORCH,
        witness=otherwise(empty_samples),
    ),
    mutant(
        "first-dtype-of-samples",
        first_dtype,
        "transforms",
        claims=FUNCTORCH,
        witness=otherwise(of_two_dtypes),
    ),
    mutant(
        "shaped-as-longer",
        shaped_as_longer,
        "transforms",
        claims=COMPILED,
        witness=otherwise(crossed),
    ),
    mutant(
        "compiled-flat",
        in_mode(torch.compiler.is_compiling, flat_when_alike, "Compiled, strides that are equal "
                "are ignored."),
        "transforms",
        claims=COMPILED,
        witness=otherwise(compiled(torch.arange(8.0)[::2], torch.zeros(8)[::2])),
    ),
)  # fmt: skip
