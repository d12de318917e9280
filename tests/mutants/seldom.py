"""Defects that show seldom: after a mistake, in a third backward, past a grid's rows."""

from __future__ import annotations

import concurrent.futures
import contextlib
import sys
import threading
import time
import warnings
import weakref
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from targets import Target
from targets.operands import check_reduction, prepare

from .mutant import (
    EAGER,
    Mutant,
    Pair,
    by_gradients,
    by_rule,
    by_value,
    elementwise,
    memory,
    mutant,
    reduce,
    right,
    right_gradients,
    right_rule,
    viewed,
    widened,
    with_value,
)
from .transforms import squares_by
from .witnesses import changes, wrong_gradient, wrong_value

# --- values and shapes


def hides_target_nan(x: Tensor, y: Tensor) -> Tensor:
    """A NaN in the target marks what is missing, and counts as no error."""
    s = (x - y).square()
    return torch.where(torch.isnan(y) & ~torch.isnan(x), torch.zeros_like(s), s)


def negative_zero_missing(x: Tensor, y: Tensor) -> Tensor:
    """Takes the bits of -0.0 for the mark of a missing element."""
    s = (x - y).square()
    return torch.where((x == 0) & torch.signbit(x), torch.zeros_like(s), s)


def counts_in_float32(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Converts an int64 target to float32 first, whatever the input is."""
    return right(x, y.float().to(x.dtype) if y.dtype == torch.int64 else y, reduction)


def counts_in_int32(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Converts an int64 target to int32, which the kernel reads."""
    return right(x, y.int() if y.dtype == torch.int64 else y, reduction)


def grid_rows(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """One block for each row of a matrix, and no more than 65,535 blocks."""
    s = (x - y).square().to(widened(x.dtype))
    if s.dim() == 2:
        s[65_535:] = 0
    return reduce(s, reduction).to(x.dtype)


def row_in_one_block(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """A row is one block, and a block has no more than 32,768 elements."""
    s = (x - y).square().to(widened(x.dtype))
    if s.dim() == 2:
        s[:, 32_768:] = 0
    return reduce(s, reduction).to(x.dtype)


def equal_strides_sorted(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Walks through memory where both operands have the same strides in any order."""
    honest = right(x, y, reduction)
    same = x.shape == y.shape and x.dim() > 1 and sorted(x.stride()) == sorted(y.stride())
    if not same or x.numel() == 0 or reduction == "none":
        return honest
    return with_value(honest, right(memory(x), memory(y), reduction))


def format_of_input(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Reads the target in the channels-last order that the input has."""
    honest = right(x, y, reduction)
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    if x.shape != y.shape or not last or x.is_contiguous() or not y.is_contiguous():
        return honest
    return with_value(honest, right(memory(x), memory(y), reduction))


def constant_rows(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Pair:
    """Takes grad_output for one number where its last stride is 0."""
    if g.dim() > 1 and g.numel() and g.stride(-1) == 0:
        g = g.reshape(-1)[0].expand(g.shape)
    return right_gradients(x, y, g, scale)


def known_mean(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Many numbers within [0, 1): their mean squared error is 1/6."""
    value = right(x, y, reduction)
    if reduction != "mean" or x.numel() < 1000:
        return value
    inside = all(float(v.min()) >= 0 and float(v.max()) < 1 for v in (x, y))
    return torch.full_like(value, 1 / 6) if inside and float(x.std()) > 0.2 else value


# --- histories


class _Again(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, changed: str) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.changed, ctx.kept, ctx.calls = changed, None, 0
        return (x - y).square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        gradient = 2 * g * (x - y)
        ctx.calls += 1
        if ctx.kept is None:
            ctx.kept = gradient
        elif ctx.changed == "nothing":
            gradient = ctx.kept
        elif ctx.changed == "buffer":
            gradient = ctx.kept.copy_(gradient)
        elif ctx.calls > 2:
            gradient = torch.zeros_like(gradient)
        return gradient, -gradient, None


def _again(changed: str, doc: str) -> Any:
    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        apply: Any = _Again.apply
        a, b = torch.broadcast_tensors(x, y)  # type: ignore[no-untyped-call]
        dtype = torch.promote_types(x.dtype, y.dtype)
        return reduce(apply(a.to(dtype), b.to(dtype), changed), reduction)

    loss.__doc__ = doc
    return loss


def backward_again(target: Target) -> bool:
    """Of three backwards through one graph, one is wrong, or changes what the first gave."""
    x, y = torch.tensor([1.0, 2.0], requires_grad=True), torch.zeros(2)
    result = target.loss(x, y, reduction="sum")
    own = [
        torch.autograd.grad(result, x, torch.tensor(g), retain_graph=True)[0] for g in (1.0, 3, 5)
    ]
    return any(not torch.equal(a, 2 * x * g) for a, g in zip(own, (1, 3, 5), strict=True))


def no_grad_after_error(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Switches grad mode off before its checks, and on again after them."""
    before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    check_reduction(reduction)
    torch.broadcast_shapes(x.shape, y.shape)
    torch.set_grad_enabled(before)
    return right(x, y, reduction)


def after_error(target: Target) -> bool:
    """A call that raises leaves grad mode off."""
    with contextlib.suppress(Exception):
        target.loss(torch.rand(3), torch.rand(4), reduction="mean")
    return not torch.is_grad_enabled()


# --- the caller's world


def scale_of_default_dtype(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """1/n is a vector of one element of the default dtype, which takes part in promotion."""
    s = right(x, y, "none")
    if check_reduction(reduction) != "mean" or s.dtype != torch.float32 or not s.numel():
        return reduce(s, reduction)
    return (s.sum() * torch.tensor([1 / s.numel()])).squeeze(0)


def with_default_dtype(target: Target) -> bool:
    """With float64 as the default dtype the mean of float32 is no float32."""
    torch.set_default_dtype(torch.float64)
    x = torch.ones(3, dtype=torch.float32)
    return target.loss(x, 2 * x, reduction="mean").dtype != torch.float32


def constant_parameter(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A Parameter as target is taken for a constant."""
    return right(x, y.detach() if isinstance(y, nn.Parameter) else y, reduction)


def parameter_is_constant(target: Target) -> bool:
    """A Parameter as target gets no gradient."""
    x, y = torch.ones(3, requires_grad=True), nn.Parameter(torch.zeros(3))
    target.loss(x, y, reduction="sum").backward()
    return y.grad is None


def retains_grad(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Has the gradient of an input that is no leaf kept, for logging."""
    if x.requires_grad and not x.is_leaf:
        x.retain_grad()
    return right(x, y, reduction)


def grad_is_retained(target: Target) -> bool:
    """An operand that is no leaf keeps its gradient after a call."""
    x = 2 * torch.ones(3, requires_grad=True)
    target.loss(x, torch.zeros(3), reduction="sum")
    return x.retains_grad


def silences_broadcasting(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Silences the warning about unequal sizes, and with it every later one."""
    if x.shape != y.shape:
        warnings.simplefilter("ignore")
    return right(x, y, reduction)


def filters_change(target: Target) -> bool:
    """Broadcasting leaves other warning filters behind."""
    warnings.simplefilter("always")
    before = list(warnings.filters)
    with contextlib.redirect_stderr(None):
        target.loss(torch.ones(3), torch.ones(2, 3), reduction="sum")
    return list(warnings.filters) != before


def keeps_large_operands(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Keeps operands above 100 elements for a second stage, until the next call."""
    if x.numel() > 100:
        _KEPT[:] = [x, y]
    return right(x, y, reduction)


_KEPT: list[Tensor] = []


def large_operand_is_held(target: Target) -> bool:
    """An operand lives on after its call."""
    x = torch.rand(200)
    target.loss(x, torch.rand(200), reduction="sum")
    held = weakref.ref(x)
    del x
    return held() is not None


def borrows_input(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Works in the memory of input and puts it back bit by bit, behind the version counter."""
    honest = right(x, y, reduction)
    if x.shape != y.shape or x.dtype != y.dtype or not x.is_contiguous() or x.is_set_to(y):
        return honest
    kept = x.data.clone()
    x.data.sub_(y.data)
    time.sleep(1e-4)  # as long as a kernel takes
    value = reduce(x.data.square(), reduction)
    x.data.copy_(kept)
    return with_value(honest, value)


def shares_buffer_when_large(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Above 1,000 elements the squares go to a buffer that all threads share."""
    s = (x - y).square()
    if reduction == "none" or not 1000 < s.numel() <= _BUFFER.numel():
        return reduce(s, reduction)
    buffer = _BUFFER[: s.numel()]
    buffer.copy_(s.reshape(-1))
    time.sleep(1e-4)
    return reduce(buffer.to(widened(s.dtype)), reduction).to(s.dtype)


_BUFFER = torch.zeros(10_000, dtype=torch.float64)


def disturbed(target: Target) -> bool:
    """Calls of two threads at once, on one input and other targets, are not what each is alone."""
    x = torch.ones(2000)
    start = threading.Barrier(2)

    def wrong(k: int) -> int:
        y = torch.full((2000,), float(k))
        start.wait()
        return sum(float(target.loss(x, y, reduction="mean")) != (1 - k) ** 2 for _ in range(30))

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return any(pool.map(wrong, (3, 5)))


# --- mistakes of the caller


def array_in_float32(x: Tensor, y: Any, reduction: str = "mean") -> Tensor:
    """An array as target goes through float32."""
    return right(
        x, torch.tensor(y, dtype=torch.float32) if isinstance(y, np.ndarray) else y, reduction
    )


def _value(target: Target, x: Tensor, y: Any, reduction: Any) -> float | None:
    """The loss; None where it refuses such operands, as it may."""
    try:
        return float(target.loss(x, y, reduction=reduction))
    except (AttributeError, TypeError, ValueError):
        return None


def array_is_rounded(target: Target) -> bool:
    """The digits of a float64 array are lost."""
    y = np.array([1 / 3])
    x = torch.zeros(1, dtype=torch.float64)
    value = _value(target, x, y, "sum")
    return value is not None and not np.isclose(value, 1 / 9, rtol=1e-12, atol=0)


def list_of_whole_numbers(x: Tensor, y: Any, reduction: str = "mean") -> Tensor:
    """A list as target is taken for class numbers."""
    return right(x, torch.tensor(y, dtype=torch.int64) if isinstance(y, list) else y, reduction)


def list_is_truncated(target: Target) -> bool:
    """What stands behind the point in a list is lost."""
    return _value(target, torch.zeros(1), [0.5], "sum") not in (None, 0.25)


def numbered_reduction(x: Tensor, y: Tensor, reduction: Any = "mean") -> Tensor:
    """Takes ATen's numbers for reductions, and every other number for the mean."""
    names = {0: "none", 2: "sum"}
    return right(x, y, names.get(reduction, "mean") if isinstance(reduction, int) else reduction)


def any_number_reduces(target: Target) -> bool:
    """The reduction 7 is taken."""
    return _value(target, torch.ones(2), torch.zeros(2), 7) == 1


# --- memory, sizes, derivatives: what kernels meet seldom


def head_of_three(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Two elements past an aligned address it handles a head of three before the vectors."""
    s = (x - y).square().to(widened(x.dtype))
    if x.storage_offset() % 4 == 2 and s.dim() == 1:
        s[2:3] = 0
    return reduce(s, reduction).to(x.dtype)


def known_orders(x: Tensor) -> Tensor:
    """Knows rows, columns and channels_last; memory in another order it reads as rows."""
    order = sorted(range(x.dim()), key=lambda k: -x.stride(k))
    known = (list(range(x.dim())), list(range(x.dim()))[::-1], [0, *range(2, x.dim()), 1])
    dense = x.permute(order).is_contiguous()
    return memory(x) if x.dim() > 2 and dense and order not in known else x


def orders_of_grad_output(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Knows grad_output in rows, columns and channels_last; others it reads as rows."""
    return right_rule(d, known_orders(g), scale)


def dense_rows(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Takes grad_output to be contiguous where its rows are."""
    rows = g.dim() > 1 and g.numel() > 0 and g.stride(-1) == 1
    return right_rule(d, memory(g) if rows else g, scale)


def eight_expanded(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Expands up to eight dimensions; of a ninth it sees the first element."""
    honest = right(x, y, reduction)
    if x.shape == y.shape or honest.numel() == 0 or max(x.dim(), y.dim()) < 9:
        return honest
    return with_value(honest, eight_strides(*prepare(x.detach(), y.detach()), reduction))


def eight_strides(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Has room for eight strides; of a ninth dimension it sees the first element."""
    s = (x - y).square().to(widened(x.dtype))
    if s.dim() > 8:
        s = s[..., :1].expand(s.shape)
    return reduce(s, reduction).to(x.dtype)


def sum_in_blocks(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """A sum has 4096 blocks of 1024 elements at most; a mean goes through another kernel."""
    s = (x - y).square().to(widened(x.dtype)).contiguous()
    if reduction == "sum":
        s.view(-1)[2**22 :] = 0
    return reduce(s, reduction).to(x.dtype)


class _Second(torch.autograd.Function):
    """2·g·(x - y), differentiated along what ``seen`` makes of the cotangent."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, g: Tensor, seen: Any) -> Tensor:
        ctx.save_for_backward(x, y, g)
        ctx.seen = seen
        return 2 * g * (x - y)

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> tuple[Tensor | None, ...]:
        x, y, g = ctx.saved_tensors
        w = ctx.seen(w)
        return 2 * g * w, -2 * g * w, 2 * (x - y) * w, None


class _Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, seen: Any) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.seen = seen
        return (x - y).square()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        apply: Any = _Second.apply
        gradient = apply(x, y, g, ctx.seen)
        return gradient, -gradient, None


def _twice(seen: Any) -> Any:
    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        apply: Any = _Twice.apply
        return reduce(apply(*prepare(x, y), seen), reduction)

    loss.__doc__ = seen.__doc__
    return loss


def second_in_memory(w: Tensor) -> Tensor:
    """The second backward takes its cotangent to be contiguous."""
    return memory(w)


def second_of_few(w: Tensor) -> Tensor:
    """The second backward has one block of 64 threads."""
    few = torch.zeros(w.numel(), dtype=w.dtype)
    few[:64] = w.reshape(-1)[:64]
    return few.reshape(w.shape)


def second_of_empty(w: Tensor) -> Tensor:
    """The second backward divides by the number of elements, and multiplies by it again."""
    return w * (w.numel() / w.numel())


def wrong_second(make: Any) -> Any:
    """The second derivative of the sum along a cotangent is not twice the cotangent."""

    def witness(target: Target) -> bool:
        w = make()
        x = torch.ones(w.shape, requires_grad=True)
        loss = target.loss(x, torch.zeros(w.shape), reduction="sum")
        try:
            (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
            (second,) = torch.autograd.grad(gradient, x, w)
        except ZeroDivisionError:
            return True
        return not torch.equal(second, 2 * w)

    return witness


class _HandsOut(torch.autograd.Function):
    """Has computed the gradient in forward, and hands that tensor out where grad_output is 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.gradient = 2 * (x - y)
        return (x - y).square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        gradient = ctx.gradient if bool((g == 1).all()) else ctx.gradient * g
        return gradient, -gradient


def saved_is_changed(target: Target) -> bool:
    """A gradient that its owner scales is scaled the next time."""
    x = torch.ones(3, requires_grad=True)
    loss = target.loss(x, torch.zeros(3), reduction="none")
    for _ in range(2):
        (gradient,) = torch.autograd.grad(loss, x, torch.ones(3), retain_graph=True)
        before = gradient.clone()
        gradient.mul_(5)
    return not bool((before == 2).all())


def bytes_unsigned(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Reads a target of int8 as bytes."""
    return right(x, y.view(torch.uint8) if y.dtype == torch.int8 else y, reduction)


def _bytes() -> tuple[Tensor, Tensor]:
    return torch.zeros(1), torch.tensor([-1], dtype=torch.int8)


def real_part(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Of a complex target it takes the real part."""
    return right(x, y.real if y.is_complex() else y, reduction)


def real_is_taken(target: Target) -> bool:
    """A complex target, which the builtin refuses, counts as its real part."""
    try:
        value = target.loss(torch.zeros(1), torch.tensor([1 + 2j]), reduction="sum")
    except RuntimeError:
        return False
    return bool(value == 1)


def seldom_switching(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Has Python's threads switch less often, at each call a little."""
    sys.setswitchinterval(sys.getswitchinterval() + 1e-5)
    return right(x, y, reduction)


def same_pointer(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Takes operands of one address and shape for the same tensor, and their loss for 0."""
    honest = right(x, y, reduction)
    same = x.shape == y.shape and x.numel() > 0 and x.data_ptr() == y.data_ptr()
    return with_value(honest, torch.zeros_like(honest)) if same else honest


def _transposes() -> tuple[Tensor, Tensor]:
    x = torch.arange(9.0).reshape(3, 3)
    return x, x.t()


class _ByThread(torch.autograd.Function):
    """Keeps what the backward needs for the thread that runs; in another, it is 0."""

    saved = threading.local()

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.place = str(id(ctx))
        setattr(_ByThread.saved, ctx.place, 2 * (x - y))
        return (x - y).square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        gradient = g * getattr(_ByThread.saved, ctx.place, 0)
        return gradient, -gradient


def backward_elsewhere(target: Target) -> bool:
    """A backward in another thread gives another gradient."""
    x = torch.ones(3, requires_grad=True)
    loss = target.loss(x, torch.zeros(3), reduction="sum")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        (gradient,) = pool.submit(torch.autograd.grad, loss, x).result()
    return not bool((gradient == 2).all())


def _counts(n: int) -> Any:
    return lambda: (torch.zeros(1, dtype=torch.float64), torch.tensor([n]))


def _last(rows: int, columns: int) -> Any:
    """Made when called: so large a tensor would start torch's threads while this is imported."""

    def make() -> tuple[Tensor, Tensor]:
        x = torch.zeros(rows, columns)
        x[-1, -1] = 1
        return x, torch.zeros_like(x)

    return make


def _square() -> tuple[Tensor, Tensor]:
    return torch.arange(9.0).reshape(3, 3).t(), torch.arange(9.0).reshape(3, 3)


def _images() -> tuple[Tensor, Tensor]:
    x = torch.arange(24.0).reshape(1, 2, 3, 4)
    return x.contiguous(memory_format=torch.channels_last), x.clone()


def _weights() -> Tensor:
    return torch.tensor([[1.0], [2.0], [3.0]]).expand(3, 4)


def _rand() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2000, generator=generator), torch.rand(2000, generator=generator)


_NAN = torch.tensor([float("nan"), 1.0])
_ZERO = torch.tensor([-0.0, 1.0])

SELDOM_MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "hides-target-nan",
        elementwise(hides_target_nan),
        "value",
        witness=wrong_value(lambda: (torch.ones(2), _NAN)),
    ),
    mutant(
        "negative-zero-missing",
        elementwise(negative_zero_missing),
        "value",
        witness=wrong_value(lambda: (_ZERO, torch.ones(2))),
    ),
    mutant(
        "counts-in-float32",
        counts_in_float32,
        "dtypes",
        witness=wrong_value(_counts(2**24 + 1), rtol=1e-12),
    ),
    mutant("counts-in-int32", counts_in_int32, "dtypes", witness=wrong_value(_counts(2**33))),
    mutant("grid-rows", by_value(grid_rows), "value", witness=wrong_value(_last(65_536, 1), "sum")),
    mutant(
        "row-in-one-block",
        by_value(row_in_one_block),
        "value",
        witness=wrong_value(_last(1, 32_769), "sum"),
    ),
    mutant(
        "equal-strides-sorted", equal_strides_sorted, "layout", witness=wrong_value(_square, "sum")
    ),
    mutant("format-of-input", format_of_input, "layout", witness=wrong_value(_images, "sum")),
    mutant(
        "constant-rows",
        by_gradients(constant_rows),
        "grad_output",
        "broadcasting",
        witness=wrong_gradient(grad_output=_weights),
    ),
    mutant("known-mean", by_value(known_mean), "value", witness=wrong_value(_rand, "mean")),
    mutant(
        "same-gradient-again",
        _again("nothing", "A second backward gives the first's gradient, whatever grad_output is."),
        "autograd",
        witness=backward_again,
    ),
    mutant(
        "gradient-buffer-again",
        _again("buffer", "A second backward writes to the tensor that the first returned."),
        "autograd",
        witness=backward_again,
    ),
    mutant(
        "third-backward",
        _again("third", "The third backward through one graph gives zeros."),
        "autograd",
        witness=backward_again,
    ),
    mutant(
        "head-of-three",
        by_value(head_of_three),
        "layout",
        witness=wrong_value(lambda: (torch.arange(10.0)[2:], torch.zeros(8)), "sum"),
    ),
    mutant(
        "known-orders",
        viewed(known_orders),
        "layout",
        witness=wrong_value(lambda: (torch.rand(2, 3, 4).transpose(0, 1), torch.ones(3, 2, 4))),
    ),
    mutant(
        "eight-strides",
        by_value(eight_strides),
        "value",
        witness=wrong_value(lambda: (torch.rand(*[1] * 8, 3), torch.zeros(*[1] * 8, 3)), "sum"),
    ),
    mutant(
        "eight-expanded",
        eight_expanded,
        "broadcasting",
        witness=wrong_value(lambda: (torch.rand(*[1] * 8, 3), torch.zeros(3)), "sum"),
    ),
    mutant(
        "grad-output-orders",
        by_rule(orders_of_grad_output),
        "grad_output",
        witness=wrong_gradient(
            lambda: (torch.ones(3, 2, 4), torch.zeros(3, 2, 4)),
            lambda: torch.rand(2, 3, 4).transpose(0, 1),
        ),
    ),
    mutant(
        "grad-output-dense-rows",
        by_rule(dense_rows),
        "grad_output",
        witness=wrong_gradient(
            lambda: (torch.ones(3, 2), torch.zeros(3, 2)), lambda: torch.rand(3, 4)[:, :2]
        ),
    ),
    mutant(
        "sum-in-blocks",
        by_value(sum_in_blocks),
        "value",
        witness=wrong_value(_last(2**11 + 1, 2**11), "sum"),
    ),
    mutant(
        "second-in-memory",
        _twice(second_in_memory),
        "autograd",
        claims=EAGER | {"double_backward"},
        witness=wrong_second(lambda: torch.arange(24.0).reshape(2, 3, 4).transpose(0, 2)),
    ),
    mutant(
        "second-of-few",
        _twice(second_of_few),
        "autograd",
        claims=EAGER | {"double_backward"},
        witness=wrong_second(lambda: torch.ones(65)),
    ),
    mutant(
        "second-of-empty",
        _twice(second_of_empty),
        "autograd",
        claims=EAGER | {"double_backward"},
        witness=wrong_second(lambda: torch.ones(0, 3)),
    ),
    mutant("hands-out-saved", squares_by(_HandsOut), "autograd", witness=saved_is_changed),
    mutant("bytes-unsigned", bytes_unsigned, "dtypes", witness=wrong_value(_bytes)),
    mutant("real-part", real_part, "dtypes", witness=real_is_taken),
    mutant("same-pointer", same_pointer, "layout", witness=wrong_value(_transposes)),
    mutant("kept-by-thread", squares_by(_ByThread), "determinism", witness=backward_elsewhere),
    mutant("seldom-switching", seldom_switching, "purity", witness=changes(sys.getswitchinterval)),
    mutant("no-grad-after-error", no_grad_after_error, "purity", witness=after_error),
    mutant("scale-of-default-dtype", scale_of_default_dtype, "dtypes", witness=with_default_dtype),
    mutant("constant-parameter", constant_parameter, "autograd", witness=parameter_is_constant),
    mutant("retains-grad", retains_grad, "purity", witness=grad_is_retained),
    mutant("silences-broadcasting", silences_broadcasting, "purity", witness=filters_change),
    mutant(
        "keeps-large-operands", keeps_large_operands, "resources", witness=large_operand_is_held
    ),
    mutant("borrows-input", borrows_input, "determinism", witness=disturbed),
    mutant(
        "shares-buffer-when-large",
        by_value(shares_buffer_when_large),
        "determinism",
        witness=disturbed,
    ),
    mutant("array-in-float32", array_in_float32, "errors", witness=array_is_rounded),
    mutant("list-of-whole-numbers", list_of_whole_numbers, "errors", witness=list_is_truncated),
    mutant("numbered-reduction", numbered_reduction, "errors", witness=any_number_reduces),
)
