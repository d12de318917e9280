"""Experiments on layout: views that more than strides describe."""

from __future__ import annotations

import itertools

import torch

from conformance.observer.protocols.bench import (
    Bench,
    Messages,
    deviation_of_both,
    deviation_of_loss,
    eighths,
    experiment,
    gradients,
)
from reference.formats import Floats

Pair = tuple[torch.Tensor, torch.Tensor]


@experiment("layout.shared")
def _shared(bench: Bench) -> Messages:
    """A square and its transpose, two windows of one line, and its two halves."""
    judged, error = False, None
    for reduction, what in itertools.product(bench.reductions, _views(bench)):
        (x, y), (u, v) = _views(bench)[what]
        try:
            alone = _with_gradient(bench, x, _apart(y), reduction)
        except Exception as raised:
            error = raised  # it does not stand such strides: other clauses say so
            continue
        judged = True
        text = f"{what} as operands:"
        if not any(deviation_of_both(bench, text, *alone, u, v, reduction)):
            x, y = _views(bench)[what][0]  # new ones: to change an operand is another defect
            together = _with_gradient(bench, x, y, reduction)
            yield from deviation_of_both(bench, text, *together, u, v, reduction)
    if error and not judged:
        raise error


def _with_gradient(bench: Bench, x: torch.Tensor, y: torch.Tensor, reduction: str) -> Pair:
    """The result without a gradient, and the gradient of ``x``."""
    result = bench.loss(x, y, reduction)
    leaf = x.detach().requires_grad_()  # in the same memory
    (gradient,) = gradients(bench.loss(leaf, y, reduction), leaf)
    return result, gradient


def _views(bench: Bench) -> dict[str, tuple[Pair, tuple[Floats, Floats]]]:
    """Two views of one new tensor, and their elements."""
    square, line = eighths(bench, (3, 3), 1), eighths(bench, (9,), 2)
    a, b = bench.made(square), bench.made(line)
    return {
        "a tensor and its transpose": ((a, a.t()), (square, square.T)),
        "two overlapping windows": ((b[:-1], b[1:]), (line[:-1], line[1:])),
        "two halves of one tensor": ((b[:4], b[5:]), (line[:4], line[5:])),
    }


def _apart(view: torch.Tensor) -> torch.Tensor:
    """A copy in memory of its own, with the same strides."""
    return torch.empty_strided(
        view.shape, view.stride(), dtype=view.dtype, device=view.device
    ).copy_(view)


@experiment("layout.negative")
def _negative(bench: Bench) -> Messages:
    """``z.conj().imag`` is a view whose elements are the negative of what is in memory."""
    x, y = bench.made(eighths(bench, (9,), 1)), bench.made(eighths(bench, (9,), 2))
    for reduction in bench.reductions:
        if any(deviation_of_loss(bench, "", bench.loss(x, y, reduction), x, y, reduction)):
            continue  # wrong without such a view: other clauses say so
        # The bits of the negative, to be read as the number itself.
        views = torch._neg_view(x.neg()), torch._neg_view(y.neg())
        for operands in ((views[0], y), (x, views[1])):
            got = bench.loss(operands[0], operands[1], reduction)
            what = f"of a negative-bit view the result ({reduction})"
            yield from deviation_of_loss(bench, what, got, x, y, reduction)
