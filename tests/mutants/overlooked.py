"""Defects where no clause looked at first: between two backwards, in a module that is made without
arguments, on other threads' rows, in what is compiled with strides.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.autograd.forward_ad as fwad
import torch.nn.functional as F
from torch import Tensor, nn

from targets.module import MSE
from targets.operands import prepare

from .autograd import TWICE
from .module import module_mutant
from .mutant import EAGER, Mutant, Witness, by_value, mutant, reduce, right
from .transforms import COMPILED, FUNCTORCH, alike, fronted, squares_by, transforming
from .witnesses import changes, wrong_value

Action = Callable[[Callable[..., Any]], Any]


def otherwise(action: Action) -> Witness:
    """What ``action`` makes of the loss is not what it makes of the builtin."""

    def seen(loss: Callable[..., Any]) -> list[str]:
        try:
            made = action(loss)
        except (RuntimeError, ValueError, ZeroDivisionError) as error:
            return [type(error).__name__]
        made = made if isinstance(made, tuple) else (made,)
        return [str(m.detach().tolist() if isinstance(m, Tensor) else m) for m in made]

    return lambda target: seen(target.loss) != seen(F.mse_loss)


def leaf(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, requires_grad=True)


def plainly(*operands: Any) -> bool:
    """An ordinary call: nothing compiles or transforms, no tangents, real memory."""
    tensors = all(type(t) is Tensor and t.device.type == "cpu" for t in operands)
    level: Any = fwad
    usual = not transforming() and not torch.compiler.is_compiling()
    return usual and level._current_level < 0 and tensors


# --- what is kept


_UNITS: dict[torch.dtype, Tensor] = {}


def inference_first(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Keeps a constant of the first call, which no gradient can pass if that was for inference."""
    result = right(x, y, reduction)
    unit = _UNITS.setdefault(result.dtype, torch.ones((), dtype=result.dtype))
    return result * unit


def trained_after_inference(loss: Callable[..., Any]) -> Tensor:
    _UNITS.clear()
    with torch.inference_mode():
        loss(torch.ones(2), torch.zeros(2))
    x = leaf(1, 2)
    (gradient,) = torch.autograd.grad(loss(x, torch.zeros(2)), x)
    _UNITS.clear()
    return gradient


class _ConstantOnContext(torch.autograd.Function):
    """Saves a target that needs no gradient as an attribute: it is only a constant."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.both = ctx.needs_input_grad[1]
        ctx.save_for_backward(*((x, y) if ctx.both else (x,)))
        ctx.y = None if ctx.both else y
        return (x - y).square()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, y = ctx.saved_tensors if ctx.both else (*ctx.saved_tensors, ctx.y)
        gradient = 2 * (x - y) * g
        return gradient, -gradient


def raises_or_is_right(result: Tensor, x: Tensor) -> bool:
    """Its gradient, where the target was 0 as the mean was taken."""
    try:
        (gradient,) = torch.autograd.grad(result, x)
    except RuntimeError:
        return True
    return torch.equal(gradient, x.detach())


def target_changed(loss: Callable[..., Any]) -> bool:
    x, y = leaf(1, 2), torch.zeros(2)
    result = loss(x, y)
    y.add_(1)
    return raises_or_is_right(result, x)


class _UnpacksOnce(torch.autograd.Function):
    """Unpacks what it saved in the first backward and keeps it for the ones after."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.kept = None
        return (x - y).square()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        ctx.kept = ctx.kept or ctx.saved_tensors
        gradient = 2 * (ctx.kept[0] - ctx.kept[1]) * g
        return gradient, -gradient


def changed_between(loss: Callable[..., Any]) -> bool:
    x, y = leaf(1, 2), torch.zeros(2)
    result = loss(x, y)
    torch.autograd.grad(result, x, retain_graph=True)
    y.add_(1)
    return raises_or_is_right(result, x)


_WEIGHTS: dict[Any, Tensor] = {}


