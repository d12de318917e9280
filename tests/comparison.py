"""What other ways of testing make of the same bank, in the same run, beside this suite.

``python -m tests comparison`` prints a Markdown table: for each method the share of mutants that it
rejects, the right implementations that it rejects too, and its time per target. Every trial is in
a process of its own, so that what one implementation leaves behind decides nothing for the next.
Each method tries only what the target claims; an exception, and the death of the process, reject.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import datetime
import functools
import importlib
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from conformance.cases.profiles import PROFILES
from conformance.clauses import BY_ID
from conformance.observer.protocols.kit import text_of
from conformance.running.run import run_shard
from conformance.running.shards import plan
from targets import Target
from tests.mutants import MUTANTS
from tests.mutants.witnesses import in_peace
from tests.right import RIGHT
from tests.sessions import session_on

SHAPES: tuple[tuple[int, ...], ...] = ((), (1,), (5,), (3, 4), (16, 33), (2, 3, 8, 8), (64, 128))
BROADCAST = ((4, 3), (3,))  # a typical pair
LIMIT = 1800  # seconds for one trial; one that takes longer is rejected


# The methods: each gives the reason of a rejection, or None.


def example(target: Target) -> str | None:
    """One 3×3 float32 example of the mean: value and gradient of input with torch.allclose."""
    if "mean" not in target.reductions or "float32" not in target.dtypes:
        return None
    x, y = torch.randn(3, 3), torch.randn(3, 3)
    own, builtin = (results(f, leaf(x), y, "mean") for f in (target.loss, F.mse_loss))
    for what, a, b in zip(("value", "gradient"), own, builtin, strict=True):
        if not torch.allclose(a, b):  # type: ignore[arg-type]  # None raises, and so rejects
            return f"{what} differs"
    return None


def unit_test(target: Target) -> str | None:
    """randn of several shapes, float32 and float16, all reductions, with assert_close."""
    for dtype in (d for d in ("float32", "float16") if d in target.dtypes):
        for shapes in shapes_for(target, SHAPES):
            x, y = (torch.randn(s, dtype=getattr(torch, dtype)) for s in shapes)
            for reduction in target.reductions:
                compare(target, x, y, reduction)
    return None


def gradcheck(target: Target) -> str | None:
    """gradcheck, and gradgradcheck where it is claimed: float64, a few shapes, all reductions."""
    if "float64" not in target.dtypes:
        return None
    needs = "target_gradient" in target.claims
    for shapes in shapes_for(target, ((), (5,), (3, 4), (2, 3, 2))):
        x, y = (torch.randn(s, dtype=torch.float64) for s in shapes)
        operands = (x.requires_grad_(), y.requires_grad_(needs))
        for reduction in target.reductions:
            loss = functools.partial(target.loss, reduction=reduction)
            torch.autograd.gradcheck(loss, operands)
            if "double_backward" in target.claims:
                torch.autograd.gradgradcheck(loss, operands)
    return None


def opinfo(target: Target) -> str | None:
    """PyTorch's OpInfo samples in all dtypes: value and gradients with assert_close."""
    entry = op_database().entry
    needs = "target_gradient" in target.claims
    for dtype in target.dtypes:
        for sample in entry.sample_inputs("cpu", getattr(torch, dtype), requires_grad=True):
            (y,) = sample.args
            reduction = sample.kwargs.get("reduction", "mean")
            if reduction in target.reductions:
                compare(target, sample.input, y, reduction, needs=needs)
    for error in entry.error_inputs("cpu") if entry.error_inputs_func else ():
        sample = error.sample_input
        try:
            target.loss(sample.input, *sample.args, **sample.kwargs)
        except Exception:
            continue
        return f"no exception: {error.error_regex}"
    return None


def suite(profile: str, target: Target) -> str | None:
    """The shards of the profile up to the first with a broken must clause."""
    session = session_on(target)
    for shard in plan(session.target, PROFILES[profile]):
        for finding in run_shard(session, shard, PROFILES[profile]).findings.values():
            if BY_ID[finding.clause].level == "must" and finding.status != "unavailable":
                return f"{finding.clause} {finding.dtype}: {finding.message}"
    return None


