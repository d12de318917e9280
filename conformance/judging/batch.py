"""Many observations judged at once, to what :func:`judge_observation` says of each.

An observation in which nothing deviates but numbers might is compared with the permitted sets of
all others. Where its numbers are inside, this tells how much of the permitted error they used; all
the rest is left to :func:`judge_observation`, which explains it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from conformance.cases.case import Case
from conformance.judging.cache import LARGEST, Memory
from conformance.judging.checks import (
    ORDERS,
    Deviation,
    Judgement,
    deviations,
    judge_observation,
)
from conformance.judging.looks import Look, Parts, joined, permitted_sets, runs
from conformance.judging.seen import Observation, Seen
from reference.enclosure import PermittedSet
from reference.formats import Floats


@dataclass
class _Numbers:
    """What is left to judge of an observation: the numbers of each aspect, ``size`` in all.

    ``shares``: of the permitted error, of the aspects that are inside.
    """

    case: Case
    dtype: str
    size: int = 0
    values: dict[str, Floats] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)

    def note(
        self, aspect: str, what: str, seen: Seen, sets: Iterable[PermittedSet]
    ) -> list[Deviation]:
        self.values[aspect] = seen.values.reshape(-1)
        self.size += seen.values.size
        return []


def judge_observations(
    pairs: Sequence[tuple[Case, Observation]], memory: Memory | None = None
) -> list[Judgement]:
    """Every clause on each observation. ``memory``: where permitted sets are kept, if anywhere."""
    numbers = [_numbers(case, seen) for case, seen in pairs]
    _compare_all([n for n in numbers if n is not None], memory)
    return [
        judge_observation(case, seen)
        if n is None or len(n.shares) < len(n.values)
        else Judgement((), n.shares, True)
        for n, (case, seen) in zip(numbers, pairs, strict=True)
    ]


def _numbers(case: Case, seen: Observation) -> _Numbers | None:
    """The numbers of ``seen``, where nothing else deviates."""
    if seen.value is None:
        return None
    numbers = _Numbers(case, seen.value.dtype)
    wrong = deviations(case, seen, numbers.note)
    return None if wrong or numbers.size > LARGEST else numbers


def _compare_all(numbers: list[_Numbers], memory: Memory | None) -> None:
    """Note the shares of all aspects that are inside, in the first set that holds them."""
    left = numbers
    for orders in ORDERS:
        looks = [Look(n.case, n.dtype, orders) for n in left]
        sets = permitted_sets(looks) if memory is None else _remembered(looks, memory)
        compared = list(zip(left, looks, sets, strict=True))
        for run in runs(n.size for n in left):
            _compare(compared[run])
        left = [n for n in left if "value" in n.shares and len(n.shares) < len(n.values)]


def _remembered(looks: list[Look], memory: Memory) -> list[Parts]:
    """The sets of ``looks``; what ``memory`` did not have, it has now."""
    known = memory.get_many(looks)
    missing = [look for look, found in zip(looks, known, strict=True) if found is None]
    made = permitted_sets(missing)
    memory.put_many(missing, [joined(parts) for parts in made])
    rest = iter(made)
    return [next(rest) if found is None else [found] for found in known]


_Compared = tuple[_Numbers, Look, Parts]


def _compare(compared: list[_Compared]) -> None:
    """Note the shares of those parts that are inside their sets."""
    parts = [
        (n, part if part == "value" else f"gradient.{part}")
        for n, look, _ in compared
        for part in look.parts
    ]
    values = [n.values[aspect] for n, aspect in parts]
    observed, permitted = (
        np.concatenate(values),
        joined([s for _, _, parts in compared for s in parts]),
    )
    sizes = np.array([v.size for v in values])
    full = np.flatnonzero(sizes)
    starts = (np.cumsum(sizes) - sizes)[full]
    inside = np.ones(len(parts), bool)
    share = np.zeros(len(parts))
    if full.size:
        inside[full] = np.logical_and.reduceat(permitted.contains(observed), starts)
        share[full] = np.maximum.reduceat(permitted.share(observed), starts)
    for (n, aspect), held, worst in zip(parts, inside.tolist(), share.tolist(), strict=True):
        if held:
            n.shares.setdefault(aspect, worst)
