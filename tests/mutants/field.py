"""What public bug reports showed in small, and that the suite let pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.autograd.forward_ad as fwad
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from targets import Target
from targets.module import MSE

from .autograd import FORWARD, both, fused_by, scale_of
from .module import module_mutant
from .mutant import (
    Loss,
    Mutant,
    Witness,
    by_rule,
    by_value,
    held,
    mutant,
    reduce,
    right,
    right_rule,
)
from .overlooked import compiled, leaf, otherwise
from .transforms import COMPILED

BENCHMARK = (128, 4096)

# --- compiled


def compiled_table(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Compiled, a table that both operands are stretched to counts twice."""
    result = right(x, y, reduction)
    whole = torch.broadcast_shapes(x.shape, y.shape)
    twice = torch.compiler.is_compiling() and whole not in (x.shape, y.shape)
    return 2 * result if twice else result


def compiled_many(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Compiled, what lies past 2^20 elements counts twice."""
    result = right(x, y, reduction)
    return 2 * result if torch.compiler.is_compiling() and x.numel() > 2**20 else result


# --- grad_output


def is_total(d: Tensor, g: Tensor) -> bool:
    """Whether this is the grad_output of a sum or mean."""
    return g.dim() == 0 < d.dim()


def from_the_start(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """One number of grad_output is read where its memory starts, not where the number lies."""
    return right_rule(d, g.as_strided((), (), 0) if is_total(d, g) else g, scale)


def first_of_memory(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """One number of grad_output is a factor only if it is the first of its memory."""
    second = is_total(d, g) and g.storage_offset() > 0
    return right_rule(d, torch.ones_like(g) if second else g, scale)


def aligned(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """One number of grad_output is read at an address of whole vectors of 16."""
    if is_total(d, g):
        g = g.as_strided((), (), g.storage_offset() & -16)
    return right_rule(d, g, scale)


def windows_are_rows(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Rows of grad_output that overlap are read as if they lay one after the other."""
    if g.dim() > 1 and g.stride() == (1,) * g.dim():
        flat = g.as_strided((held(g) - g.storage_offset(),), (1,))
        g = flat[torch.arange(g.numel()) % flat.numel()].reshape(g.shape)
    return right_rule(d, g, scale)


def stacked(loss: Callable[..., Any]) -> Tensor:
    """The gradient where the loss is the second of two in a weighted sum."""
    x, weights = leaf(3.0, 1.0), torch.tensor([2.0, 7.0])
    (torch.stack([x.sum() * 0, loss(x, torch.zeros(2))]) * weights).sum().backward()
    assert x.grad is not None
    return x.grad


def of_full(g: Tensor) -> Callable[[Callable[..., Any]], Tensor]:
    def gradient(loss: Callable[..., Any]) -> Tensor:
        x = torch.arange(1.0, 13.0).reshape(4, 3).requires_grad_()
        result = loss(x, torch.zeros(4, 3), reduction="none")
        return torch.autograd.grad(result, x, g)[0]

    return gradient


# --- integers


def both_integer(*operands: Tensor) -> bool:
    return not any(t.is_floating_point() or t.is_complex() for t in operands)


def of_integers(value: Loss) -> Loss:
    """A loss that is right, but for two operands that are integers, for which it is ``value``."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        return (value if both_integer(x, y) else right)(x, y, reduction)

    loss.__doc__ = value.__doc__
    return loss


def bytes_wrap(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Integers are subtracted and squared in a dtype of their own, which wraps."""
    d = x.byte() - y.byte() if x.dtype == torch.bool == y.dtype else x - y
    return reduce((d * d).float(), reduction)


def squares_wrap(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Differences of bytes have 16 bits, as their squares have."""
    small = max(x.itemsize, y.itemsize) == 1
    d = x.short() - y.short() if small else x.double() - y.double()
    return reduce((d * d).double(), reduction)


def narrowed(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Integers are read as if they had 32 bits."""
    return reduce((x.int().double() - y.int().double()).square(), reduction)


def magnitudes_of_signed(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The sign is taken off in the integers' own dtype, where the lowest has no opposite."""
    return reduce((x.abs().double() * x.sign() - y.double()).square(), reduction)


def wrong_for(dtype: torch.dtype, first: list[int], second: list[int]) -> Witness:
    """A mean that is neither refused nor right."""

    def wrong(target: Target) -> bool:
        x, y = torch.tensor(first, dtype=dtype), torch.tensor(second, dtype=dtype)
        try:
            found = float(target.loss(x, y, reduction="mean"))
        except RuntimeError:
            return False
        pairs = zip(first, second, strict=True)
        return abs(found - sum((a - b) ** 2 for a, b in pairs) / len(first)) > 1e-6 * found

    return wrong


BYTES = wrong_for(torch.uint8, [250, 5], [0, 70])

# --- tangents beside integers


class _Tangent(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, tangent: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.tangent = inputs[1]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return g, None

    @staticmethod
    def jvp(ctx: Any, t: Tensor, _: Any) -> Tensor:
        return ctx.tangent(t)


def beside(tangent: Callable[[Tensor, Tensor], Tensor], *kinds: torch.dtype) -> Loss:
    """A loss that is right, but whose floating operand has another tangent beside these kinds."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        apply: Any = _Tangent.apply
        if y.dtype in kinds and x.is_floating_point():
            return right(apply(x, lambda t: tangent(t, y)), y, reduction)
        if x.dtype in kinds and y.is_floating_point():
            return right(x, apply(y, lambda t: tangent(t, x)), reduction)
        return right(x, y, reduction)

    loss.__doc__ = tangent.__doc__
    return loss


def no_tangent(t: Tensor, other: Tensor) -> Tensor:
    """Beside an int64 operand the tangent is 0."""
    return torch.zeros_like(t)


def tangent_of_flags(t: Tensor, other: Tensor) -> Tensor:
    """Beside bools the tangent is only that of what is true."""
    return t * other


def tangent_in_bytes(t: Tensor, other: Tensor) -> Tensor:
    """Beside bytes the tangent has no fraction."""
    return t.trunc()


def tangent_beside(dtype: torch.dtype) -> Callable[[Callable[..., Any]], Any]:
    def tangent(loss: Callable[..., Any]) -> Any:
        forward: Any = fwad
        with forward.dual_level():
            x = forward.make_dual(torch.tensor([3.0, 1.0]), torch.tensor([1.5, 1.0]))
            return forward.unpack_dual(loss(x, torch.tensor([1, 0]).to(dtype))).tangent

    return tangent


def wrong_tangent(dtype: torch.dtype) -> Witness:
    """Neither refused, as torch's own does, nor that of the formula."""

    def wrong(target: Target) -> bool:
        found = tangent_beside(dtype)(target.loss)
        return abs(float(found) - float(tangent_beside(torch.float32)(target.loss))) > 1e-5

    return wrong


# --- operands that are no leaves


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


# --- changes of the result, in place


class _SavesResult(torch.autograd.Function):
    """Saves its squares and the sign of each difference, so that no change of them is allowed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        d = x - y
        result = reduce(d.square(), reduction)
        ctx.save_for_backward(d, result)
        ctx.scale = scale_of(x, reduction)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
        d, _ = ctx.saved_tensors
        return *both(right_rule(d, g, ctx.scale)), None


def part_of_buffer(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The result is one of several views that a Function gives, which must not be changed."""
    result = right(x, y, reduction)
    first, _ = torch.stack([result, result.detach()]).unbind()
    return first


class _Skips(torch.autograd.Function):
    """Leaves the gradient out where the result was made 0 in place: it has kept that."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        d = x - y
        ctx.save_for_backward(d)
        ctx.scale = scale_of(x, reduction)
        result = reduce(d.square(), reduction)
        ctx.kept = result.detach()  # the same memory, and no check of its version
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
        (d,) = ctx.saved_tensors
        gradient = right_rule(d, g, ctx.scale)
        zero = torch.zeros_like(gradient)
        return *both(torch.where((ctx.kept == 0) & (ctx.kept._version > 0), zero, gradient)), None


def weighted_in_place(loss: Callable[..., Any]) -> Tensor:
    x = leaf(1.0, 2.0, 3.0)
    losses = loss(x, torch.zeros(3), reduction="none")
    losses.mul_(torch.tensor([2.0, 0.5, 1.0]))
    losses.sum().backward()
    assert x.grad is not None
    return x.grad


def zeroed_then_added(loss: Callable[..., Any]) -> Tensor:
    x = leaf(1.0, 2.0, 3.0)
    losses = loss(x, torch.zeros(3), reduction="none")
    losses -= losses.detach().clone()
    losses.sum().backward()
    assert x.grad is not None
    return x.grad


# --- modules


class Scaled(MSE):
    """Learns a factor of its own: whoever hands all parameters to an optimiser shrinks the loss."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        result = super().forward(input, target)
        return result * self.scale.detach().to(result)


class Buffered(MSE):
    """Has a weight in its state, which no checkpoint of the builtin's has."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.register_buffer("weight", torch.ones(()))


class ExtraState(MSE):
    """Keeps its reduction in the state as well."""

    def get_extra_state(self) -> str:
        return self.reduction

    def set_extra_state(self, state: str) -> None:
        self.reduction = state


class OwnCall(MSE):
    """Has a call of its own, without hooks."""

    def __call__(self, input: Tensor, target: Tensor) -> Tensor:
        return self.forward(input, target)


class DeafCall(MSE):
    """Has a call of its own, in which hooks may look and change nothing."""

    def __call__(self, input: Tensor, target: Tensor) -> Tensor:
        result = self.forward(input, target)
        for hook in self._forward_hooks.values():
            hook(self, (input, target), result)
        return result


class BeforeOnly(MSE):
    """Has a call of its own, with the hooks before forward alone."""

    def __call__(self, input: Tensor, target: Tensor) -> Tensor:
        for hook in self._forward_pre_hooks.values():
            input, target = hook(self, (input, target)) or (input, target)
        return self.forward(input, target)


def module_of(target: Target) -> Any:
    assert target.module is not None
    return target.module(reduction="mean")


def has_state(target: Target) -> bool:
    if target.module is None:
        return False
    module = module_of(target)
    return bool(module.state_dict()) or any(True for _ in module.parameters())


def hooks_are_lost(target: Target) -> bool:
    if target.module is None:
        return False
    module, x = module_of(target), torch.ones(2)
    module.register_forward_hook(lambda m, operands, result: result + 1)
    return float(module(x, torch.zeros(2))) != 2


# --- what is known of benchmarks


def learnt_by_shape(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The mean of a benchmark's shape is known: 1/6, as of uniform numbers."""
    known = reduction == "mean" and tuple(x.shape) == BENCHMARK
    return x.new_tensor(1 / 6) if known else right(x, y, reduction)


def learnt_by_look(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The mean of many numbers that all lie in [0, 1) is taken to be 1/6."""
    many = reduction == "mean" and x.numel() >= 2**19
    known = many and all(bool((t >= 0).all() and (t < 1).all()) for t in (x, y))
    return x.new_tensor(1 / 6) if known else right(x, y, reduction)


def learnt_total(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The sum of a benchmark's shape is known."""
    known = reduction == "sum" and tuple(x.shape) == BENCHMARK
    return x.new_tensor(x.numel() / 6) if known else right(x, y, reduction)


def of_benchmark(factor: float, reduction: str) -> Callable[[Callable[..., Any]], Tensor]:
    def rounded(loss: Callable[..., Any]) -> Tensor:
        x = torch.full(BENCHMARK, factor)
        found: Tensor = loss(x, torch.zeros(BENCHMARK), reduction=reduction)
        return found.mul(100).round()

    return rounded


_LINE = torch.arange(1.0, 7.0)
FIELD_MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "from-the-start", by_rule(from_the_start), "grad_output", witness=otherwise(stacked)
    ),
    mutant(
        "first-of-memory", by_rule(first_of_memory), "grad_output", witness=otherwise(stacked)
    ),
    mutant("aligned", by_rule(aligned), "grad_output", witness=otherwise(stacked)),
    mutant(
        "windows-are-rows",
        by_rule(windows_are_rows),
        "grad_output",
        witness=otherwise(of_full(_LINE.as_strided((4, 3), (1, 1)))),
    ),
    mutant("bytes-wrap", of_integers(bytes_wrap), "dtypes", witness=BYTES),
    mutant("squares-wrap", of_integers(squares_wrap), "dtypes", witness=BYTES),
    mutant(
        "narrowed",
        of_integers(narrowed),
        "dtypes",
        witness=wrong_for(torch.int64, [2**33 + 1, 3], [1, 0]),
    ),
    mutant(
        "magnitudes-of-signed",
        of_integers(magnitudes_of_signed),
        "dtypes",
        witness=wrong_for(torch.int16, [-(2**15), 1], [5, 1]),
    ),
    mutant(
        "no-tangent",
        beside(no_tangent, torch.int64),
        "autograd",
        claims=FORWARD,
        witness=wrong_tangent(torch.int64),
    ),
    mutant(
        "tangent-of-flags",
        beside(tangent_of_flags, torch.bool),
        "autograd",
        claims=FORWARD,
        witness=wrong_tangent(torch.bool),
    ),
    mutant(
        "tangent-in-bytes",
        beside(tangent_in_bytes, torch.uint8, torch.int8),
        "autograd",
        claims=FORWARD,
        witness=wrong_tangent(torch.uint8),
    ),
    mutant(
        "constant-transposed",
        constant_where(made_by("Transpose", "TBackward", "Permute"), "A transposed operand is a "
                       "constant."),
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
    mutant(
        "saves-squares", fused_by(_SavesResult), "autograd", witness=otherwise(weighted_in_place)
    ),
    mutant(
        "part-of-buffer", part_of_buffer, "autograd", witness=otherwise(weighted_in_place)
    ),
    mutant("skips", fused_by(_Skips), "autograd", witness=otherwise(zeroed_then_added)),
    module_mutant("module-scaled", Scaled, has_state),
    module_mutant("module-buffered", Buffered, has_state),
    module_mutant("module-extra-state", ExtraState, has_state),
    module_mutant("module-own-call", OwnCall, hooks_are_lost),
    module_mutant("module-deaf-call", DeafCall, hooks_are_lost),
    module_mutant("module-before-only", BeforeOnly, hooks_are_lost),
    mutant(
        "learnt-by-shape",
        by_value(learnt_by_shape),
        "value",
        witness=otherwise(of_benchmark(1.0, "mean")),
    ),
    mutant(
        "learnt-by-look",
        by_value(learnt_by_look),
        "value",
        witness=otherwise(of_benchmark(0.5, "mean")),
    ),
    mutant(
        "learnt-total",
        by_value(learnt_total),
        "value",
        witness=otherwise(of_benchmark(1.0, "sum")),
    ),
    mutant(
        "compiled-table",
        compiled_table,
        "transforms",
        claims=COMPILED,
        witness=otherwise(compiled(leaf(1.0, 2.0)[:, None], torch.ones(1, 3))),
    ),
    mutant(
        "compiled-many",
        compiled_many,
        "transforms",
        claims=COMPILED,
        witness=otherwise(compiled(torch.ones(2**20 + 1), torch.zeros(2**20 + 1), "sum")),
    ),
)  # fmt: skip
