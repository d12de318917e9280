"""Wrong for tensors without data: meta, fake, of a subclass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from targets import Target
from targets.operands import check_reduction

from .mutant import Loss, Mutant, by_gradients, elementwise, mutant, right, right_rule
from .parts import Given, both
from .probes import compiles, described, half, otherwise, stands_meta, unless, unlike_builtin
from .transformed import COMPILED, plainly


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


@unless
def stands_fake(target: Target) -> bool:
    from torch._subclasses.fake_tensor import FakeTensorMode  # apart: slow to import

    with FakeTensorMode():
        return described(target, *half("cpu"))


def meta_dtype(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """On the meta device it has the input's dtype."""
    return right(x, y.to(x.dtype) if y.is_meta and x.is_floating_point() else y, reduction)


def on_meta(loss: Any) -> Tensor:
    result: Tensor = loss(torch.ones(3, device="meta").half(), torch.ones(3, device="meta"))
    return result


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


FAKE_MUTANTS: tuple[Mutant, ...] = (
    mutant("to-cpu", to_cpu, "transforms", claims=COMPILED, witness=stands_meta),
    mutant("meta-default", meta_default, "transforms", claims=COMPILED, witness=stands_meta),
    mutant("flat-fake", FLAT_FAKE, "transforms", claims=COMPILED, witness=stands_meta),
    mutant("exact-type", exact_type, "transforms", claims=COMPILED, witness=stands_fake),
    mutant("float-fake", FLOAT_FAKE, "transforms", claims=COMPILED, witness=stands_fake),
    mutant(
        "strided-operator", STRIDED, "transforms", claims=COMPILED, witness=compiles("inductor")
    ),
    mutant(
        "meta-dtype", meta_dtype, "transforms", claims=COMPILED, witness=unlike_builtin(on_meta)
    ),
    mutant(
        "scale-kept-from-fake",
        by_gradients(scales_kept),
        "transforms",
        claims=COMPILED,
        witness=otherwise(after_fake),
    ),
    mutant(
        "shaped-as-longer",
        shaped_as_longer,
        "transforms",
        claims=COMPILED,
        witness=otherwise(crossed),
    ),
)
