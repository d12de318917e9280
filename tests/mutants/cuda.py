"""Right on the host, and wrong on a GPU: streams, graphs, atomics, memory that nobody has set."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from targets import Target

from .mutant import Mutant, by_rule, by_sum, mutant, right, right_rule, widened

BINS = 1024  # partial sums that atomics add to
BUSY = 50_000_000  # cycles of the GPU that a stream is kept busy for: some 30 ms
_cuda: Any = torch.cuda  # untyped in torch


def on_default_stream(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Launches on the default stream, whichever is current."""
    with torch.cuda.stream(torch.cuda.default_stream(x.device)):
        return right(x, y, reduction)


def never_waits(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Launches on a stream of its own, which does not wait for the operands."""
    own = _cuda.Stream(x.device)
    with torch.cuda.stream(own):
        result = right(x, y, reduction)
    torch.cuda.current_stream(x.device).wait_stream(own)
    return result


def never_awaited(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Launches on a stream of its own, for which nobody waits."""
    own = _cuda.Stream(x.device)
    own.wait_stream(torch.cuda.current_stream(x.device))
    with torch.cuda.stream(own):
        return right(x, y, reduction)


def tells_the_loss(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Reads its result for a progress bar, so that it cannot be captured in a graph."""
    result = right(x, y, reduction)
    float(result.detach().sum())
    return result


def waits_for_device(x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Waits for the whole device before it returns, left from a benchmark."""
    result = right(x, y, reduction)
    torch.cuda.synchronize(x.device)
    return result


def by_way_of_host(d: Tensor, g: Tensor, scale: float) -> Tensor:
    """Multiplies with grad_output as a number on the host."""
    return right_rule(d, g.cpu().to(d.device), scale)


def by_atomics(flat: Tensor) -> Tensor:
    """Adds up by atomics, in whatever order they arrive; those flush subnormal numbers to zero."""
    index = torch.arange(flat.numel(), device=flat.device) % BINS
    return flat.new_zeros(BINS).index_add_(0, index, flat).sum()


def never_zeroed(flat: Tensor) -> Tensor:
    """Adds into an accumulator that nobody has set to zero."""
    return torch.empty((), dtype=widened(flat.dtype), device=flat.device).add_(flat.sum())


def _early(target: Target) -> bool:
    """On a busy stream that fills the operand last, the value is another one."""
    x, y = torch.zeros(33, device="cuda"), torch.zeros(33, device="cuda")
    target.loss(x, y)
    torch.cuda.synchronize()
    stream = _cuda.Stream()
    with torch.cuda.stream(stream):
        _cuda._sleep(BUSY)
        x.fill_(3)
        result = target.loss(x, y).clone()
    torch.cuda.synchronize()
    return float(result) != 9


def _unready(target: Target) -> bool:
    """The stream reads the result before it is there."""
    x, y = torch.full((2**24,), 3.0, device="cuda"), torch.zeros(2**24, device="cuda")
    torch.cuda.synchronize()
    result = target.loss(x, y).clone()
    torch.cuda.synchronize()
    return float(result) != 9


def _uncapturable(target: Target) -> bool:
    """Value and gradient cannot be captured in a graph."""
    x, y = torch.ones(33, device="cuda", requires_grad=True), torch.zeros(33, device="cuda")
    torch.autograd.grad(target.loss(x, y), x)
    torch.cuda.synchronize()
    try:
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            torch.autograd.grad(target.loss(x, y), x)
    except RuntimeError:
        return True
    return False


def _unsettled(target: Target) -> bool:
    """Not the same bits each time."""
    x = torch.linspace(-3, 5, 2**20 + 3, device="cuda")
    return len({float(target.loss(x, -x * x)) for _ in range(20)}) > 1


def _dirty(target: Target) -> bool:
    """Not a number, where free memory holds none."""
    x, y = torch.ones(3, device="cuda"), torch.zeros(3, device="cuda")
    held = [torch.full((), torch.nan, device="cuda") for _ in range(9)]
    del held
    return float(target.loss(x, y, reduction="sum")) != 3


CUDA_MUTANTS: tuple[Mutant, ...] = (
    mutant("on-default-stream", on_default_stream, "cuda", witness=_early),
    mutant("never-waits", never_waits, "cuda", witness=_early),
    mutant("never-awaited", never_awaited, "cuda", "value", witness=_unready),
    mutant("tells-the-loss", tells_the_loss, "cuda", witness=_uncapturable),
    mutant("waits-for-device", waits_for_device, "cuda", witness=_uncapturable),
    mutant("by-way-of-host", by_rule(by_way_of_host), "cuda", witness=_uncapturable),
    mutant("by-atomics", by_sum(by_atomics), "determinism", "value", witness=_unsettled),
    mutant("never-zeroed", by_sum(never_zeroed), "value", witness=_dirty),
)
