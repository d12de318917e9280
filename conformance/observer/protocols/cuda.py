"""Experiments on CUDA: other streams, graphs, another device than the current one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from conformance.observer.protocols.bench import (
    Bench,
    Messages,
    Unavailable,
    deviation_of_both,
    eighths,
    experiment,
    gradients,
)
from conformance.verdict.verdict import ONE_GPU
from reference.formats import Floats

SIZE = 33
BUSY = 50_000_000  # cycles of the GPU that a stream is kept busy for: some 30 ms
_cuda: Any = torch.cuda  # untyped in torch


def _rounds(bench: Bench, count: int) -> Iterator[tuple[Floats, Floats]]:
    """Contents for one call after the other."""
    for k in range(count):
        yield eighths(bench, (SIZE,), 2 * k), eighths(bench, (SIZE,), 2 * k + 1)


def _fill(x: Tensor, y: Tensor, contents: tuple[Tensor, Tensor]) -> None:
    with torch.no_grad():
        x.copy_(contents[0])
        y.copy_(contents[1])


@experiment("cuda.stream")
def _stream(bench: Bench) -> Messages:
    """On a stream that is still busy and only then fills the operands: nothing may run before.

    What follows on the stream reads the results at once: nothing may run after either.
    """
    (first, second) = _rounds(bench, 2)
    for reduction in bench.reductions:
        x, y = bench.made(first[0], needs=True), bench.made(first[1])
        gradients(bench.loss(x, y, reduction), x)  # whatever is compiled is compiled now
        later = bench.made(second[0]), bench.made(second[1])
        torch.cuda.synchronize(bench.device)
        stream = _cuda.Stream(bench.device)
        with torch.cuda.stream(stream):
            _cuda._sleep(BUSY)
            _fill(x, y, later)
            result = bench.loss(x, y, reduction)
            seen = result.detach().clone()
            (gradient,) = gradients(result, x)
            gradient = gradient.clone()
        stream.synchronize()
        yield from deviation_of_both(bench, "on another stream", seen, gradient, *second, reduction)


@experiment("cuda.graph")
def _graph(bench: Bench) -> Messages:
    """Captured once and replayed on other contents, as ``torch.cuda.graph`` documents."""
    first, *others = _rounds(bench, 3)
    for reduction in bench.reductions:
        x, y = bench.made(first[0], needs=True), bench.made(first[1])
        aside = _cuda.Stream(bench.device)
        aside.wait_stream(torch.cuda.current_stream(bench.device))
        with torch.cuda.stream(aside):
            for _ in range(3):
                gradients(bench.loss(x, y, reduction), x)
        torch.cuda.current_stream(bench.device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(aside), torch.cuda.graph(graph):
            # The outer one puts the current stream back, which a capture that fails does not.
            result = bench.loss(x, y, reduction)
            (gradient,) = gradients(result, x)
        for contents in others:
            _fill(x, y, (bench.made(contents[0]), bench.made(contents[1])))
            graph.replay()
            torch.cuda.synchronize(bench.device)
            yield from deviation_of_both(
                bench, "in a graph", result, gradient, *contents, reduction
            )


@experiment("cuda.device")
def _device(bench: Bench) -> Messages:
    """Operands on a device while another one is current: that of the operands counts."""
    if torch.cuda.device_count() < 2:
        raise Unavailable(ONE_GPU)
    own = torch.empty(0, device=bench.device).device
    other = (own.index + 1) % torch.cuda.device_count()
    for reduction in bench.reductions:
        ((a, b),) = _rounds(bench, 1)
        x, y = bench.made(a, needs=True), bench.made(b)
        with torch.cuda.device(other):
            result = bench.loss(x, y, reduction)
            (gradient,) = gradients(result, x)
            current = torch.cuda.current_device()
        if current != other:
            yield f"a call made device {current} current, which was {other} ({reduction})"
        for what, tensor in (("result", result), ("gradient", gradient)):
            if tensor.device != own:
                yield f"the {what} is on {tensor.device}, the operands on {own} ({reduction})"
        where = f"with device {other} current"
        yield from deviation_of_both(bench, where, result, gradient, a, b, reduction)