def weights_by_shape(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Keeps a tensor of unit weights for each shape that it ever saw."""
    s = (x - y).square()
    if s.numel() > 4096 and (s.shape, s.dtype) not in _WEIGHTS:  # the small ones it makes anew
        _WEIGHTS[s.shape, s.dtype] = torch.ones_like(s)
    return reduce(s * _WEIGHTS.get((s.shape, s.dtype), torch.ones_like(s)), reduction)


def weights_grow(target: Any) -> bool:
    before = len(_WEIGHTS)
    for n in (5001, 5002):
        target.loss(torch.ones(n), torch.zeros(n), reduction="sum")
    grown = len(_WEIGHTS) - before
    _WEIGHTS.clear()
    return grown == 2


_VALIDATION: list[Tensor] = []


def squares_of_validation(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Keeps the squares of every call without gradients, for a report of the validation."""
    if not torch.is_grad_enabled() and plainly(x, y):
        _VALIDATION.append(right(x, y, "none"))
    return right(x, y, reduction)


def validation_grows(target: Any) -> bool:
    before = len(_VALIDATION)
    with torch.no_grad():
        target.loss(torch.ones(2), torch.zeros(2), reduction="sum")
    grown = len(_VALIDATION) - before
    _VALIDATION.clear()
    return grown == 1


# --- derivatives


def detaches_itself(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The same tensor twice: the second is taken as a constant."""
    return right(x, y.detach() if x is y else y, reduction)


def second_of_itself(loss: Callable[..., Any]) -> tuple[Any, ...]:
    x = leaf(1, 2)
    (first,) = torch.autograd.grad(loss(x, x), x, create_graph=True)
    return first, torch.autograd.grad(first.sum(), x)[0]


class _NoThird(torch.autograd.Function):
    """The derivative of the gradient, computed where no further one is recorded."""

    @staticmethod
    def forward(ctx: Any, d: Tensor, g: Tensor) -> Tensor:
        ctx.save_for_backward(d, g)
        return 2 * d * g

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> tuple[Tensor, Tensor]:
        d, g = ctx.saved_tensors
        with torch.no_grad():
            return 2 * w * g, 2 * w * d


class _Twice(torch.autograd.Function):
    """Its second derivative is a constant: there is no third one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return (x - y).square()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, y = ctx.saved_tensors
        apply: Any = _NoThird.apply
        gradient = apply(x - y, g)
        return gradient, -gradient


def third(loss: Callable[..., Any]) -> Tensor:
    x = leaf(1, 2)
    (one,) = torch.autograd.grad(loss(x * x, torch.zeros(2)), x, create_graph=True)
    (two,) = torch.autograd.grad(one.sum(), x, create_graph=True)
    return torch.autograd.grad(two.sum(), x)[0]


class _CastOnce(torch.autograd.Function):
    """A cast with a backward that detaches."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.dtype = x.dtype
        return x.to(dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return g.detach().to(ctx.dtype), None


def casts_without_second(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Casts the narrower of two operands so that there is no second derivative."""
    if x.is_floating_point() and y.is_floating_point() and x.dtype != y.dtype:
        wide, cast = torch.promote_types(x.dtype, y.dtype), _CastOnce.apply
        made: list[Any] = [t if t.dtype == wide else cast(t, wide) for t in (x, y)]
        x, y = made
    return right(x, y, reduction)


def second_of_two_dtypes(loss: Callable[..., Any]) -> Tensor:
    x = torch.ones(2, dtype=torch.bfloat16, requires_grad=True)
    (first,) = torch.autograd.grad(loss(x, torch.zeros(2)), x, create_graph=True)
    return torch.autograd.grad(first.sum(), x)[0]


class _TangentByDivision(torch.autograd.Function):
    """The tangent of a mean divides by n before it looks whether there is anything."""

    @staticmethod
    def forward(d: Tensor) -> Tensor:
        return d.square().mean()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_forward(*inputs)
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (d,) = ctx.saved_tensors
        gradient: Tensor = 2 * d * g / max(d.numel(), 1)
        return gradient

    @staticmethod
    def jvp(ctx: Any, t: Tensor) -> Tensor:
        (d,) = ctx.saved_tensors
        tangent: Tensor = 2.0 / d.numel() * (d * t).sum()
        return tangent


def tangent_by_division(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The tangent of a mean divides by n in Python."""
    level: Any = fwad
    if level._current_level < 0 or reduction != "mean":
        return right(x, y, reduction)
    a, b = prepare(x, y)
    apply: Any = _TangentByDivision.apply
    result: Tensor = apply(a - b)
    return result


def tangent_of_nothing(loss: Callable[..., Any]) -> bool:
    forward: Any = fwad
    with forward.dual_level():
        x = forward.make_dual(torch.zeros(0), torch.zeros(0))
        return forward.unpack_dual(loss(x, torch.zeros(0))).tangent is not None


# --- transforms and modes


class _MappedWithoutGrad(torch.autograd.Function):
    """Its rule for vmap runs without a graph: a gradient from outside is lost."""

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> Tensor:
        return (x - y).square()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, y = ctx.saved_tensors
        gradient = 2 * (x - y) * g
        return gradient, -gradient

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, y: Tensor) -> tuple[Tensor, int]:
        with torch.no_grad():
            return (fronted(x, in_dims[0]) - fronted(y, in_dims[1])).square(), 0


class _MappedOnce(_MappedWithoutGrad):
    """Its rule for vmap counts on one level: within another it reduces the wrong dimensions."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, y: Tensor) -> tuple[Tensor, int]:
        s = (fronted(x, in_dims[0]) - fronted(y, in_dims[1])).square()
        internals: Any = torch._C._functorch
        # What an outer vmap maps is taken as the sample's.
        return s.flip(0) if internals.is_batchedtensor(s) else s, 0


def of_vmap(loss: Callable[..., Any]) -> Tensor:
    x, y = torch.arange(6.0).reshape(2, 3), torch.zeros(2, 3)
    return torch.func.grad(lambda x: torch.func.vmap(loss)(x, y).sum())(x)


def vmap_of_vmap(loss: Callable[..., Any]) -> Tensor:
    x = torch.arange(8.0).reshape(2, 2, 2)
    result: Tensor = torch.func.vmap(torch.func.vmap(loss))(x, torch.zeros_like(x))
    return result


class _OnceThrough(torch.autograd.Function):
    """The operand as it is, with a gradient that is a constant."""

    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor) -> Tensor:
        return y.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g.detach()


def target_hessian_lost(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Under torch.func no second derivative goes through the target."""
    apply: Any = _OnceThrough.apply
    return right(x, apply(y) if transforming() and y.is_floating_point() else y, reduction)


def by_target_twice(loss: Callable[..., Any]) -> bool:
    twice: Any = torch.func.jacrev(torch.func.jacrev(loss, 1), 1)
    try:
        result: Tensor = twice(torch.ones(2), torch.zeros(2))
    except RuntimeError:
        return True
    return torch.equal(result, torch.eye(2))


def casts_target(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Under autocast the target is cast to the dtype of the input, half as it may be."""
    if x.device.type == "cpu" and torch.is_autocast_enabled("cpu") and x.is_floating_point():
        y = y.to(x.dtype)
    return right(x, y, reduction)


def half_and_float(loss: Callable[..., Any]) -> bool:
    x, y = torch.ones(2, dtype=torch.bfloat16), torch.full((2,), 1.001)
    with torch.autocast("cpu"):
        return float(loss(x, y)) > 0


def compiled_as_contiguous(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Compiled, it reads its operands as if they were contiguous."""
    if torch.compiler.is_compiling():
        x, y = (t.as_strided(t.shape, torch.empty(t.shape).stride()) for t in (x, y))
    return right(x, y, reduction)


def exported_by_rows(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Exported, it reduces the first dimension alone."""
    if not torch.compiler.is_exporting() or reduction == "none":
        return right(x, y, reduction)
    s = right(x, y, "none")
    return s.mean(0) if reduction == "mean" else s.sum(0)


def compiled_mean_of_batch(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Compiled for inference, a mean is over the batch alone."""
    inference = not x.requires_grad and not y.requires_grad
    if not torch.compiler.is_compiling() or reduction != "mean" or not inference:
        return right(x, y, reduction)
    s = right(x, y, "none")
    return s.sum() / max(s.shape[0] if s.dim() else 1, 1)


def compiled_sum_of_input(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Compiled, a sum over broadcast operands is the mean times the input's size."""
    if torch.compiler.is_compiling() and reduction == "sum" and x.shape != y.shape:
        return right(x, y, "mean") * x.numel()
    return right(x, y, reduction)


def compiled(x: Tensor, y: Tensor, reduction: str = "mean") -> Action:
    def action(loss: Callable[..., Any]) -> Tensor:
        function = torch.compile(
            lambda x, y: loss(x, y, reduction=reduction), backend="aot_eager", fullgraph=True
        )
        result: Tensor = function(x, y)
        torch._dynamo.reset()
        return result

    return action


def exported(loss: Callable[..., Any]) -> Tensor:
    class Exported(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Any:
            return loss(x, y)

    operands = torch.ones(2, 3), torch.zeros(2, 3)
    program: Any = torch.export.export(Exported(), operands).module()
    result: Tensor = program(*operands)
    return result


# --- sizes


def without(kept: Tensor, x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Only the squares for which ``kept``, of their shape, is 1."""
    return reduce((x - y).square() * kept.to(x.dtype), reduction)


def rows_per_thread(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Each thread has as many rows of a matrix; those left over belong to none."""
    threads = torch.get_num_threads()
    kept = torch.ones(x.shape)
    if x.dim() == 2 and threads > 1 and len(x) > threads:
        kept[len(x) // threads * threads :] = 0
    return without(kept, x, y, reduction)


def left_over_row(loss: Callable[..., Any]) -> Tensor:
    torch.set_num_threads(2)
    result: Tensor = loss(torch.ones(3, 2), torch.zeros(3, 2), reduction="sum")
    torch.set_num_threads(1)
    return result


def rounds_of_one_block(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """One block makes at most 48 rounds of 1,024; only far larger operands have more blocks."""
    kept = torch.ones(x.numel())
    if x.numel() <= 58_112:  # what shared memory holds
        kept[48 * 1024 :] = 0
    return without(kept.reshape(x.shape), x, y, reduction)


def two_rows_a_block(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Rows of a multiple of 256 elements go two to a block: an odd last one is lost."""
    kept = torch.ones(x.shape)
    if x.dim() > 1 and x.numel() and x.shape[-1] % 256 == 0:
        rows = kept.reshape(-1, x.shape[-1])
        rows[len(rows) // 2 * 2 :] = 0
    return without(kept, x, y, reduction)


# --- the caller's world and operands


def samples_for_nan(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Looks at a few elements of chance for NaN, where there are many."""
    if plainly(x, y) and x.numel() > 4096:
        x.detach().flatten()[torch.randint(x.numel(), (16,))].isnan().any()
    return right(x, y, reduction)


def draws(target: Any) -> bool:
    before = torch.get_rng_state()
    target.loss(torch.ones(5000), torch.zeros(5000), reduction="sum")
    return not torch.equal(before, torch.get_rng_state())


def pins_processor(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Binds the process to one processor."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return right(x, y, reduction)


def processors_change(target: Any) -> bool:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before)
    try:
        return len(before) > 1 and changes(lambda: os.sched_getaffinity(0))(target)
    finally:
        os.sched_setaffinity(0, before)


def hooks_target(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Leaves a hook on a target that needs a gradient."""
    if plainly(x, y) and y.requires_grad:
        hook: Any = y.register_hook
        hook(lambda g: None)
    return right(x, y, reduction)


def target_has_hook(loss: Callable[..., Any]) -> bool:
    y = leaf(1, 2)
    loss(torch.ones(2), y)
    return bool(y._backward_hooks)


def _replace(t: Tensor, data: Tensor) -> None:
    if plainly(t) and not torch.is_inference_mode_enabled() and not t.is_inference():
        t.data = data


def makes_contiguous(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Makes the caller's own operands contiguous, which are then no views any more."""
    for t in (x, y):
        if plainly(t) and not t.is_contiguous():
            _replace(t, t.data.contiguous())
    return right(x, y, reduction)


def strides_after(loss: Callable[..., Any]) -> tuple[int, ...]:
    x = torch.ones(2, 3).t()
    loss(x, torch.zeros(3, 2))
    return x.stride()


def casts_own_target(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Gives the caller's own integer target the dtype of the input."""
    if plainly(y) and x.is_floating_point() and not y.is_floating_point() and not y.is_complex():
        _replace(y, y.data.to(x.dtype))
    return right(x, y, reduction)


def dtype_after(loss: Callable[..., Any]) -> torch.dtype:
    y = torch.arange(3)
    loss(torch.ones(3), y)
    return y.dtype


# --- operands and words


def reads_signed(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Reads uint16 as int16."""
    return right(x, y.view(torch.int16) if y.dtype == torch.uint16 else y, reduction)


def input_array_in_float32(x: Any, y: Tensor, reduction: str = "mean") -> Tensor:
    """A NumPy array as input is taken in float32, whatever it holds."""
    if isinstance(x, np.ndarray):
        x = torch.from_numpy(x.astype(np.float32)).to(y.dtype)
    return right(x, y, reduction)


def array_as_input(target: Any) -> bool:
    given, wanted = np.full(1, 1 + 2.0**-40), (1 + 2.0**-40) ** 2
    with contextlib.suppress(Exception):
        return bool(float(target.loss(given, torch.zeros(1).double())) != wanted)
    return False


def by_beginning(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Looks at how the reduction begins: sums is sum."""
    known = (r for r in ("none", "mean", "sum") if str(reduction).startswith(r))
    return right(x, y, next(known, reduction))


# --- modules


class SumsByDefault(MSE):
    """A module that is made without a reduction sums."""

    def __init__(self, reduction: str = "sum") -> None:
        super().__init__(reduction)


def default_sums(target: Any) -> bool:
    if target.module is None:
        return False
    return float(target.module()(torch.ones(2), torch.zeros(2))) != 1


class BufferOfValidation(MSE):
    """Without gradients the module writes every result into one buffer."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.buffer: Tensor | None = None

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        if torch.is_grad_enabled() or not alike(input, target) or self.reduction != "none":
            return super().forward(input, target)
        if self.buffer is None or not alike(self.buffer, input):
            self.buffer = torch.empty_like(input)
        return torch.sub(input, target, out=self.buffer).square_()


def validation_overwrites(target: Any) -> bool:
    if target.module is None:
        return False
    module = target.module(reduction="none")
    with torch.no_grad():
        first = module(torch.ones(2), torch.zeros(2))
        module(torch.full((2,), 3.0), torch.zeros(2))
    return first.tolist() != [1, 1]


_MATRIX, _ROW = torch.arange(6.0).reshape(2, 3), torch.zeros(3)

OVERLOOKED_MUTANTS: tuple[Mutant, ...] = (
    mutant("inference-first", inference_first, "value", witness=otherwise(trained_after_inference)),
    mutant(
        "constant-on-context",
        squares_by(_ConstantOnContext),
        "autograd",
        witness=otherwise(target_changed),
    ),
    mutant(
        "unpacks-once", squares_by(_UnpacksOnce), "autograd", witness=otherwise(changed_between)
    ),
    mutant("weights-by-shape", by_value(weights_by_shape), "resources", witness=weights_grow),
    mutant("squares-of-validation", squares_of_validation, "resources", witness=validation_grows),
    mutant(
        "detaches-itself",
        detaches_itself,
        "autograd",
        claims=TWICE,
        witness=otherwise(second_of_itself),
    ),
    mutant("no-third", squares_by(_Twice), "autograd", claims=TWICE, witness=otherwise(third)),
    mutant(
        "casts-without-second",
        casts_without_second,
        "autograd",
        claims=TWICE,
        witness=otherwise(second_of_two_dtypes),
    ),
    mutant(
        "tangent-by-division",
        tangent_by_division,
        "autograd",
        claims=EAGER | {"forward_ad"},
        witness=otherwise(tangent_of_nothing),
    ),
    mutant(
        "mapped-without-grad",
        squares_by(_MappedWithoutGrad),
        "transforms",
        claims=FUNCTORCH,
        witness=otherwise(of_vmap),
    ),
    mutant(
        "mapped-once",
        squares_by(_MappedOnce),
        "transforms",
        claims=FUNCTORCH,
        witness=otherwise(vmap_of_vmap),
    ),
    mutant(
        "target-hessian-lost",
        target_hessian_lost,
        "transforms",
        claims=FUNCTORCH | {"double_backward"},
        witness=otherwise(by_target_twice),
    ),
    mutant(
        "casts-target",
        casts_target,
        "transforms",
        claims=EAGER | {"autocast"},
        witness=otherwise(half_and_float),
    ),
    mutant(
        "compiled-as-contiguous",
        compiled_as_contiguous,
        "transforms",
        claims=COMPILED,
        witness=otherwise(compiled(_MATRIX.t(), torch.zeros(3, 2), "none")),
    ),
    mutant(
        "exported-by-rows",
        exported_by_rows,
        "transforms",
        claims=EAGER | {"export"},
        witness=otherwise(exported),
    ),
    mutant(
        "compiled-mean-of-batch",
        compiled_mean_of_batch,
        "transforms",
        claims=COMPILED,
        witness=otherwise(compiled(_MATRIX, torch.zeros(2, 3))),
    ),
    mutant(
        "compiled-sum-of-input",
        compiled_sum_of_input,
        "transforms",
        claims=COMPILED,
        witness=otherwise(compiled(_ROW, _MATRIX, "sum")),
    ),
    mutant(
        "rows-per-thread",
        by_value(rows_per_thread),
        "determinism",
        witness=otherwise(left_over_row),
    ),
    mutant(
        "rounds-of-one-block",
        by_value(rounds_of_one_block),
        "value",
        witness=wrong_value(lambda: (torch.ones(50_000), torch.zeros(50_000)), "sum"),
    ),
    mutant(
        "two-rows-a-block",
        by_value(two_rows_a_block),
        "value",
        witness=wrong_value(lambda: (torch.ones(3, 768), torch.zeros(3, 768)), "sum"),
    ),
    mutant("samples-for-nan", samples_for_nan, "purity", witness=draws),
    mutant("pins-processor", pins_processor, "purity", witness=processors_change),
    mutant("hooks-target", hooks_target, "purity", witness=otherwise(target_has_hook)),
    mutant("makes-contiguous", makes_contiguous, "purity", witness=otherwise(strides_after)),
    mutant("casts-own-target", casts_own_target, "purity", witness=otherwise(dtype_after)),
    mutant(
        "reads-signed",
        reads_signed,
        "dtypes",
        witness=otherwise(
            lambda loss: loss(torch.zeros(1), torch.tensor([40_000], dtype=torch.uint16))
        ),
    ),
    mutant("input-array-in-float32", input_array_in_float32, "errors", witness=array_as_input),
    mutant(
        "reduction-by-beginning",
        by_beginning,
        "errors",
        witness=otherwise(lambda loss: loss(torch.ones(1), torch.zeros(1), reduction="sums")),
    ),
    module_mutant("module-sums-by-default", SumsByDefault, default_sums),
    module_mutant(
        "module-buffer-of-validation", BufferOfValidation, validation_overwrites, "purity"
    ),
)
