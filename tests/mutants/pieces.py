"""Terms and slopes in pieces that are wrong: thresholds, kinks, ties, the wrong piece."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.right.losses import TERMS, slope


def tie_up(d: Tensor) -> Tensor:
    """At a tie the slope is 1."""
    return torch.where(d >= 0, d, -d)


def tie_down(d: Tensor) -> Tensor:
    """At a tie the slope is −1."""
    return torch.where(d > 0, d, -d)


def root_of_square(d: Tensor) -> Tensor:
    """√(d²): at a tie the gradient is NaN, and squares overflow."""
    return d.square().sqrt()


def root_of_more(d: Tensor) -> Tensor:
    """√(d² + 10⁻⁶) is never 0."""
    return (d.square() + 1e-6).sqrt()


def signed(d: Tensor) -> Tensor:
    """The difference itself."""
    return d


def squared(d: Tensor) -> Tensor:
    """mse in its place."""
    return d.square()


def one_sided(d: Tensor) -> Tensor:
    """max(d, 0)."""
    return F.relu(d)


def smooth_near_zero(d: Tensor) -> Tensor:
    """Rounded off below 1/64."""
    size = d.abs()
    return torch.where(size < 2**-6, size.square() * 2**5 + 2**-7, size)


L1_TERMS = (
    tie_up,
    tie_down,
    root_of_square,
    root_of_more,
    signed,
    squared,
    one_sided,
    smooth_near_zero,
)


def signed_threshold(d: Tensor, limit: float) -> Tensor:
    """The threshold is on the signed difference: what is far below counts as near."""
    return torch.where(d < limit, d * d / 2, limit * (d.abs() - limit / 2))


def no_offset(d: Tensor, limit: float) -> Tensor:
    """The linear piece does not meet the other one."""
    return torch.where(d.abs() <= limit, d * d / 2, limit * d.abs())


def no_half(d: Tensor, limit: float) -> Tensor:
    """d² for d²/2 inside."""
    return torch.where(d.abs() <= limit, d * d, limit * (d.abs() - limit / 2))


def threshold_one(d: Tensor, limit: float) -> Tensor:
    """The threshold is 1, whatever the parameter."""
    return torch.where(d.abs() <= 1, d * d / 2, limit * (d.abs() - limit / 2))


def threshold_squared(d: Tensor, limit: float) -> Tensor:
    """d² is compared with the parameter."""
    return torch.where(d * d <= limit, d * d / 2, limit * (d.abs() - limit / 2))


def quadratic_everywhere(d: Tensor, limit: float) -> Tensor:
    """Never leaves the quadratic piece."""
    return d * d / 2


def linear_everywhere(d: Tensor, limit: float) -> Tensor:
    """Knows the linear piece alone."""
    return limit * (d.abs() - limit / 2)


def truncated(d: Tensor, limit: float) -> Tensor:
    """The parameter is an integer."""
    whole = float(max(int(limit), 1)) if math.isfinite(limit) else limit
    return TERMS["huber"](d, whole)


def log_cosh(d: Tensor, limit: float) -> Tensor:
    """log cosh d, which is near it."""
    return d.abs() + F.softplus(-2 * d.abs()) - math.log(2.0)


def pseudo(d: Tensor, limit: float) -> Tensor:
    """δ²·(√(1 + (d/δ)²) − 1), the pseudo-Huber loss."""
    return limit**2 * ((1 + (d / limit).square()).sqrt() - 1)


def squares_clipped(d: Tensor, limit: float) -> Tensor:
    """The square of the clipped difference: constant beyond."""
    return d.clamp(-limit, limit).square() / 2


def strict_zero(d: Tensor, limit: float) -> Tensor:
    """On the kink the value is 0."""
    linear = limit * (d.abs() - limit / 2)
    return torch.where(d.abs() < limit, d * d / 2, torch.where(d.abs() > limit, linear, 0 * d))


def far_lost(d: Tensor, limit: float) -> Tensor:
    """From 16 times the threshold on it is constant, as an outlier is left out."""
    return TERMS["huber"](d.clamp(-16 * limit, 16 * limit), limit)


PIECES = (
    signed_threshold,
    no_offset,
    no_half,
    threshold_one,
    threshold_squared,
    quadratic_everywhere,
    linear_everywhere,
    truncated,
    log_cosh,
    pseudo,
    squares_clipped,
    strict_zero,
    far_lost,
)


def kink_slope_lost(loss: str, d: Tensor, g: Tensor, limit: float) -> Tensor:
    """On the kink there is no gradient: neither comparison holds."""
    return torch.where(d.abs() == limit, torch.zeros_like(d), slope(loss, d, limit) * g)


def clipped_at_one(loss: str, d: Tensor, g: Tensor, limit: float) -> Tensor:
    """Clipped at 1, whatever the parameter."""
    return d.clamp(-1, 1) * g


def other_branch(loss: str, d: Tensor, g: Tensor, limit: float) -> Tensor:
    """The gradient of the wrong piece for what lies beyond twice the threshold."""
    inside = d if loss == "huber" else d / limit
    return torch.where(d.abs() > 2 * limit, inside, slope(loss, d, limit)) * g


def signed_slope(loss: str, d: Tensor, g: Tensor, limit: float) -> Tensor:
    """The threshold is on the signed difference in backward alone."""
    inside = d if loss == "huber" else d / limit
    return torch.where(d < limit, inside, slope(loss, d, limit)) * g


def default_slope(loss: str, d: Tensor, g: Tensor, limit: float) -> Tensor:
    """Backward is not handed the parameter."""
    return slope(loss, d, 1.0) * g


PIECE_RULES = (kink_slope_lost, clipped_at_one, other_branch, signed_slope, default_slope)
