"""Implementations that break only a ``should``: they conform, and the verdict says so."""

from __future__ import annotations

import timeit
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn._reduction import legacy_get_string
from torch.nn.functional import mse_loss

from targets import Target
from targets.module import MSE
from targets.operands import check_reduction, prepare

from .mutant import EAGER, Mutant, by_rule, by_value, mutant, reduce, right, right_rule, viewed

LONGEST = 2**12  # elements that a matrix of each with each has room for
MANY = 2**14  # elements that one may add up one by one, while somebody waits


def silent(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Broadcasts without a warning."""
    broadcast: Any = torch.broadcast_tensors  # untyped in torch
    return right(*broadcast(x, y), reduction)


def own_promotion(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Subtracts the operands as they are, so that a 0-d one does not widen the other."""
    prepare(x, y)  # for its warning and its errors
    return reduce((x - y).square(), reduction)


def raw(t: Tensor) -> Tensor:
    """Reads memory by pointer and strides, whatever the negative bit says."""
    plain = torch.empty(0, dtype=t.dtype, device=t.device)
    return plain.set_(t.untyped_storage(), t.storage_offset(), t.shape, t.stride())


def resolved_twice(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Negates a view with the negative bit, which torch has done on reading."""
    x, y = (-t if t.is_neg() else t for t in (x, y))
    return right(x, y, reduction)


def keeps_small_wide(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Rounds the squares of halves from 16 on before it adds them, and no smaller ones."""
    d = x - y
    if reduction == "none" or d.itemsize > 2:
        return reduce(d.square(), reduction)
    s = torch.where(d.abs() < 4, d.float().square(), d.square().float())
    return reduce(s, reduction).to(d.dtype)


def divides_last(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """The gradient of target is 2·d·g, over n at the end; that of input begins with 2/n."""
    return d * 2 * g / round(2 / scale)


class NoName(MSE):
    """Prints as its reduction alone."""

    def __repr__(self) -> str:
        return f"<{self.reduction}>"


class ByCode(MSE):
    """Keeps its reduction as the number by which ATen knows it."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.reduction: Any = ("none", "mean", "sum").index(reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return right(input, target, ("none", "mean", "sum")[self.reduction])


class _SavesAll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, reduction: str) -> Tensor:
        d = x - y
        s = d.square()
        ctx.save_for_backward(x, y, d, s)
        ctx.scale = 2 / max(d.numel(), 1) if reduction == "mean" else 2.0
        return reduce(s.clone(), reduction)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        gradient = right_rule(ctx.saved_tensors[2], g, ctx.scale)
        first, second, _ = ctx.needs_input_grad
        return gradient if first else None, -gradient if second else None, None


def saves_all(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Saves operands, differences and squares for backward."""
    apply: Any = _SavesAll.apply
    result: Tensor = apply(*prepare(x, y), check_reduction(reduction))
    return result


def no_warning(target: Target) -> bool:
    """Unequal sizes give no warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        target.loss(torch.rand(2, 3), torch.rand(3), reduction="mean")
    return not caught


def narrow_result(target: Target) -> bool:
    """A 0-d float64 with a float32 vector gives float32."""
    x, y = torch.rand((), dtype=torch.float64), torch.rand(3)
    return bool(target.loss(x, y, reduction="sum").dtype == torch.float32)


def negative_bit(target: Target) -> bool:
    """The imaginary part of a conjugate gives another loss than a copy of it."""
    y = torch.complex(torch.randn(9), torch.randn(9)).conj().imag
    x = torch.randn(9)
    got = target.loss(x, y, reduction="sum")
    return not torch.isclose(got, target.loss(x, y.clone(), reduction="sum"))


def scaling_rounds(target: Target) -> bool:
    """Twice the operands give other than four times the sum."""
    random_bits = torch.Generator().manual_seed(0)
    for _ in range(100):
        x, y = (torch.randint(-32, 33, (2, 67), generator=random_bits) / 8).bfloat16()
        values = target.loss(2 * x, 2 * y, reduction="sum"), 4 * target.loss(x, y, reduction="sum")
        if not torch.equal(*values):
            return True
    return False


def gradients_differ(target: Target) -> bool:
    """The gradients of input and target are not the negative of each other to the bit."""
    random_bits = torch.Generator().manual_seed(0)
    x, y = (torch.randn(67, generator=random_bits, requires_grad=True) for _ in range(2))
    g_x, g_y = torch.autograd.grad(target.loss(x, y, reduction="mean"), (x, y))
    return not torch.equal(g_x, -g_y)


def module_lacks(has: Callable[[Any], bool]) -> Callable[[Target], bool]:
    """Whether the module of a target for the sum is not what ``has`` asks."""
    return lambda target: target.module is not None and not has(target.module(reduction="sum"))


def saves_four(target: Target) -> bool:
    """The graph of a call holds four times the memory of an operand."""
    sizes: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        sizes[t.data_ptr()] = t.nbytes
        return t

    x, y = torch.rand(2, 50)
    x.requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        target.loss(x, y, reduction="mean")
    return sum(sizes.values()) >= 4 * x.nbytes


def _module(name: str, module: Any, witness: Callable[[Target], bool]) -> Mutant:
    """A right function with a ``module`` that is a little odd."""
    summary = module.__doc__.partition("\n")[0]
    target = Target(name, right, EAGER | {"module"}, summary=summary, module=module)
    return Mutant(target, frozenset({"module"}), witness=witness)


class Fixed(MSE):
    """Takes its reduction when it is made, and never again."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self._first = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return right(input, target, self._first)


def set_later(target: Target) -> bool:
    if target.module is None:
        return False
    module = target.module(reduction="mean")
    module.reduction = "sum"
    return float(module(torch.ones(2), torch.zeros(2))) != 2


def leaves_autocast(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Switches autocast off for itself, and so gives halves."""
    with torch.autocast(x.device.type, enabled=False):
        return right(x, y, reduction)


def half_under_autocast(target: Target) -> bool:
    x = torch.ones(3, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result: Tensor = target.loss(x, 2 * x, reduction=target.reductions[0])
    return result.dtype != torch.float32


def made_by_default(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Its factor is made on the default device, wherever the operands are."""
    result = right(x, y, reduction)
    return result * torch.ones((), dtype=result.dtype)


def with_default_device(target: Target) -> bool:
    x = torch.ones(3)
    torch.set_default_device("meta")
    try:
        result: Tensor = target.loss(x, 2 * x, reduction=target.reductions[0])
    except RuntimeError:
        return True
    finally:
        torch.set_default_device(None)
    return result.device.type != "cpu"


class _HoldsDifference(torch.autograd.Function):
    """The difference is an attribute of the context, which no backward frees."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.difference = x - y
        return ctx.difference.square()  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        gradient = 2 * gradients[0] * ctx.difference
        return gradient, -gradient


def holds_difference(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Keeps the difference as an attribute: it is there as long as the result is."""
    apply: Any = _HoldsDifference.apply
    return reduce(apply(*prepare(x, y)), reduction)


def holds_after_backward(target: Target) -> bool:
    """A result holds a tensor of an operand's size after its backward."""
    x = torch.rand(50, requires_grad=True)
    result = target.loss(x, torch.rand(50), reduction="sum")
    result.backward()
    node: Any = result.grad_fn
    contexts = [node, *(n for n, _ in node.next_functions)]
    return any(hasattr(context, "difference") for context in contexts)


def one_by_one(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Adds up element by element, in Python, as long as they are not very many."""
    if reduction == "none" or x.numel() > MANY:
        return reduce((x - y).square(), reduction)
    total = torch.zeros((), dtype=torch.float64)
    for a, b in zip(x.reshape(-1), y.reshape(-1), strict=True):
        total += (a - b).double().square()
    return (total if reduction == "sum" else total / x.numel()).to(x.dtype)


def each_with_each(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Takes the diagonal of all differences, of each element with each."""
    if reduction == "none" or x.numel() > LONGEST:
        return reduce((x - y).square(), reduction)
    s = (x.reshape(-1, 1) - y.reshape(1, -1)).square()
    return reduce(s.diagonal(), reduction)


def takes_long(target: Target) -> bool:
    """Longer than a thousand of the builtin's calls, or four times the size a dozen times."""

    def seconds(loss: Any, n: int) -> float:
        x, y = torch.ones(n), torch.zeros(n)
        return min(timeit.repeat(lambda: loss(x, y, reduction="mean"), number=1, repeat=3))

    own = [seconds(target.loss, n) for n in (2**10, 2**12)]
    return own[1] > 1000 * seconds(torch.nn.functional.mse_loss, 2**12) or own[1] > 10 * own[0]


def mean_of_stretched_weights(
    x: Tensor, y: Tensor, reduction: str = "mean", *, weight: Tensor | None = None
) -> Tensor:
    """A weighted mean is over the weights as they are stretched."""
    if weight is None or reduction != "mean":
        return mse_loss(x, y, reduction=reduction, weight=weight)
    products = mse_loss(x, y, reduction="none", weight=weight)
    return products.sum() / weight.expand(products.shape).sum()


def over_stretched_weights(target: Target) -> bool:
    x, y, w = torch.zeros(3), torch.ones(2, 3), torch.full((3,), 2.0)
    loss: Any = target.loss
    return bool(loss(x, y, weight=w) != mse_loss(x, y, weight=w))


def silent_flags(
    x: Tensor,
    y: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:
    """Takes the deprecated flags without a warning."""
    if size_average is not None or reduce is not None:
        reduction = legacy_get_string(size_average, reduce, emit_warning=False)
    return mse_loss(x, y, reduction=reduction)


def silent_about_flags(target: Target) -> bool:
    loss: Any = target.loss
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        loss(torch.ones(2), torch.zeros(2), size_average=True)
    return not told


AUTOCAST = EAGER | {"autocast"}

LENIENT: tuple[Mutant, ...] = (
    mutant(
        "leaves-autocast",
        leaves_autocast,
        "transforms",
        claims=AUTOCAST,
        witness=half_under_autocast,
    ),
    mutant("made-by-default", made_by_default, "transforms", witness=with_default_device),
    mutant("silent-broadcast", silent, "broadcasting", witness=no_warning),
    mutant("own-promotion", own_promotion, "dtypes", witness=narrow_result),
    mutant("raw-memory", viewed(raw), "layout", witness=negative_bit),
    mutant("resolved-twice", resolved_twice, "layout", witness=negative_bit),
    mutant("keeps-small-wide", by_value(keeps_small_wide), "metamorphic", witness=scaling_rounds),
    mutant("two-rules", by_rule(right_rule, divides_last), "metamorphic", witness=gradients_differ),
    _module("module-no-name", NoName, module_lacks(lambda m: "NoName" in repr(m))),
    _module("module-fixed", Fixed, set_later),
    _module("module-by-code", ByCode, module_lacks(lambda m: m.reduction == "sum")),
    mutant("keeps-difference-after", holds_difference, "resources", witness=holds_after_backward),
    mutant(
        "one-by-one", by_value(one_by_one), "resources", dtypes=("float32",), witness=takes_long
    ),
    mutant(
        "each-with-each",
        by_value(each_with_each),
        "resources",
        dtypes=("float32",),
        witness=takes_long,
    ),
    mutant("saves-all", saves_all, "resources", witness=saves_four),
    mutant(
        "stretched-weights",
        mean_of_stretched_weights,
        "weight",
        claims=EAGER | {"weight"},
        witness=over_stretched_weights,
    ),
    mutant(
        "silent-flags",
        silent_flags,
        "legacy",
        claims=EAGER | {"legacy"},
        witness=silent_about_flags,
    ),
)
