"""What a loss is made of: the operators that it runs, and on a GPU the kernels.

The last of all: within a dispatch mode torch skips compiled code, and in this process for good.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.autograd import profiler, profiler_legacy

from conformance.observer import watching
from conformance.observer.dispatch import Mode
from conformance.observer.protocols.kit import Evidence, Kit, Outside, protocol

OPERATOR = re.compile(r"\w+::\w+")
MOST = 1000  # names
LONGEST = 200  # characters of a name: those of kernels have their templates in them


class _Names(Mode):
    """The operators that reach a kernel, whatever else they are part of; nothing runs compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func._schema.name)
        return func(*args, **(kwargs or {}))


@protocol
def ran(kit: Kit, x: torch.Tensor, y: torch.Tensor, reductions: list[str]) -> Evidence:
    """``operators``, ``kernels``: their names. ``returned``: how many calls did.

    The first call of each reduction is a user's; then in a mode in which what is compiled runs as
    it is written, and nothing is compiled for the sake of a look.
    """
    operators: set[str] = set()
    kernels: set[str] = set()
    returned = 0
    forms = [*_operands(x, y)]
    ways = [(nullcontext, forms[0]), *((_Names, form) for form in forms)]
    for (way, (a, b)), reduction in itertools.product(ways, reductions):
        with contextlib.suppress(Exception, Outside):  # this one it does not take
            with _recorded(kit.device, way, operators, kernels):
                result = kit.loss(a, b, reduction)
            returned += 1
            needing = [t for t in (a, b) if t.requires_grad]
            ones = torch.ones_like(result)
            with _recorded(kit.device, way, operators, kernels):
                torch.autograd.grad(result, needing, ones, allow_unused=True)
    names = {"operators": _listed(operators), "kernels": _listed(kernels)}
    return {**names, "returned": returned}


@protocol
def tried(kit: Kit) -> Evidence:
    """What the loss has tried in this process that it may not do."""
    return {"tried": watching.tried()}


def _operands(x: torch.Tensor, y: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """As they are, transposed, one of them a row, and without a gradient."""
    forms: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
        lambda t: t,
        lambda t: t.mT if t.dim() > 1 else t,
    )
    for form in forms:
        yield _leaf(form(x)), _leaf(form(y))
    if x.dim() > 1:
        yield _leaf(x), _leaf(y[:1])
    yield x.detach().clone(), y.detach().clone()


def _leaf(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone(memory_format=torch.preserve_format).requires_grad_()


@contextlib.contextmanager
def _recorded(
    device: str,
    way: Callable[[], AbstractContextManager[Any]],
    operators: set[str],
    kernels: set[str],
) -> Iterator[None]:
    """What runs inside, whether or not it raises."""
    on_gpu = device != "cpu"
    profiles: Any = profiler.profile if on_gpu else profiler_legacy.profile
    made = profiles(use_device="cuda") if on_gpu else profiles()
    mode = way()
    try:
        with made, mode:
            yield
    finally:
        events = list(made.function_events or ())
        operators |= {event.name for event in events if _counts(event)}
        operators |= mode.names if isinstance(mode, _Names) else set()
        if on_gpu:
            kernels |= {e.name for e in events if e.device_type.name == "CUDA"}


def _counts(event: Any) -> bool:
    """An operator that is no step of one of torch's own."""
    if not OPERATOR.fullmatch(event.name):
        return False
    around = event.cpu_parent
    while around is not None:
        if around.name.startswith("aten::"):
            return False
        around = around.cpu_parent
    return True


def _listed(names: Iterable[str]) -> list[str]:
    return sorted({name[:LONGEST] for name in names})[:MOST]
