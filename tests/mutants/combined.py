"""Defects that show only where two things meet: a size and a layout, a mode and a shape."""

from __future__ import annotations

import concurrent.futures
import contextlib
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targets import Target
from targets.module import MSE
from targets.operands import check_reduction, prepare
from targets.target import REDUCTIONS

from .autograd import TWICE
from .module import module_mutant
from .mutant import (
    EAGER,
    Loss,
    Mutant,
    Pair,
    Witness,
    by_gradients,
    by_rule,
    memory,
    mutant,
    reduce,
    right,
    right_gradients,
    right_rule,
    viewed,
)
from .transforms import COMPILED, FUNCTORCH, fronted, transforming

Change = Callable[[Tensor], Tensor]
GRID = 65_536  # elements that one launch reaches
INTERNALS: Any = torch._C._functorch


class _Via(torch.autograd.Function):
    """The identity, with ``change`` for its backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, change: Change) -> Tensor:
        ctx.change = change
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return ctx.change(g), None


def via(x: Tensor, change: Change) -> Tensor:
    """``x``, whose gradient passes through ``change``."""
    apply: Any = _Via.apply
    result: Tensor = apply(x, change)
    return result


def head(v: Tensor, n: int) -> Tensor:
    """What lies past the first ``n`` elements is 0."""
    flat = v.reshape(-1)
    return torch.cat([flat[:n], torch.zeros_like(flat[n:])]).reshape(v.shape)


# --- a size, and something else


def past_grid(odd: Callable[[Tensor, Tensor], bool], doc: str) -> Loss:
    """A kernel for ``odd`` operands that one launch must reach the whole of."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        a, b = prepare(x, y)
        s = (a - b).square()
        return reduce(head(s, GRID) if odd(x, y) else s, reduction)

    loss.__doc__ = doc
    return loss


