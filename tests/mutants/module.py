"""Modules that are broken, beside a function that is right."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from targets import Target
from targets.module import MSE

from .mutant import EAGER, Mutant, reduce, right


class MeanOnly(MSE):
    """Keeps its reduction, and hands nothing on to the function but the operands."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return right(input, target)


class HalfFactor(MSE):
    """Has the factor ½ that the function was rid of."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return super().forward(input, target) / 2


class OnClass(MSE):
    """Keeps its reduction on the class: all are as the one that was made last."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)
        type(self).last = reduction

    last = "mean"

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return right(input, target, self.last)


class NoModule:
    """A class with the call of a module, and nothing else of one."""

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = reduction

    def __call__(self, input: Tensor, target: Tensor) -> Tensor:
        return right(input, target, self.reduction)


class UnreducedInEval(MSE):
    """Reports the loss of each sample when it evaluates."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return right(input, target, self.reduction if self.training else "none")


class ForgottenSelf(MSE):
    """Its own train() returns nothing, so that eval() does neither."""

    def train(self, mode: bool = True) -> Any:
        super().train(mode)


class LambdaInside(MSE):
    """Chooses its reduction once, as a lambda, which cannot be pickled."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.apply_to = lambda s: reduce(s, reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        result: Tensor = self.apply_to(right(input, target, "none"))
        return result


class MakesAnew(MSE):
    """Is unpickled by making a new one, with the default reduction."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def __deepcopy__(self, memo: dict[int, Any]) -> MakesAnew:
        return type(self)(self.reduction)


class CopiesDefault(MSE):
    """Is copied by making a new one, with the default reduction."""

    def __deepcopy__(self, memo: dict[int, Any]) -> CopiesDefault:
        return type(self)()


class WeightNotLeaf(MSE):
    """Has a weight that is the result of an operation, which torch does not copy deeply."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.weight = torch.zeros((), requires_grad=True).exp()

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        result = super().forward(input, target)
        return result * self.weight.to(result)


class LateBuffer(MSE):
    """Registers the buffer of its running mean with the first call."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        result = super().forward(input, target)
        if not hasattr(self, "running"):
            self.register_buffer("running", result.detach().mean())
        return result


class ExtraKey(MSE):
    """Saves its reduction among the tensors, which does not load strictly."""

    def state_dict(self, *args: Any, **options: Any) -> Any:
        state = super().state_dict(*args, **options)
        return state | {"reduction": torch.tensor(["none", "sum", "mean"].index(self.reduction))}


class BeginsAnew(MSE):
    """Loading a state begins anew, with the default reduction."""

    def load_state_dict(self, *args: Any, **options: Any) -> Any:
        self.reduction = type(self)().reduction
        return super().load_state_dict(*args, **options)


class AccumulatorMoves(MSE):
    """Computes in the dtype of an empty buffer: float64, until the module is moved."""

    accumulator: Tensor

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.register_buffer("accumulator", torch.empty(0, dtype=torch.float64), persistent=False)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        kind = self.accumulator.dtype
        result = super().forward(input.to(kind), target.to(kind))
        return result.to(torch.promote_types(input.dtype, target.dtype))


class OwnTo(MSE):
    """Its own to() remembers the dtype, and gives every result in it."""

    kind: torch.dtype | None = None

    def to(self, *args: Any, **options: Any) -> Any:
        self.kind = next((a for a in args if isinstance(a, torch.dtype)), self.kind)
        return super().to(*args, **options)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return super().forward(input, target).to(self.kind)


class DeviceOnly(MSE):
    """Its own to() takes a device, and fails on a dtype."""

    def to(self, device: Any) -> Any:
        self.device = torch.device(device)
        return self


class Detaches(MSE):
    """Detaches the target, which its function does not."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return super().forward(input, target.detach())


