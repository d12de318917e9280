"""What the scripts of failures have in common: it is copied into them (see scripts.py)."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from conformance.judging.checks import number
from reference.formats import Floats, Format

RETURNED = 64  # more than the exit status of a script: of a child whose calls all returned
# For each element, what is permitted: from … to …, or nan
Permitted = dict[tuple[int, ...], list[tuple[float, float]]]


def compare(what: str, got: torch.Tensor, permitted: Permitted) -> list[str]:
    """A line for each element that is not as permitted."""
    wrong = []
    for at, intervals in permitted.items():
        v = float(got.detach()[at])
        if not any(low <= v <= high or (v != v and low != low) for low, high in intervals):
            texts = [
                f"{number(low)} to {number(high)}" if low < high else number(low)
                for low, high in intervals
            ]
            wrong.append(f"{what}{list(at) or ''} is {number(v)}, permitted: {' or '.join(texts)}")
    return wrong


def unchanged(memory: torch.Tensor, before: torch.Tensor) -> bool:
    """Whether the bits are as they were."""
    return memory.detach().view(torch.uint8).equal(before.view(torch.uint8))


def laid_out(
    values: Any, length: int, strides: tuple[int, ...], offset: int, gap: float
) -> torch.Tensor:
    """A line of ``length`` elements with ``values`` laid into it; what lies between is ``gap``."""
    line = np.full(length, gap)
    steps = tuple(8 * s for s in strides)
    np.lib.stride_tricks.as_strided(line[offset:], values.shape, steps)[...] = values
    return torch.from_numpy(line)


def round_nearest(v: Floats, fmt: Format) -> Floats:
    """``v`` rounded to ``fmt`` to nearest, ties to even; beyond its largest number infinite."""
    with np.errstate(all="ignore"):
        spacing = np.maximum(np.frexp(v)[1], fmt.emin + 1) - fmt.precision
        near = np.ldexp(np.rint(np.ldexp(v, -spacing)), spacing)
        beyond = np.abs(near) >= np.ldexp(1.0, fmt.emax + 1)
    rounded: Floats = np.where(beyond, np.copysign(np.inf, near), near)
    return rounded


def find(name: str) -> SimpleNamespace:
    """The loss, and a factory of modules, at ``module:attribute`` or ``file.py:attribute``."""
    place, _, attribute = (name, "", "") if name.endswith(".py") else name.rpartition(":")
    if place.endswith(".py"):
        sys.path.insert(0, os.path.dirname(os.path.abspath(place)))
        origin: Any = importlib.util.spec_from_file_location("loss_in_a_file", place)
        module = sys.modules[origin.name] = importlib.util.module_from_spec(origin)
        origin.loader.exec_module(module)
    else:
        sys.path.insert(0, os.getcwd())
        module = importlib.import_module(place)
    found: Any = module
    for part in attribute.split(".") if attribute else ():
        found = getattr(found, part)
    if not attribute:  # the one Target of a file
        (found,) = {v for v in vars(module).values() if type(v).__name__ == "Target"}
    if type(found).__name__ == "Target":
        if found.prepare:
            found.prepare()
        return SimpleNamespace(loss=with_reduction(found.loss), module=found.module)
    chosen = has_reduction(found)
    if isinstance(found, type) and issubclass(found, torch.nn.Module):
        made = found if chosen else lambda reduction, **given: found(**given)
        return SimpleNamespace(
            loss=lambda x, y, reduction="mean", **given: made(reduction=reduction, **given)(x, y),
            module=made,
        )
    return SimpleNamespace(
        loss=with_reduction(found),
        module=(lambda reduction: found) if isinstance(found, torch.nn.Module) else None,
    )


def with_reduction(loss: Any) -> Any:
    """The loss; where it takes no ``reduction``, one that leaves it out."""
    return (
        loss if has_reduction(loss) else lambda x, y, reduction="mean", **given: loss(x, y, **given)
    )


def has_reduction(function: Any) -> bool:
    """Whether it can be called with ``reduction=``."""
    if hasattr(getattr(function, "__self__", None), "backward"):
        return False  # the apply of a torch.autograd.Function
    if getattr(function, "__init__", None) is torch.nn.Module.__init__:
        return False
    if hasattr(function, "schema"):  # TorchScript
        return any(a.name == "reduction" for a in function.schema.arguments)
    try:
        own = inspect.signature(function, follow_wrapped=False).parameters.values()
        inner = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True
    named = any(p.name == "reduction" for p in (*own, *inner))
    return named or any(p.kind is p.VAR_KEYWORD for p in inner)


def run(
    deviations: Callable[[SimpleNamespace, int, int], Iterable[str]],
    loss: str,
    attempts: int,
    histories: int = 1,
    unable: tuple[type[Exception], ...] = (),
    seconds: float = 0.0,
    apart: bool = False,
) -> int:
    """The exit status; says what deviates. ``attempts``: some losses are right now and then; there
    are as many more as fit into these ``seconds``.

    ``histories``: 2 where other calls may come first. Some losses are wrong only without such
    calls and some only after them, so each history has a process of its own; ``apart``: each and
    every one, since a call may end its process.
    """
    apart = apart and hasattr(os, "fork")
    others = [*range(1, histories), *([0] if apart else [])] if hasattr(os, "fork") else []
    for history in others:
        process = os.fork()
        if not process:
            status = one_history(deviations, loss, attempts, history, unable, seconds)
            sys.stdout.flush()
            os._exit(RETURNED + status)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if not RETURNED <= code <= RETURNED + 2:
            how = f"signal {-code}" if code < 0 else f"exit status {code}"
            print(f"the call ended its process: {how}")
            return 1
        if code > RETURNED:
            return code - RETURNED
    status = 0 if apart else one_history(deviations, loss, attempts, 0, unable, seconds)
    if not status:
        print("as permitted")
    return status


def one_history(
    deviations: Callable[[SimpleNamespace, int, int], Iterable[str]],
    loss: str,
    attempts: int,
    history: int,
    unable: tuple[type[Exception], ...],
    seconds: float,
) -> int:
    """The exit status with, or without, other calls before each attempt."""
    name = sys.argv[1] if len(sys.argv) > 1 else loss
    try:
        target = find(name)
    except Exception as error:
        print(f"cannot import the loss {name!r}: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    wrong: list[str] = []
    attempt, until = 0, time.monotonic() + seconds
    try:
        while not wrong and (attempt < attempts or time.monotonic() < until):
            earlier = 1 + attempt % 2 if history else 0
            wrong = list(deviations(target, attempt, earlier))
            attempt += 1
    except unable as reason:
        print(f"cannot run here: {reason}", file=sys.stderr)
        return 2
    except Exception as error:
        wrong = [f"raised {type(error).__name__}: {error}"]
    if wrong:
        print("\n".join(wrong))
    return 1 if wrong else 0