def shapes_for(
    target: Target, shapes: Sequence[tuple[int, ...]]
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    pairs = [(s, s) for s in shapes]
    return [*pairs, BROADCAST] if "broadcast" in target.claims else pairs


def compare(target: Target, x: Tensor, y: Tensor, reduction: str, *, needs: bool = False) -> None:
    """Raises AssertionError where value or gradients are not close to the builtin's."""
    own, builtin = (
        results(f, leaf(x), leaf(y) if needs else y.detach(), reduction)
        for f in (target.loss, F.mse_loss)
    )
    for what, a, b in zip(("value", "gradient", "target's gradient"), own, builtin, strict=False):
        try:
            torch.testing.assert_close(a, b)
        except AssertionError as error:
            at = f"{what}, {reduction}, {str(x.dtype).removeprefix('torch.')}{list(x.shape)}"
            raise AssertionError(f"{at}: {' '.join(str(error).split())}") from None


def results(
    loss: Callable[..., Tensor], x: Tensor, y: Tensor, reduction: str
) -> list[Tensor | None]:
    """The value, and the gradient of its sum for each operand that needs one."""
    value = loss(x, y, reduction=reduction)
    needing = [t for t in (x, y) if t.requires_grad]
    return [value.detach(), *torch.autograd.grad(value.sum(), needing, allow_unused=True)]


def leaf(x: Tensor) -> Tensor:
    return x.detach().clone().requires_grad_()


@dataclass(frozen=True)
class OpDatabase:
    """PyTorch's entry for the loss, how long it took to import; or what is missing."""

    entry: Any
    seconds: float
    missing: str | None = None


@functools.cache
def op_database() -> OpDatabase:
    start = time.perf_counter()
    try:
        # Imported as it is, it would forbid the mutants to leave torch.backends' flags changed.
        with mock.patch("torch.backends.disable_global_flags"):
            module = importlib.import_module("torch.testing._internal.common_methods_invocations")
        entry = next(op for op in module.op_db if op.name == "nn.functional.mse_loss")
        list(entry.sample_inputs("cpu", torch.float32))  # the first time imports more
    except (ImportError, StopIteration) as error:
        return OpDatabase(None, 0.0, text_of(error))
    return OpDatabase(entry, time.perf_counter() - start)


@dataclass(frozen=True)
class Method:
    """``missing``: imports what it needs, outside the times, and says what is not there."""

    name: str
    title: str
    reject: Callable[[Target], str | None]
    missing: Callable[[], str | None] = lambda: None


METHODS = (
    Method("example", "one example, `allclose` (the tutorial)", example),
    Method("unit-test", "unit test, `assert_close`", unit_test),
    Method("gradcheck", "`gradcheck`, `gradgradcheck`", gradcheck),
    Method("opinfo", "PyTorch's OpInfo samples", opinfo, lambda: op_database().missing),
    Method("quick", "this suite, profile quick", functools.partial(suite, "quick")),
    Method("default", "this suite, profile default", functools.partial(suite, "default")),
)
METHOD = {m.name: m for m in METHODS}
BROKEN = {m.target.name: m.target for m in MUTANTS}
SOUND = {t.name: t for t in RIGHT}
BANK = BROKEN | SOUND


# One trial.


@dataclass(frozen=True)
class Trial:
    """What one method made of one target. ``reason``: of the rejection."""

    method: str
    target: str
    reason: str | None
    seconds: float


def attempt(method: Method, target: Target) -> Trial:
    with in_peace():
        start = time.perf_counter()
        try:
            reason = method.reject(target)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit too: it rejects
            reason = text_of(error)
        return Trial(method.name, target.name, reason, time.perf_counter() - start)


def isolated(method: str, target: str) -> Trial:
    """The same in a process of its own, which may die or hang."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_send, args=(sender, method, target))
    start = time.perf_counter()
    child.start()
    sender.close()
    reason = f"no end within {LIMIT} s"
    try:
        if receiver.poll(LIMIT):
            trial: Trial = receiver.recv()
            return trial
    except EOFError:
        reason = "the process died"
    finally:
        child.join(5)
        child.kill()  # it may have left threads that do not end
        child.join()
    return Trial(method, target, reason, time.perf_counter() - start)


def _send(sender: Connection, method: str, target: str) -> None:
    sender.send(attempt(METHOD[method], BANK[target]))


# All trials, and the table.


def measure(methods: Sequence[Method], names: Sequence[str], jobs: int) -> list[Trial]:
    """All trials. OpInfo comes last: importing it changes the process that others are made from."""
    context = multiprocessing.get_context("fork")
    trials = []
    for method in sorted(methods, key=lambda m: m.name == "opinfo"):
        if method.missing():
            continue
        with concurrent.futures.ProcessPoolExecutor(jobs, context) as pool:
            futures = [pool.submit(isolated, method.name, name) for name in names]
            for future in concurrent.futures.as_completed(futures):
                trials.append(future.result())
        print(f"{method.name}: {len(names)} trials", file=sys.stderr, flush=True)
    return trials


def report(methods: Sequence[Method], trials: Sequence[Trial], jobs: int) -> str:
    """Markdown: a row for each method, what it says wrongly, and how it was measured."""
    lines = [
        "| method | mutants rejected | right ones rejected | total s | median s, mutant "
        "| median s, right one |",
        "|---|---|---|---|---|---|",
        *(_row(m, [t for t in trials if t.method == m.name]) for m in methods),
        "",
        "Each method tries only what a target claims; many mutants are wrong only in what some "
        "methods never try. The suite stops at the first shard with a broken clause. Right ones "
        "are right by this suite's reading of what is permitted.",
    ]
    if any(t.method == "opinfo" for t in trials):
        lines.append(f"Importing OpInfo took {op_database().seconds:.1f} s, not counted above.")
    wrong = sorted((t for t in trials if t.target in SOUND and t.reason), key=lambda t: t.target)
    if wrong:
        lines += ["", "Right implementations that were rejected:", ""]
        lines += [f"- {t.target}, {t.method}: {t.reason}" for t in wrong]
    for method in (m for m in methods if m.name in PROFILES):
        missed = [t.target for t in trials if t.method == method.name and _survives(t)]
        if missed:
            lines += ["", f"Mutants that profile {method.name} misses: {', '.join(sorted(missed))}"]
    lines += [
        "",
        f"{datetime.datetime.now(datetime.UTC).date()}, torch {torch.__version__}, "
        f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, {jobs} jobs, one thread each.",
    ]
    return "\n".join(lines) + "\n"


def _survives(trial: Trial) -> bool:
    return trial.target in BROKEN and trial.reason is None


def _row(method: Method, trials: Sequence[Trial]) -> str:
    if not trials:
        return f"| {method.title} | not run: {method.missing() or 'no targets'} | | | | |"
    mutants = [t for t in trials if t.target in BROKEN]
    right = [t for t in trials if t.target in SOUND]
    cells = (
        method.title,
        _share(mutants),
        _share(right),
        f"{sum(t.seconds for t in trials):.1f}",
        _median(mutants),
        _median(right),
    )
    return f"| {' | '.join(cells)} |"


def _share(trials: Sequence[Trial]) -> str:
    rejected = sum(t.reason is not None for t in trials)
    return f"{rejected} of {len(trials)} ({rejected / max(len(trials), 1):.0%})"


def _median(trials: Sequence[Trial]) -> str:
    return f"{statistics.median(t.seconds for t in trials):.3f}" if trials else ""


def sample(names: Sequence[str], limit: int | None) -> list[str]:
    """At most ``limit`` of them, evenly spread."""
    if limit is None or limit >= len(names):
        return list(names)
    return [names[i * len(names) // limit] for i in range(limit)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests comparison", description=__doc__)
    parser.add_argument("--limit", type=int, help="mutants, and right ones; all by default")
    parser.add_argument("--methods", nargs="+", choices=METHOD, default=list(METHOD))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--write", type=Path, help="a file for the table")
    options = parser.parse_args(arguments)
    if len(BANK) < len(MUTANTS) + len(RIGHT):
        parser.error("two implementations have one name: their trials would be taken for another's")
    methods = [m for m in METHODS if m.name in options.methods]
    names = [*sample([*BROKEN], options.limit), *sample([*SOUND], options.limit)]
    text = report(methods, measure(methods, names, options.jobs), options.jobs)
    print(text, end="")
    if options.write:
        options.write.write_text(text, encoding="utf-8")
    return 0
