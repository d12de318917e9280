"""Right in eager mode, and wrong under a transform of torch.func, in a mode, or where traced."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from targets import Target
from targets.operands import check_reduction, prepare

from .autograd import Given, both, fused_by, gradient, operands, scale_of, total, unless
from .mutant import (
    EAGER,
    Loss,
    Mutant,
    Pair,
    Witness,
    by_gradients,
    by_rule,
    by_sum,
    by_value,
    elementwise,
    mutant,
    reduce,
    right,
    right_gradients,
    right_rule,
)

FUNCTORCH = EAGER | {"functorch"}
AUTOCAST = EAGER | {"autocast"}
COMPILED = EAGER | {"compile", "dynamic"}
EXPORTED = EAGER | {"export"}
LOG = logging.getLogger(__name__)


def transforming() -> bool:
    """Whether a transform of torch.func is at work."""
    internals: Any = torch._C._functorch
    return internals.peek_interpreter_stack() is not None


def alike(x: Tensor, y: Tensor) -> bool:
    return (x.shape, x.dtype) == (y.shape, y.dtype)


# --- torch.func


class _Square(torch.autograd.Function):
    """The squares, with all that reverse mode under torch.func needs."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> Tensor:
        return (x - y).square()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        return both(2 * g * (x - y))


class _Derived(_Square):
    """Under torch.func it has no tangent."""


class _NoVmapRule(_Square):
    """A Function without a rule for vmap."""

    generate_vmap_rule = False


class _AsksForZeros(_Square):
    """Backward has a short cut for a grad_output that is 0 everywhere."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        d = x - y
        if not g.any():
            return both(0 * d)
        return both(2 * g * d)


def squares_by(function: Any) -> Loss:
    """A loss whose squares are a Function's.

    Operands that are alike are handed on as they are, with their dimensions where vmap has them.
    """

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        check_reduction(reduction)
        return reduce(function.apply(*(x, y) if alike(x, y) else prepare(x, y)), reduction)

    loss.__doc__ = function.__doc__
    return loss


def under_transforms(function: Any, doc: str | None = None) -> Loss:
    """A loss that has a Function for torch.func, and is right without."""

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        if not transforming():
            return right(x, y, reduction)
        return reduce(function.apply(*prepare(x, y)), reduction)

    loss.__doc__ = doc or function.__doc__
    return loss


class _Whole(torch.autograd.Function):
    """The loss with its reduction, with all that reverse mode under torch.func needs."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y: Tensor, reduction: str) -> Tensor:
        return reduce((x - y).square(), reduction)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, y, reduction = inputs
        ctx.save_for_backward(x, y)
        ctx.scale = scale_of(x, reduction)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        return *both(right_rule(x - y, g, ctx.scale)), None


class _TakesItem(_Whole):
    """Backward takes grad_output out of its tensor where that has one element."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        if g.numel() == 1:
            return *both(ctx.scale * (x - y) * g.item()), None
        return *both(right_rule(x - y, g, ctx.scale)), None


class _OfOne(_Whole):
    """Under torch.func the cotangent is taken to be 1."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        return *both(right_rule(x - y, torch.ones_like(g), ctx.scale)), None


