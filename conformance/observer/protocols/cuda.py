"""Protocols on CUDA: other streams, graphs, another device than the current one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from conformance.observer.protocols.kit import Evidence, Kit, gradients, protocol

BUSY = 50_000_000  # cycles of the GPU that a stream is kept busy for: some 30 ms
_cuda: Any = torch.cuda  # untyped in torch


def _fill(x: Tensor, y: Tensor, contents: tuple[Tensor, Tensor]) -> None:
    with torch.no_grad():
        x.copy_(contents[0])
        y.copy_(contents[1])


@protocol
def stream(
    kit: Kit, *, x: Tensor, y: Tensor, later_x: Tensor, later_y: Tensor, reduction: str
) -> Evidence:
    """``result`` and ``gradient`` on a stream that is still busy and only then fills the operands.

    With the later contents; what follows on the stream reads both at once.
    """
    gradients(kit.loss(x, y, reduction), x)  # whatever is compiled is compiled now
    torch.cuda.synchronize(kit.device)
    aside = _cuda.Stream(kit.device)
    with torch.cuda.stream(aside):
        _cuda._sleep(BUSY)
        _fill(x, y, (later_x, later_y))
        result = kit.loss(x, y, reduction)
        seen = result.detach().clone()
        (gradient,) = gradients(result, x)
        gradient = gradient.clone()
    aside.synchronize()
    return {"result": seen, "gradient": gradient}


@protocol
def graph(
    kit: Kit,
    *,
    x: Tensor,
    y: Tensor,
    first_x: Tensor,
    first_y: Tensor,
    second_x: Tensor,
    second_y: Tensor,
    reduction: str,
) -> Evidence:
    """Captured once, as ``torch.cuda.graph`` documents, and replayed on ``first`` and ``second``
    contents: ``result`` and ``gradient`` of each.
    """
    aside = _cuda.Stream(kit.device)
    aside.wait_stream(torch.cuda.current_stream(kit.device))
    with torch.cuda.stream(aside):
        for _ in range(3):
            gradients(kit.loss(x, y, reduction), x)
    torch.cuda.current_stream(kit.device).wait_stream(aside)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.stream(aside), torch.cuda.graph(captured):
        # The outer one puts the current stream back, which a capture that fails does not.
        result = kit.loss(x, y, reduction)
        (gradient,) = gradients(result, x)
    seen = {}
    for name, contents in (("first", (first_x, first_y)), ("second", (second_x, second_y))):
        _fill(x, y, contents)
        captured.replay()
        torch.cuda.synchronize(kit.device)
        seen[name] = {"result": _kept(result), "gradient": _kept(gradient)}
    return seen


def _kept(seen: Any) -> Any:
    """As it is now: the next replay writes to the same memory."""
    return seen.detach().clone() if isinstance(seen, Tensor) else seen


@protocol
def devices(kit: Kit) -> Evidence:
    """The ``count`` of them."""
    return {"count": torch.cuda.device_count()}


@protocol
def beside_current(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """``result`` and ``gradient`` while an ``other`` device than that of ``x`` is current.

    ``current``: the one that is so after the call; both by their index, as text. ``places``: the
    device of the ``operands``, the ``result`` and the ``gradient``.
    """
    other = (x.get_device() + 1) % torch.cuda.device_count()
    with torch.cuda.device(other):
        result = kit.loss(x, y, reduction)
        (gradient,) = gradients(result, x)
        current = torch.cuda.current_device()
    tensors = {"operands": x, "result": result, "gradient": gradient}
    return {
        "result": result,
        "gradient": gradient,
        "other": str(other),
        "current": str(current),
        "places": {name: str(tensor.device) for name, tensor in tensors.items()},
    }