def large_grad_output(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Reads a large grad_output as if it were contiguous."""
    return right_rule(d, memory(g) if g.numel() > GRID else g, scale)


def fold_first_rows(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The gradient of a row is the sum over the first 4,096 rows that it stands for."""
    a, b = prepare(x, y)
    if x.shape != y.shape and b.dim() == 2:
        b = via(b, lambda g: head(g, 4096 * g.shape[1]))
    return right(a, b, reduction)


def eight_channels(v: Tensor) -> Tensor:
    """Images in channels_last are read as they lie, eight channels at a time, where that fits."""
    last = v.dim() == 4 and v.is_contiguous(memory_format=torch.channels_last)
    return memory(v) if last and not v.is_contiguous() and v.shape[1] % 8 == 0 else v


def of_threads(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Pair:
    """Each thread has its share of the gradient; what is left over belongs to none."""
    threads = torch.get_num_threads()
    shared = x.numel() // threads * threads if x.numel() >= 32_768 else x.numel()
    first, second = right_gradients(x, y, g, scale)
    return head(first, shared), head(second, shared)


# --- autograd


class _ScaleOnClass(torch.autograd.Function):
    """Keeps 2/n on the class: it is that of the last call."""

    scale = 2.0

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        ctx.save_for_backward(x, y)
        _ScaleOnClass.scale = 2 / max(x.numel(), 1) if reduction == "mean" else 2.0
        return reduce((x - y).square(), reduction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        return *right_gradients(x, y, g, _ScaleOnClass.scale), None


def class_scale(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Keeps 2/n on the class: it is that of the last call."""
    apply: Any = _ScaleOnClass.apply
    result: Tensor = apply(*prepare(x, y), check_reduction(reduction))
    return result


def detaches_view(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """A target that is a view is detached, as if it were a constant slice of the data."""
    return right(x, y.detach() if y._is_view() else y, reduction)


def second_of_pairs(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Has a second derivative only where both operands need a gradient."""
    alone = x.requires_grad and not y.requires_grad
    return right(via(x, Tensor.detach) if alone else x, y, reduction)


class _Head(torch.autograd.Function):
    """The identity, whose derivatives of both modes have one block of 1,024."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return head(g, 1024)

    @staticmethod
    def jvp(ctx: Any, t: Tensor) -> Tensor:
        return head(t, 1024)


def second_of_thousand(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The second backward has one block of 1,024."""
    a, b = prepare(x, y)
    cut: Any = _Head.apply
    return right(via(a, cut), b, reduction)


def tangent_of_thousand(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The tangent has one block of 1,024."""
    a, b = prepare(x, y)
    level: int = torch.autograd.forward_ad._current_level
    cut: Any = _Head.apply
    return right(cut(a) if level >= 0 else a, b, reduction)


# --- torch.func


class _Unaligned(torch.autograd.Function):
    """The difference; its rule for vmap aligns samples of different ranks on the right."""

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> Tensor:
        return x - y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.shapes = inputs[0].shape, inputs[1].shape

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        return g.sum_to_size(ctx.shapes[0]), -g.sum_to_size(ctx.shapes[1])

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], x: Tensor, y: Tensor) -> tuple[Tensor, int]:
        apply: Any = _Unaligned.apply
        return apply(fronted(x, dims[0]), fronted(y, dims[1])), 0


def aligned_samples(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Its rule for vmap aligns samples of different ranks on the right."""
    if not transforming() or x.dtype != y.dtype:
        return right(x, y, reduction)
    apply: Any = _Unaligned.apply
    return reduce(apply(x, y).square(), reduction)


class _Negated(torch.autograd.Function):
    """The identity, whose gradient has the other sign."""

    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return -g


def mapped_sign(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Under vmap the target has the gradient of the input."""
    inner = INTERNALS.get_unwrapped(y) if INTERNALS.is_gradtrackingtensor(y) else y
    apply: Any = _Negated.apply
    return right(x, apply(y) if INTERNALS.is_batchedtensor(inner) else y, reduction)


def batched_sign(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Of a batch of gradients, those of the target have the sign of the input's."""
    a, b = prepare(x, y)
    return right(
        a, via(b, lambda g: -g if INTERNALS.is_batchedtensor(g) or _old(g) else g), reduction
    )


def _old(g: Tensor) -> bool:
    return bool(INTERNALS.is_legacy_batchedtensor(g))


# --- modes


def compiled_count(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Compiled, it divides by the number of the input's elements."""
    if torch.compiler.is_compiling() and reduction == "mean":
        return right(x, y, "sum") / x.numel()
    return right(x, y, reduction)


def compiled_dtype(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Compiled, it has the input's dtype."""
    return right(x, y.to(x.dtype) if torch.compiler.is_compiling() else y, reduction)


def meta_dtype(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """On the meta device it has the input's dtype."""
    return right(x, y.to(x.dtype) if y.is_meta and x.is_floating_point() else y, reduction)


def deterministic_fold(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """In deterministic mode a broadcast operand has half its gradient."""
    halved = torch.are_deterministic_algorithms_enabled() and x.shape != y.shape
    return right(via(x, lambda g: g / 2) if halved else x, y, reduction)


# --- mistakes of the caller


def unchecked_with_gradient(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Where a gradient is needed, an unknown reduction is the mean."""
    needed = x.requires_grad or y.requires_grad
    return right(x, y, "mean" if needed and reduction not in REDUCTIONS else reduction)


def unchecked_scalar(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Scalars are not reduced, by whatever reduction."""
    return right(x, y, "none" if x.dim() == y.dim() == 0 else reduction)


def none_is_none(x: Tensor, y: Tensor, reduction: str | None = "mean") -> Tensor:
    """A reduction of None is none."""
    return right(x, y, reduction or "none" if reduction != "" else reduction)


def cut_with_gradient(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Where a gradient is needed, vectors of different lengths are cut to the shorter."""
    if x.requires_grad and x.dim() == y.dim() == 1 and 1 not in (len(x), len(y)):
        n = min(len(x), len(y))
        x, y = x[:n], y[:n]
    return right(x, y, reduction)


def empty_before_shapes(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Operands of no elements are right whatever their shapes."""
    if x.numel() == y.numel() == 0 and x.dim() == y.dim():
        y = y.new_empty(x.shape) if 1 not in (*x.shape, *y.shape) else y
    return right(x, y, reduction)


# --- what is kept


def _waiting() -> Loss:
    kept: dict[int, tuple[object, Tensor, Tensor]] = {}

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        """Keeps the operands until a backward comes."""
        result = right(x, y, reduction)
        if result.requires_grad:
            key = object()
            kept[id(key)] = key, x.detach(), y.detach()
            result.register_hook(lambda g: kept.pop(id(key), None) and None)
        return result

    return loss


def _failed() -> Loss:
    kept: list[tuple[Tensor, Tensor]] = []

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        """Keeps the operands of calls that raise, for a report."""
        try:
            return right(x, y, reduction)
        except RuntimeError:
            kept.append((x, y))
            raise

    return loss


def _shared() -> Loss:
    buffers: dict[Any, Tensor] = {}

    def through(g: Tensor) -> Tensor:
        buffer = buffers.setdefault((g.shape, g.dtype), torch.empty_like(g))
        buffer.copy_(g)
        time.sleep(1e-5)  # where a kernel would run, without the interpreter's lock
        return buffer.clone()

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        """The target's gradient goes through one buffer for all threads."""
        a, b = prepare(x, y)
        return right(a, via(b, through) if b.requires_grad else b, reduction)

    return loss


def _by_chance(g: Tensor) -> Tensor:
    """Rows in an order of chance, of which the sum is taken next."""
    order = torch.randperm(len(g), generator=CHANCE)
    return g[order]


CHANCE = torch.Generator()
CHANCE.seed()


def atomic_fold(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The gradients of rows are added to that of a broadcast target as they arrive."""
    a, b = prepare(x, y)
    fold = x.dim() == 2 and y.shape == x.shape[1:]
    return right(a, via(b, _by_chance) if fold else b, reduction)


# --- modules


class Typo(MSE):
    """Takes an unknown reduction for the mean."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction if reduction in REDUCTIONS else "mean")


class Squeezes(MSE):
    """Squeezes a last dimension of 1, where the function broadcasts."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        if input.dim() == target.dim() + 1 and input.shape[-1] == 1:
            input = input.squeeze(-1)
        return super().forward(input, target)


class WholeInHalf(MSE):
    """Takes integers as bfloat16."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return super().forward(input, target if target.is_floating_point() else target.bfloat16())


class Weighted(MSE):
    """Has a weight of its own, so that every result needs a gradient."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        result = super().forward(input, target)
        return result * self.weight.to(result.dtype)


# --- witnesses


def unlike_builtin(use: Callable[[Any], Tensor]) -> Witness:
    """Whether ``use`` makes of a loss another tensor than of the builtin, or raises."""

    def witness(target: Target) -> bool:
        wanted = use(F.mse_loss)
        try:
            got = use(target.loss)
        except Exception:
            return True
        if got.dtype != wanted.dtype or got.shape != wanted.shape:
            return True
        return not got.is_meta and not torch.allclose(got.double(), wanted.double(), rtol=1e-3)

    return witness


def accepts(call: Callable[[Any], object]) -> Witness:
    """Whether a call does not raise."""

    def witness(target: Target) -> bool:
        try:
            call(target.loss)
        except Exception:
            return False
        return True

    return witness


def ramp(*shape: int) -> Tensor:
    return torch.arange(float(torch.Size(shape).numel())).reshape(shape) % 7 + 1


def leaf(*shape: int) -> Tensor:
    return ramp(*shape).requires_grad_()


def gradient_of(x: Tensor, result: Tensor, g: Tensor | None = None) -> Tensor:
    return torch.autograd.grad(result, x, torch.ones_like(result) if g is None else g)[0]


def with_four_threads(loss: Any) -> Tensor:
    torch.set_num_threads(4)
    x = leaf(40_009)
    return gradient_of(x, loss(x, torch.zeros(40_009), reduction="sum"))


def fold_of_rows(loss: Any) -> Tensor:
    y = leaf(8)
    return gradient_of(y, loss(torch.zeros(5000, 8), y, reduction="sum"))


def large_transposed_cotangent(loss: Any) -> Tensor:
    x = leaf(300, 400)
    g = ramp(400, 300).t()
    return gradient_of(x, loss(x, torch.zeros(300, 400), reduction="none"), g)


def mean_before_sum(loss: Any) -> Tensor:
    x, other = leaf(6), leaf(4)
    mean = loss(x, torch.zeros(6), reduction="mean")
    loss(other, torch.zeros(4), reduction="sum")
    return gradient_of(x, mean)


def of_a_view(loss: Any) -> Tensor:
    base = leaf(4)
    return gradient_of(base, loss(torch.zeros(2), base[1:3], reduction="sum"))


def second(loss: Any, n: int = 2000) -> Tensor:
    x = leaf(n)
    result = loss(x, torch.zeros(n), reduction="sum")
    (g,) = torch.autograd.grad(result, x, create_graph=True)
    return gradient_of(x, g)


def tangent(loss: Any) -> Tensor:
    forward: Any = torch.autograd.forward_ad
    with forward.dual_level():
        x = forward.make_dual(ramp(2000), ramp(2000))
        result: Tensor = forward.unpack_dual(loss(x, torch.zeros(2000), reduction="sum")).tangent
    return result


def samples_of_two_ranks(loss: Any) -> Tensor:
    own = loss if loss is not F.mse_loss else right  # the builtin's rule warns
    return torch.func.vmap(lambda x, y: own(x, y, reduction="sum"))(ramp(4, 4), ramp(4))


def mapped_gradient(loss: Any) -> Tensor:
    gradient = torch.func.grad(lambda x, y: loss(x, y, reduction="sum"), argnums=1)
    return torch.func.vmap(gradient)(ramp(3, 4), torch.zeros(3, 4))


def batched_gradients(loss: Any) -> Tensor:
    y = leaf(4)
    result = loss(torch.zeros(4), y, reduction="none")
    return torch.autograd.grad(result, y, ramp(3, 4), is_grads_batched=True)[0]


def compiled(loss: Any, *operands: Tensor) -> Tensor:
    torch._dynamo.reset()
    function: Any = torch.compile(lambda x, y: loss(x, y, reduction="mean"), backend="aot_eager")
    result: Tensor = function(*operands)
    return result


def on_meta(loss: Any) -> Tensor:
    result: Tensor = loss(torch.ones(3, device="meta").half(), torch.ones(3, device="meta"))
    return result


def in_deterministic_mode(loss: Any) -> Tensor:
    torch.use_deterministic_algorithms(True)
    x = leaf(3)
    return gradient_of(x, loss(x, torch.zeros(2, 3), reduction="sum"))


def operands_stay(calls: Callable[[Any], object]) -> Witness:
    """Each of ten calls leaves something in what the loss keeps."""

    def witness(target: Target) -> bool:
        cells = getattr(target.loss, "__closure__", None) or ()
        kept: Any = next((cell.cell_contents for cell in cells), ())
        before = len(kept)
        for _ in range(10):
            calls(target.loss)
        grown = len(kept) - before
        if grown:
            kept.clear()
        return grown == 10

    return witness


def raises(loss: Any) -> None:
    with contextlib.suppress(RuntimeError):
        loss(torch.ones(3), torch.ones(4))


def from_threads(target: Target) -> bool:
    """Threads get gradients of each other's target."""

    def wrong(k: int) -> int:
        y = torch.full((50,), float(k + 1), requires_grad=True)
        found = (
            gradient_of(y, target.loss(torch.zeros(50), y, reduction="sum")) for _ in range(50)
        )
        return sum(not torch.equal(g, 2 * y.detach()) for g in found)

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return sum(pool.map(wrong, range(4))) > 0


def repeats_differ(target: Target) -> bool:
    """The fold of the same operands has other bits."""

    def once() -> Tensor:
        y = torch.ones(8, requires_grad=True)
        x = torch.linspace(0.1, 3, 8000).reshape(1000, 8)
        return gradient_of(y, target.loss(x, y, reduction="mean"))

    first = once()
    return any(not torch.equal(first, once()) for _ in range(9))


def typo_is_taken(target: Target) -> bool:
    """A module is made and called with an unknown reduction."""
    return target.module is not None and accepts(
        lambda _: target.module and target.module(reduction="meen")(ramp(3), ramp(3))
    )(target)


def module_unlike(*operands: Tensor) -> Witness:
    """The module's result, or whether it needs a gradient, is not the builtin's."""

    def witness(target: Target) -> bool:
        if target.module is None:
            return False
        got, wanted = target.module()(*operands), F.mse_loss(*operands)
        return bool(got.requires_grad or not torch.allclose(got, wanted))

    return witness


def _large(x: Tensor, y: Tensor) -> Witness:
    return unlike_builtin(lambda loss: loss(x, y, reduction="sum"))


COMBINED_MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "large-strided",
        past_grid(
            lambda x, y: not (x.is_contiguous() and y.is_contiguous()),
            "Of operands that are not contiguous it reaches one grid.",
        ),
        "layout",
        witness=_large(ramp(300, 400).t(), torch.zeros(400, 300)),
    ),
    mutant(
        "large-mixed",
        past_grid(lambda x, y: x.dtype != y.dtype, "Of two dtypes it reaches one grid."),
        "dtypes",
        witness=_large(ramp(100_000), torch.zeros(100_000).bfloat16()),
    ),
    mutant(
        "large-broadcast",
        past_grid(lambda x, y: x.shape != y.shape, "Of two shapes it reaches one grid."),
        "broadcasting",
        witness=_large(ramp(2000, 64), torch.zeros(64)),
    ),
    mutant(
        "large-grad-output",
        by_rule(large_grad_output),
        "grad_output",
        witness=unlike_builtin(large_transposed_cotangent),
    ),
    mutant(
        "fold-first-rows", fold_first_rows, "broadcasting", witness=unlike_builtin(fold_of_rows)
    ),
    mutant(
        "eight-channels",
        viewed(eight_channels),
        "layout",
        witness=_large(
            ramp(2, 8, 3, 3).to(memory_format=torch.channels_last), 2 * ramp(2, 8, 3, 3)
        ),
    ),
    mutant(
        "gradient-of-threads",
        by_gradients(of_threads),
        "determinism",
        witness=unlike_builtin(with_four_threads),
    ),
    mutant("scale-on-class", class_scale, "autograd", witness=unlike_builtin(mean_before_sum)),
    mutant("detaches-view", detaches_view, "autograd", witness=unlike_builtin(of_a_view)),
    mutant(
        "second-of-pairs",
        second_of_pairs,
        "autograd",
        claims=TWICE,
        witness=unlike_builtin(lambda loss: second(loss, 3)),
    ),
    mutant(
        "second-of-thousand",
        second_of_thousand,
        "autograd",
        claims=TWICE,
        witness=unlike_builtin(second),
    ),
    mutant(
        "tangent-of-thousand",
        tangent_of_thousand,
        "autograd",
        claims=EAGER | {"forward_ad"},
        witness=unlike_builtin(tangent),
    ),
    mutant(
        "aligned-samples",
        aligned_samples,
        "transforms",
        claims=FUNCTORCH,
        witness=unlike_builtin(samples_of_two_ranks),
    ),
    mutant(
        "mapped-sign",
        mapped_sign,
        "transforms",
        claims=FUNCTORCH,
        witness=unlike_builtin(mapped_gradient),
    ),
    mutant(
        "batched-sign",
        batched_sign,
        "transforms",
        claims=FUNCTORCH,
        witness=unlike_builtin(batched_gradients),
    ),
    mutant(
        "compiled-count",
        compiled_count,
        "transforms",
        claims=COMPILED,
        witness=unlike_builtin(lambda loss: compiled(loss, ramp(3), torch.zeros(2, 3))),
    ),
    mutant(
        "compiled-dtype",
        compiled_dtype,
        "transforms",
        claims=COMPILED,
        witness=unlike_builtin(lambda loss: compiled(loss, ramp(3).half(), torch.zeros(3))),
    ),
    mutant(
        "meta-dtype", meta_dtype, "transforms", claims=COMPILED, witness=unlike_builtin(on_meta)
    ),
    mutant(
        "deterministic-fold",
        deterministic_fold,
        "transforms",
        witness=unlike_builtin(in_deterministic_mode),
    ),
    mutant(
        "unchecked-with-gradient",
        unchecked_with_gradient,
        "errors",
        witness=accepts(lambda loss: loss(leaf(3), ramp(3), reduction="meen")),
    ),
    mutant(
        "unchecked-scalar",
        unchecked_scalar,
        "errors",
        witness=accepts(lambda loss: loss(torch.ones(()), torch.ones(()), reduction="meen")),
    ),
    mutant(
        "none-is-none",
        none_is_none,
        "errors",
        witness=accepts(lambda loss: loss(ramp(3), ramp(3), reduction=None)),
    ),
    mutant(
        "cut-with-gradient",
        cut_with_gradient,
        "broadcasting",
        witness=accepts(lambda loss: loss(leaf(3), ramp(4))),
    ),
    mutant(
        "empty-before-shapes",
        empty_before_shapes,
        "broadcasting",
        witness=accepts(lambda loss: loss(torch.ones(0, 3), torch.ones(0, 4))),
    ),
    mutant(
        "waits-for-backward",
        _waiting(),
        "resources",
        witness=operands_stay(lambda loss: loss(leaf(3), ramp(3))),
    ),
    mutant("keeps-failed", _failed(), "resources", witness=operands_stay(raises)),
    mutant("shared-target-gradient", _shared(), "determinism", witness=from_threads),
    mutant("atomic-fold", atomic_fold, "determinism", witness=repeats_differ),
    module_mutant("module-typo", Typo, typo_is_taken, "errors"),
    module_mutant("module-squeezes", Squeezes, module_unlike(ramp(3, 1), 2 * ramp(3))),
    module_mutant(
        "module-whole-in-half",
        WholeInHalf,
        module_unlike(ramp(3), torch.tensor([1001, 2001, 3001])),
    ),
    module_mutant("module-weighted", Weighted, module_unlike(ramp(3), 2 * ramp(3))),
)
