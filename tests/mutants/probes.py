"""What shows that a mutant is wrong, where mutants of several files are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.autograd.forward_ad as fwad
import torch.nn.functional as F
from torch import Tensor

from targets import Target

from .mutant import Witness, reduce


def line() -> tuple[Tensor, Tensor]:
    """Three elements."""
    return torch.tensor([1.0, 2, 3]), torch.zeros(3)


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


def changed(target: Target) -> bool:
    return not survives_change(target)


def summed(target: Target) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, y: total(target, x, y)


def data() -> tuple[Tensor, Tensor]:
    x, y = operands()
    return x.detach(), y.detach()


def described(target: Target, x: Tensor, y: Tensor) -> bool:
    """Shape, dtype and device of result and gradient."""
    result = target.loss(x, y, reduction="none")
    (got,) = torch.autograd.grad(result, x, torch.ones_like(result))
    return all((t.shape, t.dtype, t.device) == (x.shape, x.dtype, x.device) for t in (result, got))


def half(device: str) -> tuple[Tensor, Tensor]:
    x = torch.ones(2, 3, dtype=torch.float16, device=device)
    return x.requires_grad_(), torch.zeros_like(x)


@unless
def stands_meta(target: Target) -> bool:
    return described(target, *half("meta"))


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


def ramp_leaf(*shape: int) -> Tensor:
    return ramp(*shape).requires_grad_()


def gradient_of(x: Tensor, result: Tensor, g: Tensor | None = None) -> Tensor:
    return torch.autograd.grad(result, x, torch.ones_like(result) if g is None else g)[0]


def when_large(x: Tensor, y: Tensor) -> Witness:
    return unlike_builtin(lambda loss: loss(x, y, reduction="sum"))


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


def raises_or_is_right(result: Tensor, x: Tensor) -> bool:
    """Its gradient, where the target was 0 as the mean was taken."""
    try:
        (gradient,) = torch.autograd.grad(result, x)
    except RuntimeError:
        return True
    return torch.equal(gradient, x.detach())


def tangent_of(n: int, value: float) -> Callable[[Callable[..., Any]], Tensor]:
    def found(loss: Callable[..., Any]) -> Tensor:
        forward: Any = fwad
        x, t = torch.full((n,), value, dtype=torch.float16), torch.ones(n, dtype=torch.float16)
        with forward.dual_level():
            result = loss(forward.make_dual(x, t), torch.zeros_like(x))
            tangent: Tensor = forward.unpack_dual(result).tangent
        return tangent

    return found


NAN = torch.tensor([torch.nan, 1.0])


def weighted_in_place(loss: Callable[..., Any]) -> Tensor:
    x = leaf(1.0, 2.0, 3.0)
    losses = loss(x, torch.zeros(3), reduction="none")
    losses.mul_(torch.tensor([2.0, 0.5, 1.0]))
    losses.sum().backward()
    assert x.grad is not None
    return x.grad
