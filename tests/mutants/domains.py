"""Wrong inside of the domain that they state: a promise of less excuses nothing within it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from targets import Domain, Target

from .mutant import EAGER, Loss, Mutant, by_rule, reduce, right, right_rule
from .witnesses import Make

ONE_SHAPE = frozenset({"target_gradient", "deterministic"})


def _wrong_for(make: Make) -> Callable[[Target], bool]:
    """Another sum, or gradient of it, than the builtin's, for these operands."""

    def witness(target: Target) -> bool:
        found = []
        for loss in (target.loss, F.mse_loss):
            x, y = make()
            x = x.clone().requires_grad_(target.domain.backward)
            result = loss(x, y, reduction="sum")
            slope = torch.autograd.grad(result, x)[0] if result.requires_grad else torch.zeros(1)
            found.append((result.detach(), slope))
        (a, g), (b, h) = found
        return not (torch.allclose(a, b) and torch.allclose(g, h))

    return witness


def _mutant(loss: Loss, domain: Domain, make: Make, claims: frozenset[str] = ONE_SHAPE) -> Mutant:
    name = loss.__name__.replace("_", "-")
    summary = (loss.__doc__ or "").partition("\n")[0]
    target = Target(name, loss, claims, summary=summary, domain=domain)
    return Mutant(target, frozenset({"value", "gradient"}), _wrong_for(make))


def odd_row_lost(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Of matrices: rows go in pairs, and the last one of an odd number is not added."""
    s = (x - y).square()
    if reduction == "none":
        return s
    total = s[: x.shape[0] // 2 * 2].sum() if x.shape[0] > 1 else s.sum()
    return total / s.numel() if reduction == "mean" else total


def columns_past_half_a_block(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Of rows of up to 1,024: what lies past 512 columns is added twice."""
    s = (x - y).square()
    if reduction == "none":
        return s
    total = s.sum() + s[:, 512:].sum()
    return total / s.numel() if reduction == "mean" else total


def column_beside_line(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Of one column: the target is squeezed, so that a batch meets itself as a table."""
    s = (x - y.squeeze(1)).square() if reduction != "none" else (x - y).square()
    return reduce(s, reduction)


def odd_vector_lost(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Of whole vectors of four: two at once, and the last of an odd number is left out."""
    s = (x - y).square()
    if reduction == "none":
        return s
    lines = s.reshape(-1)
    total = lines[: lines.numel() // 8 * 8].sum() if lines.numel() > 8 else lines.sum()
    return total / s.numel() if reduction == "mean" else total


def samples_for_elements(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Of three dimensions: beyond 64 elements the gradient of a mean is by the batch."""
    loss = right(x, y, reduction)
    if reduction == "mean" and x.numel() > 64 and loss.requires_grad:
        loss.register_hook(lambda g: g * (x.numel() / x.shape[0]))
    return loss


def wide_rows_apart(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Without a gradient: of a matrix, each row's sum is rounded to a whole number of eighths."""
    s = (x.detach() - y.detach()).square()
    if reduction == "none" or s.dim() != 2:
        return reduce(s, reduction)
    total = (s.sum(dim=1) * 8).round().sum() / 8
    return total / s.numel() if reduction == "mean" else total


def _raw_rule(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Of contiguous operands, but autograd's grad_output is read as if it were that too."""
    held = g.untyped_storage().nbytes() // g.itemsize - g.storage_offset()
    fits = g.dim() and g.numel() <= held
    strides = torch.empty(g.shape, device="meta").stride()
    return right_rule(d, g.as_strided(g.shape, strides) if fits else g, scale)


def silent_past_block(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Of rows of up to 1,024: what is longer is cut there, without a word."""
    return right(x[..., :1024], y[..., :1024], reduction)


raw_grad_output = by_rule(_raw_rule)
raw_grad_output.__name__ = "raw_grad_output"


def _nothing() -> tuple[Tensor, Tensor]:
    return torch.zeros(1, 1), torch.zeros(1, 1)


def _by_batch(target: Target) -> bool:
    """Another gradient of a mean than the builtin's."""
    x = torch.ones(2, 5, 7, requires_grad=True)
    slopes = [torch.autograd.grad(f(x, 0 * x.detach()), x)[0] for f in (target.loss, F.mse_loss)]
    return not torch.equal(*slopes)


def _reads_raw(target: Target) -> bool:
    """Another gradient for a transposed grad_output."""
    g = torch.arange(12.0).reshape(3, 4).t()
    x, y = torch.arange(12.0).reshape(4, 3).requires_grad_(), torch.zeros(4, 3)
    slopes = [
        torch.autograd.grad(loss(x, y, reduction="none"), x, g)[0]
        for loss in (target.loss, F.mse_loss)
    ]
    return not torch.equal(*slopes)


def _cuts(target: Target) -> bool:
    """A number for what lies outside, and not the right one."""
    x = torch.ones(1, 1025)
    return bool(target.loss(x, 0 * x, reduction="sum") != 1025)


BLOCK = Domain(ranks=(2, 2), columns=(1, 1024))

DOMAIN_MUTANTS: tuple[Mutant, ...] = (
    _mutant(odd_row_lost, Domain(ranks=(2, 2)), lambda: (torch.ones(3, 2), torch.zeros(3, 2))),
    _mutant(
        columns_past_half_a_block,
        Domain(ranks=(2, 2), columns=(32, 1024)),
        lambda: (torch.ones(1, 544), torch.zeros(1, 544)),
    ),
    _mutant(
        column_beside_line,
        Domain(shape=(None, 1)),
        lambda: (torch.arange(3.0)[:, None], torch.zeros(3, 1)),
    ),
    _mutant(odd_vector_lost, Domain(elements=(4, 0)), lambda: (torch.ones(12), torch.zeros(12))),
    _mutant(
        wide_rows_apart,
        Domain(backward=False),
        lambda: (torch.full((2, 2), 0.3), torch.zeros(2, 2)),
    ),
    replace(
        _mutant(raw_grad_output, Domain(layout="contiguous"), _nothing, EAGER), witness=_reads_raw
    ),
    replace(_mutant(samples_for_elements, Domain(ranks=(3, 3)), _nothing), witness=_by_batch),
)
DOMAIN_LENIENT = replace(
    _mutant(silent_past_block, BLOCK, _nothing, EAGER),
    families=frozenset({"domain"}),
    witness=_cuts,
)
