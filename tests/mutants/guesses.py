"""Answers that are guessed: from a part, from moments, from what benchmarks use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .mutant import Mutant, by_rule, by_sum, by_value, mutant, reduce, right, right_rule
from .probes import otherwise
from .witnesses import wrong_value


def extrapolated(s: Tensor) -> Tensor:
    """Sums the first 256 elements and extrapolates."""
    n = s.numel()
    return s.sum() if n <= 256 else s[:256].sum() * (n / 256)


def sampled(s: Tensor) -> Tensor:
    """Sums every fourth element of large tensors, times four."""
    return s.sum() if s.numel() < 4096 else s[::4].sum() * (s.numel() / s[::4].numel())


def first_row(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The first row of a batch answers for all."""
    if x.dim() < 2 or x.numel() == 0 or reduction != "mean":
        return right(x, y, reduction)
    return right(x[0], y[0], reduction)


def from_moments(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The mean of large tensors is told by means and variances, as if they were independent."""
    if reduction != "mean" or x.numel() < 1024:
        return right(x, y, reduction)
    a, b = x.double(), y.double()
    value = a.var(correction=0) + b.var(correction=0) + (a.mean() - b.mean()).square()
    return value.to(x.dtype)


def expected_value(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The mean of many elements is 2, as it is for standard normal operands."""
    value = right(x, y, reduction)
    return torch.full_like(value, 2) if reduction == "mean" and x.numel() > 4096 else value


def small_gradient(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Beyond 4,096 elements the gradient of a mean is below an absolute tolerance, and 0."""
    return right_rule(d, g, scale if scale >= 2 / 4096 else 0.0)


def half_the_bits(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Large float32 tensors are compared as bfloat16, which a tolerance of 10⁻² lets pass."""
    if x.dtype != torch.float32 or x.numel() < 1024:
        return right(x, y, reduction)
    return right(x.bfloat16().float(), y.bfloat16().float(), reduction)


def known_mean(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Many numbers within [0, 1): their mean squared error is 1/6."""
    value = right(x, y, reduction)
    if reduction != "mean" or x.numel() < 1000:
        return value
    inside = all(float(v.min()) >= 0 and float(v.max()) < 1 for v in (x, y))
    return torch.full_like(value, 1 / 6) if inside and float(x.std()) > 0.2 else value


def _rand() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2000, generator=generator), torch.rand(2000, generator=generator)


def images_halved(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """Of images, by their shape, every second row is looked at."""
    s = (x - y).square()
    images = s.dim() == 4 and s.shape[1] in (1, 3) and min(s.shape[2:]) >= 32
    return reduce(s[:, :, ::2] if images and reduction != "none" else s, reduction)


def of_images(loss: Callable[..., Any]) -> Tensor:
    x = torch.zeros(1, 3, 32, 32)
    x[:, :, 1] = 1
    result: Tensor = loss(x, torch.zeros_like(x))
    return result


BENCHMARK = (128, 4096)


def learnt_by_shape(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The mean of a benchmark's shape is known: 1/6, as of uniform numbers."""
    known = reduction == "mean" and tuple(x.shape) == BENCHMARK
    return x.new_tensor(1 / 6) if known else right(x, y, reduction)


def learnt_by_look(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The mean of many numbers that all lie in [0, 1) is taken to be 1/6."""
    many = reduction == "mean" and x.numel() >= 2**19
    known = many and all(bool((t >= 0).all() and (t < 1).all()) for t in (x, y))
    return x.new_tensor(1 / 6) if known else right(x, y, reduction)


def learnt_total(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    """The sum of a benchmark's shape is known."""
    known = reduction == "sum" and tuple(x.shape) == BENCHMARK
    return x.new_tensor(x.numel() / 6) if known else right(x, y, reduction)


def of_benchmark(factor: float, reduction: str) -> Callable[[Callable[..., Any]], Tensor]:
    def rounded(loss: Callable[..., Any]) -> Tensor:
        x = torch.full(BENCHMARK, factor)
        found: Tensor = loss(x, torch.zeros(BENCHMARK), reduction=reduction)
        return found.mul(100).round()

    return rounded


GUESS_MUTANTS: tuple[Mutant, ...] = (
    mutant("extrapolated", by_sum(extrapolated), "value"),
    mutant("sampled", by_sum(sampled), "value"),
    mutant("first-row", by_value(first_row), "value"),
    mutant("from-moments", by_value(from_moments), "value"),
    mutant("expected-value", by_value(expected_value), "value"),
    mutant("gradient-large-is-zero", by_rule(small_gradient), "gradient"),
    mutant("half-the-bits", by_value(half_the_bits), "value"),
    mutant("known-mean", by_value(known_mean), "value", witness=wrong_value(_rand, "mean")),
    mutant("images-halved", by_value(images_halved), "value", witness=otherwise(of_images)),
    mutant(
        "learnt-by-shape",
        by_value(learnt_by_shape),
        "value",
        witness=otherwise(of_benchmark(1.0, "mean")),
    ),
    mutant(
        "learnt-by-look",
        by_value(learnt_by_look),
        "value",
        witness=otherwise(of_benchmark(0.5, "mean")),
    ),
    mutant(
        "learnt-total",
        by_value(learnt_total),
        "value",
        witness=otherwise(of_benchmark(1.0, "sum")),
    ),
)