class Rows(MSE):
    """Averages over the batch, then over the rows that it takes the target to have."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        if self.reduction != "mean" or input.dim() < 2:
            return super().forward(input, target)
        return right(input, target, "sum") / max(target.numel(), 1)


Use = Callable[[Any], Any]  # what is done to a module before it is called


def _as_made(module: Any) -> Any:
    return module


def _unpickled(module: Any) -> Any:
    return pickle.loads(pickle.dumps(module))


def _reloaded(module: Any) -> Any:
    module(torch.ones(3), torch.zeros(3))
    other = type(module)(module.reduction)
    other.load_state_dict(module.state_dict(), strict=True)
    return other


def _to_half(module: Any) -> Any:
    return module.to(torch.float16)


def wrong_after(use: Use) -> Callable[[Target], bool]:
    """Whether a module raises after ``use``, or gives another loss than the builtin."""

    def witness(target: Target) -> bool:
        if target.module is None:
            return False
        x = torch.linspace(-3, 5, 7, dtype=torch.float64)
        y = x.flip(0) / 3
        for reduction in ("none", "sum", "mean"):
            wanted = nn.functional.mse_loss(x, y, reduction=reduction)
            try:
                got = use(target.module(reduction=reduction))(x, y)
            except Exception:  # whatever it is, the module did not survive
                return True
            if got.dtype != wanted.dtype or got.shape != wanted.shape:
                return True
            if not torch.allclose(got, wanted, rtol=1e-12):
                return True
        return False

    return witness


def made_together(target: Target) -> bool:
    """Whether the first of two modules gives something else once the second is made."""
    if target.module is None:
        return False
    x, y = torch.ones(2), torch.zeros(2)
    first, _ = (target.module(reduction=r) for r in ("sum", "mean"))
    return float(first(x, y)) != 2


def target_is_detached(target: Target) -> bool:
    """The module's result knows nothing of the target."""
    if target.module is None:
        return False
    y = torch.ones(3, requires_grad=True)
    return not target.module(reduction="sum")(torch.zeros(3), y).requires_grad


def divides_by_target(target: Target) -> bool:
    """The mean of a matrix and a row is not over the matrix."""
    if target.module is None:
        return False
    mean = target.module(reduction="mean")(torch.ones(2, 3), torch.zeros(3))
    return float(mean) != 1


def keys_change(target: Target) -> bool:
    """A call changes the keys of the module's state_dict."""
    if target.module is None:
        return False
    module = target.module(reduction="mean")
    before = set(module.state_dict())
    module(torch.ones(3), torch.zeros(3))
    return set(module.state_dict()) != before


def no_module(target: Target) -> bool:
    """What is made is no nn.Module."""
    return target.module is not None and not isinstance(target.module(), nn.Module)


def module_mutant(
    name: str, module: Any, witness: Callable[[Target], bool], family: str = "module"
) -> Mutant:
    """A right function with a broken ``module``, whose docstring is the summary."""
    summary = module.__doc__.partition("\n")[0]
    target = Target(name, right, EAGER | {"module"}, summary=summary, module=module)
    return Mutant(target, frozenset({family}), witness=witness)


MODULE_MUTANTS: tuple[Mutant, ...] = (
    module_mutant("module-mean-only", MeanOnly, wrong_after(_as_made)),
    module_mutant("module-half-factor", HalfFactor, wrong_after(_as_made)),
    module_mutant("module-on-class", OnClass, made_together),
    module_mutant("module-is-none", NoModule, no_module),
    module_mutant("module-detaches", Detaches, target_is_detached),
    module_mutant("module-rows", Rows, divides_by_target),
    module_mutant("module-unreduced-in-eval", UnreducedInEval, wrong_after(lambda m: m.eval())),
    module_mutant("module-forgotten-self", ForgottenSelf, wrong_after(lambda m: m.eval())),
    module_mutant("module-lambda-inside", LambdaInside, wrong_after(_unpickled)),
    module_mutant("module-makes-anew", MakesAnew, wrong_after(_unpickled)),
    module_mutant("module-copies-default", CopiesDefault, wrong_after(copy.deepcopy)),
    module_mutant("module-weight-not-leaf", WeightNotLeaf, wrong_after(copy.deepcopy)),
    module_mutant("module-late-buffer", LateBuffer, keys_change),
    module_mutant("module-extra-key", ExtraKey, wrong_after(_reloaded)),
    module_mutant("module-begins-anew", BeginsAnew, wrong_after(_reloaded)),
    module_mutant("module-accumulator-moves", AccumulatorMoves, wrong_after(_to_half)),
    module_mutant("module-own-to", OwnTo, wrong_after(_to_half)),
    module_mutant("module-device-only", DeviceOnly, wrong_after(_to_half)),
)
