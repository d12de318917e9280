"""Protocols on operands of a tensor subclass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from conformance.observer.protocols.kit import Evidence, Kit, protocol


class Labelled(Tensor):
    """A tensor under another name: torch's own makes its results such as well."""


class Container(Tensor):
    """Holds its elements in another tensor, and has other numbers in its own memory.

    Every function of torch is called on the elements, and what it gives is contained anew.
    """

    elements: Tensor

    @staticmethod
    def of(elements: Tensor) -> Container:
        made: Container = torch.full_like(elements.detach(), 7).as_subclass(Container)
        made.elements = elements
        return made

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        inner = tree_map(_elements, (args, kwargs or {}))
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*inner[0], **inner[1])
            return tree_map(lambda v: cls.of(v) if isinstance(v, Tensor) else v, result)


def _elements(value: Any) -> Any:
    return value.__dict__["elements"] if isinstance(value, Container) else value


def _plain(tensor: Any) -> Any:
    return tensor.as_subclass(Tensor) if isinstance(tensor, Tensor) else tensor


@protocol
def labelled(kit: Kit, *, x: Tensor, y: Tensor, g: Tensor, reduction: str, which: str) -> Evidence:
    """A call in which the operands ``which`` are of a subclass that changes nothing.

    ``result``, whether that ``is_one`` as well, and the ``gradients`` of operands that need one.
    """
    operands = [
        t.detach().as_subclass(Labelled).requires_grad_(t.requires_grad) if name in which else t
        for name, t in (("x", x), ("y", y))
    ]
    result = kit.loss(operands[0], operands[1], reduction)
    needing = [t for t in operands if t.requires_grad]
    found = torch.autograd.grad(_plain(result), needing, g, allow_unused=True)
    return {
        "result": _plain(result),
        "is_one": isinstance(result, Labelled),
        "gradients": [_plain(t) for t in found],
    }


@protocol
def contained(kit: Kit, *, x: Tensor, y: Tensor, g: Tensor, reduction: str, which: str) -> Evidence:
    """A call in which the operands ``which`` hold their elements in another tensor.

    ``result``: what it holds, and the ``gradients`` of whatever needs one; None for no gradient.
    """
    a, b = (Container.of(t) if name in which else t for name, t in (("x", x), ("y", y)))
    result = _elements(kit.loss(a, b, reduction))
    needing = [t for t in (x, y) if t.requires_grad]
    if not (isinstance(result, Tensor) and result.requires_grad):
        return {"result": _plain(result), "gradients": [None for _ in needing]}
    found = torch.autograd.grad(result, needing, g, allow_unused=True)
    return {"result": _plain(result), "gradients": [_plain(t) for t in found]}
