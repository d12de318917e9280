"""Modules with a state or calls of their own, or other answers than the function's."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from targets import Target
from targets.module import MSE
from targets.target import REDUCTIONS

from .module import module_mutant
from .mutant import Mutant, Witness
from .probes import accepts, ramp


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


class SumsByDefault(MSE):
    """A module that is made without a reduction sums."""

    def __init__(self, reduction: str = "sum") -> None:
        super().__init__(reduction)


def default_sums(target: Any) -> bool:
    if target.module is None:
        return False
    return float(target.module()(torch.ones(2), torch.zeros(2))) != 1


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


MODULE_STATE_MUTANTS: tuple[Mutant, ...] = (
    module_mutant("module-typo", Typo, typo_is_taken, "errors"),
    module_mutant("module-squeezes", Squeezes, module_unlike(ramp(3, 1), 2 * ramp(3))),
    module_mutant(
        "module-whole-in-half",
        WholeInHalf,
        module_unlike(ramp(3), torch.tensor([1001, 2001, 3001])),
    ),
    module_mutant("module-weighted", Weighted, module_unlike(ramp(3), 2 * ramp(3))),
    module_mutant("module-sums-by-default", SumsByDefault, default_sums),
    module_mutant("module-scaled", Scaled, has_state),
    module_mutant("module-buffered", Buffered, has_state),
    module_mutant("module-extra-state", ExtraState, has_state),
    module_mutant("module-own-call", OwnCall, hooks_are_lost),
    module_mutant("module-deaf-call", DeafCall, hooks_are_lost),
    module_mutant("module-before-only", BeforeOnly, hooks_are_lost),
)
