"""Protocols on targets that are an ``nn.Module``: what every module can do."""

from __future__ import annotations

import copy
import io
import pickle
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from conformance.observer.protocols.kit import (
    Evidence,
    Kit,
    as_written,
    fresh,
    gradients,
    protocol,
    text_of,
)


@protocol
def called(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """The ``result`` of a module, and whether it ``requires_grad``."""
    result = kit.module(reduction)(x, y)
    return {"result": result, "requires_grad": bool(result.requires_grad)}


@protocol
def unnamed(kit: Kit, *, x: Tensor, y: Tensor) -> Evidence:
    """The ``result`` of a module made without a reduction; ``refused``: that it takes one."""
    try:
        module = kit.target.module()
    except TypeError as error:
        if "reduction" not in str(error):
            raise
        return {"refused": text_of(error)}
    return {"result": module(x, y)}


@protocol
def changed(kit: Kit, *, change: str, reduction: str, **operands: Tensor) -> Evidence:
    """Calls of one module that went through one of :data:`CHANGES`, by number.

    The operands of the first are ``x0`` and ``y0``, of the second ``x1`` and ``y1``, and so on.
    """
    module = CHANGES[change](kit.module(reduction), kit.device)
    return {
        str(k): _used(kit, module, operands[f"x{k}"], operands[f"y{k}"], reduction)
        for k in range(len(operands) // 2)
    }


def _used(kit: Kit, module: Any, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """A call: its ``result``, and whether that ``requires_grad``, as ``x`` does.

    Where it does, ``gradients`` by operand; and those of the target's own loss, as ``plain``.
    """
    result = module(x, y)
    if not (isinstance(result, Tensor) and result.requires_grad):
        return {"result": result, "requires_grad": False}
    seen = {"result": result.detach().clone(), "requires_grad": True}
    names = [name for name, t in (("x", x), ("y", y)) if t.requires_grad]
    plain = gradients(kit.loss(x, y, reduction), x, y)
    own = gradients(result, x, y)
    named = {k: dict(zip(names, v, strict=True)) for k, v in (("plain", plain), ("gradients", own))}
    return seen | named


def _with_unpickled_state(module: Any) -> Any:
    kind: Any = type(module)
    made = kind.__new__(kind)
    made.__dict__.update(pickle.loads(pickle.dumps(module.__dict__)))
    return made


def _saved(module: Any) -> Any:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


# What becomes of a module, on a device.
CHANGES: dict[str, Callable[[Any, str], Any]] = {
    "none": lambda m, device: m,
    "eval": lambda m, device: m.eval(),
    "train": lambda m, device: m.train(),
    "pickled": lambda m, device: pickle.loads(pickle.dumps(m)),
    "saved": lambda m, device: _saved(m),
    "its state pickled": lambda m, device: _with_unpickled_state(m),
    "to float64": lambda m, device: m.to(torch.float64),
    "to float16": lambda m, device: m.to(torch.float16),
    "to float32": lambda m, device: m.to(torch.float32),
    "to its device": lambda m, device: m.to(device),
}


@protocol
def together(kit: Kit, *, x: Tensor, y: Tensor, reductions: list[str]) -> Evidence:
    """By each reduction, a call of its module: of several that are all made first."""
    modules = {reduction: kit.module(reduction) for reduction in reductions}
    return {
        reduction: _used(kit, module, fresh(x), fresh(y), reduction)
        for reduction, module in modules.items()
    }


@protocol
def pickles(kit: Kit, *, reduction: str) -> Evidence:
    """Whether a module is to survive pickle as a ``whole``.

    Its class is found by its name, or it says how, as a GraphModule does: no class of its is found.
    """
    module = kit.module(reduction)
    return {"whole": _is_importable(type(module)) or _pickles(module)}


def _is_importable(kind: type) -> bool:
    found: Any = sys.modules.get(kind.__module__)
    for part in kind.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is kind


def _pickles(module: Any) -> bool:
    try:
        pickle.dumps(module)
    except Exception:
        return False
    return True


@protocol
def copied(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """Whether a deep copy is the ``same`` object; and a call of a ``copy`` made after one."""
    module = kit.module(reduction)
    same = copy.deepcopy(module) is module
    _used(kit, module, fresh(x), fresh(y), reduction)
    return {"same": same, "copy": _used(kit, copy.deepcopy(module), x, y, reduction)}


@protocol
def kept(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """The names of what a module keeps, in ``state_dict()`` or as a parameter, ``before`` and
    ``after`` a call."""
    module = kit.module(reduction)
    before = _names_kept(module)
    _used(kit, module, x, y, reduction)
    return {"before": before, "after": _names_kept(module)}


def _names_kept(module: Any) -> list[str]:
    return sorted({*module.state_dict(), *(name for name, _ in module.named_parameters())})


@protocol
def hooked(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """The ``result`` and ``gradient`` of input where hooks double both operands before the call,
    halve the result after it, and double the gradients by the operands."""
    module = kit.module(reduction)
    hooks = (
        module.register_forward_pre_hook(lambda m, args: tuple(2 * t for t in args)),
        module.register_forward_hook(lambda m, args, result: result / 2),
        module.register_full_backward_hook(
            lambda m, by, g: tuple(None if t is None else 2 * t for t in by)
        ),
    )
    try:
        result = module(x, y)
        return {"result": result, "gradient": gradients(result, x)[0]}
    finally:  # a target may hand out one module time and again
        for hook in hooks:
            hook.remove()


@protocol
def loaded(kit: Kit, *, x: Tensor, y: Tensor, reduction: str) -> Evidence:
    """A call of a module with the state of another, which was called."""
    module, other = kit.module(reduction), kit.module(reduction)
    _used(kit, module, fresh(x), fresh(y), reduction)
    other.load_state_dict(module.state_dict(), strict=True)
    return _used(kit, other, x, y, reduction)


@protocol
def described(kit: Kit, *, reduction: str) -> Evidence:
    """The name of its ``class``, and its ``repr``."""
    module = kit.module(reduction)
    return {"class": type(module).__name__, "repr": repr(module)}


@protocol
def attribute(kit: Kit, *, reduction: str) -> Evidence:
    """Its ``reduction``, or None."""
    return {"reduction": getattr(kit.module(reduction), "reduction", None)}


@protocol
def reset(kit: Kit, *, x: Tensor, y: Tensor, first: str, reduction: str) -> Evidence:
    """The ``result`` of one that was made with ``first``, and whose attribute was set."""
    module = kit.module(first)
    module.reduction = as_written(reduction)
    return {"result": module(x, y)}
