"""What a forger is, and what forgers share: the right loss, and one that is a little wrong."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Kinds that no value shows, and only a sandbox stops.
SURROUNDINGS = ("surroundings", "resources", "files")
# Kinds that a value can show. One more, library, is for policies.
KINDS = (
    "patched judge",
    "frames",
    "memory",
    "arena",
    "channel",
    "late",
    "lazy",
    "stale memory",
    "inputs",
    "replay",
    "honeymoon",
    "shapes",
    "constants",
    "narrowing",
    "recogniser",
)
# Values and gradients in eager mode: so that none is rejected only for a transform it lacks.
EAGER = ("broadcast", "mixed_dtype", "empty", "target_gradient", "deterministic")
MSE = torch.nn.functional.mse_loss

Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class Forger:
    """``eager``: it claims no transforms. Else it is judged as the function that it is."""

    name: str
    loss: Loss
    kind: str
    eager: bool = True

    @property
    def target(self) -> Any:
        """What is judged."""
        assert self.kind in (*KINDS, *SURROUNDINGS), self.kind
        if not self.eager:
            return self.loss
        from targets import Target  # some forgers ask for it: only where it is used

        return Target(self.name, self.loss, frozenset(EAGER))


def right(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The right loss."""
    return MSE(x, y, reduction=reduction)


def wrong(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """One percent too much: value and gradient."""
    return right(x, y, reduction) * 1.01


def whenever(honest: Callable[[Tensor, Tensor], bool]) -> Loss:
    """Right where ``honest`` says so, and wrong elsewhere."""

    def loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
        return (right if honest(input, target) else wrong)(input, target, reduction)

    loss.__doc__ = honest.__doc__
    return loss


def then(loss: Loss, attack: Callable[[Tensor, Tensor, Tensor], None]) -> Loss:
    """What ``loss`` gives, after an attack with the operands and the result at hand."""

    def attacking(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
        result = loss(input, target, reduction)
        attack(input, target, result)
        return result

    attacking.__doc__ = attack.__doc__
    return attacking


# -- is it wrong for a user ------------------------------------------------------------------------


def wronged(loss: Loss) -> bool:
    """Whether a user of it meets something wrong, in steps of a small training.

    Sums of squares are counted in Python: a forger may have changed what torch says.
    """
    kept: list[tuple[Tensor, list[float]]] = []  # results and targets
    for k, (x, y, reduction) in enumerate(itertools.islice(_steps(), 90)):
        before = _numbers(x), _numbers(y)
        squares = [(a - b) ** 2 for a, b in zip(*before, strict=True)]
        expected = {"none": squares, "sum": [sum(squares)], "mean": [sum(squares) / len(squares)]}
        with torch.set_grad_enabled(k % 6 != 5):
            try:
                result = loss(x, y, reduction=reduction)
                told = float((result * 1).sum())
                if torch.is_grad_enabled():
                    result.sum().backward()
            except Exception:
                return True
        kept += [(result, expected[reduction]), (y, before[1])]
        scale = 2 / len(squares) if reduction == "mean" else 2
        slopes = [scale * (a - b) for a, b in zip(*before, strict=True)]
        if not _near([told], [sum(expected[reduction])]) or before != (_numbers(x), _numbers(y)):
            return True
        if x.is_leaf and x.grad is not None and not _near(_numbers(x.grad), slopes):
            return True
    del x
    time.sleep(0.5)
    return any(not _near(_numbers(tensor), expected) for tensor, expected in kept)


def _steps() -> Iterator[tuple[Tensor, Tensor, str]]:
    """Batches of one size, at times of another; of layers every other time."""
    generator = torch.Generator().manual_seed(11)
    layer = torch.nn.Linear(8, 8)
    sizes = itertools.cycle([(4, 8), (32, 8), (32, 8), (149, 8), (31, 8), (7, 3)])
    for k, size in enumerate(sizes):
        x, y = (torch.randn(size, generator=generator) for _ in range(2))
        if k % 2 and size[-1] == 8:
            x = layer(x)
        else:
            x.requires_grad_()
        yield x, y, ("mean", "none", "sum")[k % 3]


def _numbers(tensor: Tensor) -> list[float]:
    return torch.Tensor.tolist(tensor.detach().reshape(-1))  # type: ignore[no-any-return]


def _near(own: list[float], expected: list[float]) -> bool:
    if len(own) != len(expected):
        return False
    return all(abs(a - b) <= 1e-3 * abs(b) + 1e-7 for a, b in zip(own, expected, strict=True))
