"""Experiments on targets that are an ``nn.Module``: what every module can do."""

from __future__ import annotations

import copy
import io
import itertools
import pickle
import sys
from typing import Any

import torch
from torch import nn

from conformance.observer.protocols.bench import (
    Bench,
    Messages,
    Shape,
    brief,
    close,
    deviation_of_loss,
    experiment,
    gradients,
)


def _made(bench: Bench, reduction: str) -> nn.Module:
    assert bench.target.module is not None, "a target that claims module has one"
    made: nn.Module = bench.target.module(reduction=reduction)
    return made


Shapes = tuple[tuple[Shape, Shape], ...]
PLAIN: Shapes = (((5,), (5,)),)


def _wrong(bench: Bench, module: Any, reduction: str, shapes: Shapes = PLAIN) -> str | None:
    """What ``module`` gives, where that is not permitted, or a gradient of it."""
    for x_shape, y_shape in shapes:
        x, y = bench.tensor(x_shape, 1).requires_grad_(), bench.tensor(y_shape, 2)
        y.requires_grad_(bench.claims("target_gradient"))
        result = module(x, y)
        for message in deviation_of_loss(bench, "a result that", result, x, y, reduction):
            return message
        if not result.requires_grad:
            return "a result that cannot be trained through"
        wanted = gradients(bench.loss(x, y, reduction), x, y)
        for got, other in zip(gradients(result, x, y), wanted, strict=True):
            if not close(got, other):
                return f"the gradient {brief(got)}"
    return None


def _each(bench: Bench, what: str, change: Any, shapes: Shapes = PLAIN) -> Messages:
    """A message for each reduction whose module, once changed, is no longer right."""
    for reduction in bench.reductions:
        wrong = _wrong(bench, change(_made(bench, reduction)), reduction, shapes)
        if wrong:
            yield f"{what} gives {wrong} ({reduction})"


@experiment("module.value")
def _value(bench: Bench) -> Messages:
    for reduction in bench.reductions:
        if not isinstance(_made(bench, reduction), nn.Module):
            yield f"what module(reduction={reduction!r}) makes is no nn.Module"
    rows: Shapes = (((3, 4), (4,)), ((3, 1), (3,))) if bench.claims("broadcast") else ()
    yield from _each(bench, "the module", lambda m: m, (*PLAIN, ((3, 4), (3, 4)), *rows))
    yield from _made_by_default(bench)
    together = {reduction: _made(bench, reduction) for reduction in bench.reductions}
    for reduction, module in together.items():
        wrong = _wrong(bench, module, reduction)
        if wrong:
            yield f"beside modules with other reductions the module gives {wrong} ({reduction})"
    for reduction in bench.reductions:
        x, y = bench.tensor((5,), 1), bench.tensor((5,), 2)
        if _made(bench, reduction)(x, y).requires_grad:
            yield f"the module's result needs a gradient that no operand needs ({reduction})"
        if bench.claims("mixed_dtype") and bench.dtype in ("float32", "float64"):
            whole = torch.arange(1001, 6001, 1000, device=bench.device)
            got = _made(bench, reduction)(x, whole)
            text = "with a target of int64 the module's result"
            yield from deviation_of_loss(bench, text, got, x, whole, reduction)


def _made_by_default(bench: Bench) -> Messages:
    """It may require its reduction to be named, but must not have another default."""
    make = bench.target.module
    if make is None or "mean" not in bench.reductions:
        return
    try:
        module = make()
    except TypeError as error:
        if "reduction" not in str(error):
            raise
        return
    x, y = bench.tensor((5,), 1), bench.tensor((5,), 2)
    text = "of a module made without a reduction the result"
    yield from deviation_of_loss(bench, text, module(x, y), x, y, "mean")


@experiment("module.mode")
def _mode(bench: Bench) -> Messages:
    yield from _each(bench, "after eval() the module", lambda m: m.eval())
    yield from _each(bench, "after train() the module", lambda m: m.train())


@experiment("module.pickle")
def _pickle(bench: Bench) -> Messages:
    """With pickle and torch.save; only the state of a class that no pickle finds by its name."""
    made = _made(bench, bench.reductions[0])
    if _is_importable(type(made)) or _pickles(made):
        yield from _each(bench, "the unpickled module", lambda m: pickle.loads(pickle.dumps(m)))
        yield from _each(bench, "the saved and loaded module", _saved)
    else:
        yield from _each(bench, "the module with unpickled state", _with_unpickled_state)


def _is_importable(kind: type) -> bool:
    found: Any = sys.modules.get(kind.__module__)
    for part in kind.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is kind


def _pickles(module: nn.Module) -> bool:
    """Whether it says how, as a GraphModule does: no class of its is found by its name."""
    try:
        pickle.dumps(module)
    except Exception:
        return False
    return True


def _with_unpickled_state(module: nn.Module) -> Any:
    made = type(module).__new__(type(module))
    made.__dict__.update(pickle.loads(pickle.dumps(module.__dict__)))
    return made


def _saved(module: nn.Module) -> Any:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@experiment("module.deepcopy")
def _deepcopy(bench: Bench) -> Messages:
    """Before a call and after one; the copy is another object."""
    for reduction in bench.reductions:
        module = _made(bench, reduction)
        if copy.deepcopy(module) is module:
            yield f"the deep copy is the module itself ({reduction})"
        _wrong(bench, module, reduction)
        wrong = _wrong(bench, copy.deepcopy(module), reduction)
        if wrong:
            yield f"a deep copy of the module gives {wrong} ({reduction})"


@experiment("module.state_dict")
def _state_dict(bench: Bench) -> Messages:
    """It round-trips, strictly, into another module of the same reduction; calls add nothing."""
    for reduction in bench.reductions:
        module, other = _made(bench, reduction), _made(bench, reduction)
        before = set(module.state_dict())
        _wrong(bench, module, reduction)
        if set(module.state_dict()) != before:
            yield f"a call changed the keys of state_dict() ({reduction})"
        other.load_state_dict(module.state_dict(), strict=True)
        wrong = _wrong(bench, other, reduction)
        if wrong:
            yield f"after load_state_dict the module gives {wrong} ({reduction})"


@experiment("module.to")
def _to(bench: Bench) -> Messages:
    """Moved to any dtype and back, it computes in the dtype of its operands."""
    for dtype in (torch.float64, torch.float16, torch.float32):
        what = f"the module after .to({str(dtype).removeprefix('torch.')})"
        yield from _each(bench, what, lambda m, dtype=dtype: m.to(dtype))
    yield from _each(bench, "the module after .to(device)", lambda m: m.to(bench.device))


@experiment("module.repr")
def _repr(bench: Bench) -> Messages:
    for reduction in bench.reductions:
        module = _made(bench, reduction)
        if type(module).__name__ not in repr(module):
            yield f"its repr is {repr(module)[:60]!r}"


@experiment("module.reduction")
def _reduction(bench: Bench) -> Messages:
    for reduction in bench.reductions:
        found = getattr(_made(bench, reduction), "reduction", None)
        if found != reduction:
            yield f"made with reduction={reduction!r}, its attribute reduction is {found!r}"
            return
    x, y = bench.tensor((5,), 1), bench.tensor((5,), 2)
    for first, reduction in itertools.permutations(bench.reductions, 2):
        module: Any = _made(bench, first)
        module.reduction = reduction
        text = f"made with reduction={first!r}, and with the attribute set to {reduction!r},"
        yield from deviation_of_loss(bench, f"{text} its result", module(x, y), x, y, reduction)