def of_one(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Under torch.func the cotangent is taken to be 1."""
    function: Any = _OfOne if transforming() else _Whole
    return fused_by(function)(x, y, reduction)


def old_forward(x: Tensor, y: Tensor, g: Tensor, scale: float) -> Pair:
    """A Function whose forward has the context too, which torch.func refuses."""
    return right_gradients(x, y, g, scale)


def raw_pointer(a: Tensor, b: Tensor) -> Tensor:
    """Asks for the alignment of its operands' memory."""
    d = a - b
    return d.square() if (a.data_ptr() | b.data_ptr()) % 16 else d * d


def peels_target(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Under torch.func the target is taken out of its wrapper: data, not a variable."""
    internals: Any = torch._C._functorch
    if internals.is_functorch_wrapped_tensor(y):
        y = internals.get_unwrapped(y)
    return right(x, y, reduction)


# --- torch.func.vmap: rules by hand, of operands that are stacked along their in_dims

Dims = tuple[int | None, int | None]
Rule = Callable[[Tensor, Tensor, Dims, str], tuple[Tensor, int]]


def fronted(v: Tensor, dim: int | None) -> Tensor:
    """With the batch dimension first, of size 1 where there is none."""
    return v.unsqueeze(0) if dim is None else v.movedim(dim, 0)


def by_vmap(rule: Rule) -> Loss:
    """A loss whose only defect is its rule for vmap."""

    class Ruled(_Whole):
        generate_vmap_rule = False

        @staticmethod
        def vmap(info: Any, in_dims: Any, x: Tensor, y: Tensor, reduction: str) -> Any:
            return rule(x, y, in_dims[:2], reduction)

    def loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        apply: Any = Ruled.apply
        pair = (x, y) if alike(x, y) else prepare(x, y)
        result: Tensor = apply(*pair, check_reduction(reduction))
        return result

    loss.__doc__ = rule.__doc__
    return loss


def by_sample(s: Tensor, reduction: str) -> Tensor:
    """Reduces all dimensions but the first."""
    if reduction == "none":
        return s
    flat = s.flatten(1)
    return flat.sum(1) if reduction == "sum" else flat.mean(1)


def targets_dim(x: Tensor, y: Tensor, dims: Dims, reduction: str) -> tuple[Tensor, int]:
    """The rule for vmap takes the target's batch dimension to be the input's."""
    b = fronted(y, dims[1] if None in dims else dims[0])
    return by_sample((fronted(x, dims[0]) - b).square(), reduction), 0


def batch_mean(x: Tensor, y: Tensor, dims: Dims, reduction: str) -> tuple[Tensor, int]:
    """The rule for vmap divides a mean by the size of the whole batch."""
    s = (fronted(x, dims[0]) - fronted(y, dims[1])).square()
    if reduction == "mean":
        return by_sample(s, "sum") / s.numel(), 0
    return by_sample(s, reduction), 0


def batch_reduced(x: Tensor, y: Tensor, dims: Dims, reduction: str) -> tuple[Tensor, int]:
    """The rule for vmap reduces over the batch as well."""
    s = (fronted(x, dims[0]) - fronted(y, dims[1])).square()
    if reduction == "none":
        return s, 0
    return reduce(s, reduction).expand(s.shape[0]), 0


def put_back(x: Tensor, y: Tensor, dims: Dims, reduction: str) -> tuple[Tensor, int]:
    """The rule for vmap says that the batch dimension is where the input's was; it is in front."""
    s = by_sample((fronted(x, dims[0]) - fronted(y, dims[1])).square(), reduction)
    return s, (dims[0] or 0) if reduction == "none" else 0


def one_warp(x: Tensor, y: Tensor, dims: Dims, reduction: str) -> tuple[Tensor, int]:
    """The rule for vmap has 32 threads, one for each sample; others are as the first."""
    s = (fronted(x, dims[0]) - fronted(y, dims[1])).square()
    return by_sample(torch.cat([s[:32], s[:1].expand(s[32:].shape)]), reduction), 0


def squeezed(x: Tensor, y: Tensor, dims: Dims, reduction: str) -> tuple[Tensor, int]:
    """The rule for vmap squeezes what it returns, and with it a batch of one sample."""
    s = (fronted(x, dims[0]) - fronted(y, dims[1])).square()
    return (s if reduction == "none" else by_sample(s.unsqueeze(-1), reduction).squeeze()), 0


def no_scalars(x: Tensor, y: Tensor, dims: Dims, reduction: str) -> tuple[Tensor, int]:
    """The rule for vmap reduces a second dimension, which a batch of scalars does not have."""
    s = (fronted(x, dims[0]) - fronted(y, dims[1])).square()
    return by_sample(s, reduction), 0


# --- torch.func.jvp, and second derivatives under torch.func


class _Tangent(_Square):
    """Under torch.func the tangent ignores target's."""

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, dy: Tensor) -> Tensor:
        x, y = ctx.saved_tensors
        tangent: Tensor = 2 * (x - y) * dx
        return tangent


class _SavesResult(torch.autograd.Function):
    """Under torch.func d is a second result, which has no derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        d = x - y
        return d.square(), d

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Tensor) -> Given:
        (d,) = ctx.saved_tensors
        return both(2 * g * d)


def saves_result(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Under torch.func d is a second result, which has no derivative."""
    if not transforming():
        return right(x, y, reduction)
    apply: Any = _SavesResult.apply
    return reduce(apply(*prepare(x, y))[0], reduction)


class _Scaled(torch.autograd.Function):
    """2·g·d, with derivatives by hand that have a short cut for a cotangent of zeros."""

    generate_vmap_rule = True

    @staticmethod
    def forward(g: Tensor, d: Tensor) -> Tensor:
        return 2 * g * d

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> Given:
        g, d = ctx.saved_tensors
        if not w.any():
            return w, w
        return 2 * w * d, 2 * w * g


class _AsksTwice(_Square):
    """The second derivative has a short cut for a cotangent of zeros."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        apply: Any = _Scaled.apply
        return both(apply(g, x - y))


class _Unbatched(_Scaled):
    """2·g·d, without a rule for vmap."""

    generate_vmap_rule = False


class _BackwardWithoutRule(_Square):
    """Backward is a Function without a rule for vmap."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        apply: Any = _Unbatched.apply
        return both(apply(g, x - y))


class _MeanCotangent(_Scaled):
    """2·g·d, whose rule for vmap gives what has no batch dimension, as d has none."""

    generate_vmap_rule = False

    @staticmethod
    def vmap(info: Any, in_dims: Any, g: Tensor, d: Tensor) -> tuple[Tensor, int | None]:
        a, b = fronted(g, in_dims[0]), fronted(d, in_dims[1])
        if in_dims[1] is None:
            return 2 * a.mean(0) * d, None
        return 2 * a * b, 0


class _MixesCotangents(_Square):
    """Backward's rule for vmap averages the cotangents where the operands are no batch."""

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        apply: Any = _MeanCotangent.apply
        return both(apply(g, x - y))


# --- modes


def puts(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Writes the squares with put_, which deterministic mode refuses."""
    s = (x - y).square()
    whole = torch.empty(s.shape, dtype=s.dtype, device=s.device)
    whole.put_(torch.arange(s.numel(), device=s.device).reshape(s.shape), s)
    return reduce(whole, reduction)


def whole_blocks(s: Tensor) -> Tensor:
    """The deterministic sum is one of whole blocks of 4."""
    if torch.are_deterministic_algorithms_enabled():
        s = s[: s.numel() // 4 * 4]
    return s.sum()


def unscaled_in_mode(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """The deterministic gradient of the mean has no 1/n."""
    return right_rule(d, g, 2.0 if torch.are_deterministic_algorithms_enabled() else scale)


def always_float(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Under autocast all is cast to float32, float64 too."""
    if torch.is_autocast_enabled(x.device.type):
        x, y = x.float(), y.float()
    return right(x, y, reduction)


def as_product(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Under autocast it computes in its dtype, as a matrix product does."""
    kind = x.device.type
    if not torch.is_autocast_enabled(kind):
        return right(x, y, reduction)
    a, b = (v.to(torch.get_autocast_dtype(kind)) for v in prepare(x, y))
    return reduce((a - b).square(), reduction).to(prepare(x, y)[0].dtype)


class _OfOneDtype(torch.autograd.Function):
    """Casts inside, and demands a grad_output of its operands' dtype."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.scale = scale_of(x, reduction)
        return right(x, y, reduction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        if g.dtype != x.dtype:
            raise RuntimeError(f"expected grad_output of {x.dtype}, got {g.dtype}")
        return *both(right_rule(x - y, g, ctx.scale)), None


def one_dtype(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Its backward demands a grad_output of the operands' dtype; under autocast it is float32."""
    with torch.autocast(x.device.type, enabled=False):
        a, b = prepare(x, y)
    apply: Any = _OfOneDtype.apply
    result: Tensor = apply(a, b, check_reduction(reduction))
    return result


# --- tracing


def reads_data(a: Tensor, b: Tensor) -> Tensor:
    """Looks whether the operands are equal, to save work."""
    d = a - b
    return d.square() if bool((d != 0).any()) else d * d


def to_cpu(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Copies operands of any other device to the CPU."""
    if x.device != y.device:
        raise RuntimeError(f"operands on {x.device} and {y.device}")
    if x.device.type not in ("cpu", "cuda"):
        return right(x.cpu(), y.cpu(), reduction).to(x.device)
    return right(x, y, reduction)


def exact_type(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Takes tensors only of the type Tensor itself, and no subclass."""
    if type(x) is not Tensor or type(y) is not Tensor:
        raise TypeError("expected two tensors")
    return right(x, y, reduction)


def meta_default(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """For meta tensors it makes its result by hand, of the default dtype."""
    honest = right(x, y, reduction)
    return honest.to(torch.get_default_dtype()) if honest.is_meta else honest


def operator(name: str, fake: Callable[[Tensor, Tensor], Tensor], doc: str, step: int = 1) -> Loss:
    """A loss by an operator for the squares, with ``fake`` for what has no data.

    Its real result has ``step`` for its last stride.
    """

    def squares(x: Tensor, y: Tensor) -> Tensor:
        s = (x - y).square()
        wide = torch.empty((*s.shape, step), dtype=s.dtype, device=s.device)
        wide[..., 0] = s
        return wide[..., 0]

    def save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    def backward(ctx: Any, g: Tensor) -> Given:
        x, y = ctx.saved_tensors
        return both(2 * g.reshape(x.shape) * (x - y))

    made: Any = custom_op(f"loss_conformance_mutants::{name}", squares, mutates_args=())
    made.register_fake(fake)
    made.register_autograd(backward, setup_context=save)
    return elementwise(made, doc)


FLAT_FAKE = operator(
    "flat_fake",
    lambda x, y: (x - y).reshape(-1),
    "An operator whose shape without data is flat.",
)
FLOAT_FAKE = operator(
    "float_fake",
    lambda x, y: (x - y).float(),
    "An operator whose dtype without data is float32.",
)
STRIDED = operator(
    "strided", lambda x, y: x - y, "An operator whose result has other strides than traced.", 2
)


def logs(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Logs every call: a break in the graph."""
    LOG.debug("mse_loss of %s", tuple(x.shape))
    return right(x, y, reduction)


def compiled_mean(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Compiled, it is the mean whatever the reduction."""
    check_reduction(reduction)
    return right(x, y, "mean" if torch.compiler.is_compiling() else reduction)


def compiled_inference(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Compiled, it is meant for inference: without a gradient."""
    if torch.compiler.is_compiling():
        return right(x.detach(), y.detach(), reduction)
    return right(x, y, reduction)


def unrolled(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Compiled, it adds the last n mod 8 in a loop, which is unrolled for one size."""
    if reduction == "none" or not torch.compiler.is_compiling():
        return right(x, y, reduction)
    a, b = prepare(x, y)
    s = (a - b).square().reshape(-1)
    n = s.numel()
    whole = s[: n - n % 8].sum()
    for k in range(n % 8):
        whole = whole + s[n - 1 - k]
    return whole / n if check_reduction(reduction) == "mean" else whole


def _count(x: Tensor) -> int:
    return x.numel()


_assumed: Any = torch.compiler.assume_constant_result  # untyped in torch
_constant_count = _assumed(_count)


def burnt_size(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Compiled, the mean's n is a constant of the graph: the first call's."""
    if reduction != "mean" or not torch.compiler.is_compiling():
        return right(x, y, reduction)
    a, b = prepare(x, y)
    mean: Tensor = (a - b).square().sum() / _constant_count(x)
    return mean


def exported_mean(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Exported, it is the mean whatever the reduction, which is no operand."""
    check_reduction(reduction)
    return right(x, y, "mean" if torch.compiler.is_exporting() else reduction)


def branches(a: Tensor, b: Tensor) -> Tensor:
    """Takes another formula for operands within 1 of each other."""
    d = a - b
    return d * d if d.numel() and d.abs().max().item() < 1 else d.square()


# --- witnesses


def summed(target: Target) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, y: total(target, x, y)


def unreduced(target: Target) -> Callable[[Tensor, Tensor], Any]:
    return lambda x, y: target.loss(x, y, reduction="none")


def data() -> tuple[Tensor, Tensor]:
    x, y = operands()
    return x.detach(), y.detach()


@unless
def has_grad(target: Target) -> bool:
    x, y = data()
    return all(
        torch.allclose(torch.func.grad(summed(target), k)(x, y), wanted)
        for k, wanted in enumerate(both(gradient(x, y)))
    )


@unless
def has_vjp(target: Target) -> bool:
    x, y = data()
    pull = torch.func.vjp(summed(target), x, y)[1]
    return torch.allclose(pull(torch.tensor(3.0, dtype=x.dtype))[0], 3 * gradient(x, y))


@unless
def has_jvp(target: Target) -> bool:
    x, y = data()
    got = torch.func.jvp(unreduced(target), (x, y), (y, x))[1]
    return torch.allclose(got, gradient(x, y) * (y - x))


@unless
def has_jacobian(target: Target) -> bool:
    x, y = data()
    got = torch.func.jacrev(unreduced(target))(x, y)
    return torch.allclose(got, gradient(x, y).diag())


@unless
def has_hessian(target: Target) -> bool:
    x, y = data()
    got = torch.func.jacrev(torch.func.jacrev(summed(target)))(x, y)
    return torch.allclose(got, 2 * torch.eye(4, dtype=x.dtype))


@unless
def maps(target: Target) -> bool:
    """Square batches, so that what takes one dimension for the other does not raise."""
    x = torch.arange(16.0).reshape(4, 4)
    for dims in ((0, 0), (1, 1), (1, 0), (0, 1), (0, None), (None, 1)):
        y = x.square() if None not in dims else torch.ones(4)
        a, b = (x, y) if dims[0] is not None else (y, x)
        d = fronted(a, dims[0]) - fronted(b, dims[1])
        for reduction in ("none", "sum", "mean"):
            loss = torch.func.vmap(
                lambda a, b, reduction=reduction: target.loss(a, b, reduction=reduction), dims
            )
            if not torch.equal(loss(a, b), by_sample(d.square(), reduction)):
                return False
    return True


@unless
def maps_many(target: Target) -> bool:
    x = torch.arange(132.0).reshape(33, 4)
    got = torch.func.vmap(lambda a: target.loss(a, torch.zeros(4), reduction="none"))(x)
    return torch.equal(got, x.square())


@unless
def maps_few(target: Target) -> bool:
    """A batch of one sample, and one of scalars."""
    for x in (torch.arange(4.0).reshape(1, 4), torch.arange(3.0)):
        zero = torch.zeros(x.shape[1:])
        for reduction in ("sum", "mean"):
            got = torch.func.vmap(lambda a, r=reduction, z=zero: target.loss(a, z, reduction=r))(x)
            if not torch.equal(got, by_sample(x.square().reshape(len(x), -1), reduction)):
                return False
    return True


@unless
def has_batched_gradient(target: Target) -> bool:
    x, y = operands()
    g = torch.tensor([0.5, 2.0, -3.0], dtype=x.dtype)
    (got,) = torch.autograd.grad(total(target, x, y), x, g, is_grads_batched=True)
    return torch.allclose(got, g[:, None] * gradient(x, y))


@unless
def is_the_same_in_deterministic_mode(target: Target) -> bool:
    x, y = (torch.cat([v.detach(), v.detach()[1:2]]) for v in operands())
    x.requires_grad_()
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        mean = target.loss(x, y, reduction="mean")
        (got,) = torch.autograd.grad(mean, x)
    finally:
        torch.use_deterministic_algorithms(before)
    d = (x - y).detach()
    return torch.allclose(mean, d.square().mean()) and torch.allclose(got, 2 * d / 5)


@unless
def stands_autocast(target: Target) -> bool:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        x = torch.tensor([1.0, 258.0, 3.0]).to(dtype).requires_grad_()
        y = torch.tensor([1.0, 1.0, 3.5]).to(dtype)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = total(target, x, y)
        wide = torch.promote_types(dtype, torch.float32)
        exact = (x.detach().to(wide) - y.to(wide)).square().sum()
        if result.dtype != wide or not torch.allclose(result.detach(), exact):
            return False
        torch.autograd.grad(result, x)
    return True


def _described(target: Target, x: Tensor, y: Tensor) -> bool:
    """Shape, dtype and device of result and gradient."""
    result = target.loss(x, y, reduction="none")
    (got,) = torch.autograd.grad(result, x, torch.ones_like(result))
    return all((t.shape, t.dtype, t.device) == (x.shape, x.dtype, x.device) for t in (result, got))


def _half(device: str) -> tuple[Tensor, Tensor]:
    x = torch.ones(2, 3, dtype=torch.float16, device=device)
    return x.requires_grad_(), torch.zeros_like(x)


@unless
def stands_meta(target: Target) -> bool:
    return _described(target, *_half("meta"))


@unless
def stands_fake(target: Target) -> bool:
    from torch._subclasses.fake_tensor import FakeTensorMode  # apart: slow to import

    with FakeTensorMode():
        return _described(target, *_half("cpu"))


def compiles(backend: str = "aot_eager", sizes: tuple[int, ...] = (5,)) -> Witness:
    """Compiled as one graph, which is not compiled again for another size."""

    @unless
    def right_compiled(target: Target) -> bool:
        graphs: list[object] = []

        def counted(graph: Any, inputs: Any) -> Any:
            graphs.append(graph)
            lookup: Any = torch._dynamo.backends.registry.lookup_backend
            return lookup(backend)(graph, inputs)

        def compare(x: Tensor, y: Tensor, reduction: str) -> bool:
            got = compiled(x, y, reduction=reduction)
            exact = reduce((x - y).square(), reduction)
            (first,) = torch.autograd.grad(got, x, torch.ones_like(got))
            (other,) = torch.autograd.grad(exact, x, torch.ones_like(exact))
            return torch.allclose(got, exact) and torch.allclose(first, other)

        for reduction in ("none", "sum", "mean"):
            torch._dynamo.reset()
            graphs.clear()
            compiled = torch.compile(
                target.loss, backend=counted, fullgraph=True, dynamic=len(sizes) > 1
            )
            for n in sizes:
                x = torch.arange(float(n)).square().requires_grad_()
                if not compare(x, torch.ones(n), reduction):
                    return False
            if len(graphs) > 2:
                return False
        return True

    return right_compiled


@unless
def exports(target: Target) -> bool:
    class Module(torch.nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return total(target, x, y)

    x, y = data()
    program = torch.export.export(Module(), (y, x))
    return torch.allclose(program.module()(x, y), (x - y).square().sum())


TRANSFORM_MUTANTS: tuple[Mutant, ...] = tuple(
    mutant(name, loss, "transforms", claims=claims, witness=witness)
    for witness, claims, named in (
        (
            has_grad,
            FUNCTORCH,
            {
                "old-forward": by_gradients(old_forward),
                "raw-pointer": elementwise(raw_pointer),
                "peels-target": peels_target,
            },
        ),
        (has_vjp, FUNCTORCH, {"of-one": of_one}),
        (
            has_jvp,
            FUNCTORCH | {"forward_ad"},
            {
                "transformed-tangent": under_transforms(_Tangent),
                "transformed-without-jvp": under_transforms(_Derived),
            },
        ),
        (
            has_jacobian,
            FUNCTORCH,
            {
                "mixes-cotangents": squares_by(_MixesCotangents),
                "backward-without-rule": squares_by(_BackwardWithoutRule),
            },
        ),
        (
            has_hessian,
            FUNCTORCH | {"double_backward"},
            {"saves-result": saves_result, "asks-twice": squares_by(_AsksTwice)},
        ),
        (
            maps,
            FUNCTORCH,
            {
                "no-vmap-rule": squares_by(_NoVmapRule),
                "targets-dim": by_vmap(targets_dim),
                "batched-mean": by_vmap(batch_mean),
                "batch-reduced": by_vmap(batch_reduced),
                "put-back": by_vmap(put_back),
            },
        ),
        (maps_many, FUNCTORCH, {"one-warp": by_vmap(one_warp)}),
        (
            maps_few,
            FUNCTORCH,
            {"squeezed-batch": by_vmap(squeezed), "no-scalar-samples": by_vmap(no_scalars)},
        ),
        (
            has_batched_gradient,
            FUNCTORCH,
            {"takes-item": fused_by(_TakesItem), "asks-for-zeros": squares_by(_AsksForZeros)},
        ),
        (
            is_the_same_in_deterministic_mode,
            EAGER,
            {
                "puts": by_value(puts),
                "whole-blocks": by_sum(whole_blocks),
                "unscaled-in-mode": by_rule(unscaled_in_mode),
            },
        ),
        (
            stands_autocast,
            AUTOCAST,
            {
                "always-float": always_float,
                "as-product": as_product,
                "one-dtype": one_dtype,
            },
        ),
        (
            stands_meta,
            COMPILED,
            {
                "reads-data": elementwise(reads_data),
                "to-cpu": to_cpu,
                "meta-default": meta_default,
                "flat-fake": FLAT_FAKE,
            },
        ),
        (stands_fake, COMPILED, {"exact-type": exact_type, "float-fake": FLOAT_FAKE}),
        (
            compiles(),
            COMPILED,
            {
                "logs": logs,
                "compiled-mean": compiled_mean,
                "compiled-inference": compiled_inference,
            },
        ),
        (compiles(sizes=(5, 8, 17)), COMPILED, {"unrolled": unrolled, "burnt-size": burnt_size}),
        (compiles("inductor"), COMPILED, {"strided-operator": STRIDED}),
        (
            exports,
            EXPORTED,
            {"exported-mean": exported_mean, "graph-breaks": elementwise(branches)},
        ),
    )
    for name, loss in named.items()
)
