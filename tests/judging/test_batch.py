"""Judging many observations at once says of each what judging it alone says."""

from __future__ import annotations

import copy
import dataclasses
import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from conformance.cases.case import Case
from conformance.cases.profiles import PROFILES
from conformance.judging.batch import judge_observations
from conformance.judging.checks import ORDERS, judge_observation
from conformance.judging.looks import Look, permitted_sets
from conformance.judging.oracle import permitted_gradient, permitted_value
from conformance.judging.seen import Observation, Seen
from conformance.running.observers import InProcess
from conformance.running.shards import fixed_cases, plan
from targets import Target
from targets.builtin import BUILTIN
from tests.mutants import MUTANTS
from tests.sessions import claimed

Pair = tuple[Case, Observation]
QUICK = PROFILES["quick"]
FIXED = ("examples", "pairs", "scale")


def observed(target: Target, cases: Sequence[Case]) -> list[Pair]:
    return list(zip(cases, InProcess(target, "cpu").observe(cases), strict=True))


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    shards = [shard for shard in plan(claimed(BUILTIN), QUICK) if shard.phase in FIXED]
    return [case for shard in shards for case in fixed_cases(claimed(BUILTIN), QUICK, 3, shard)]


@pytest.fixture(scope="module")
def pairs(cases: list[Case]) -> list[Pair]:
    return observed(BUILTIN, cases)


def assert_judged_alike(pairs: Sequence[Pair]) -> None:
    alone = [judge_observation(case, seen) for case, seen in pairs]
    together = judge_observations(pairs)
    for (case, _), one, other in zip(pairs, alone, together, strict=True):
        assert one == other, case


def test_the_builtin_is_judged_alike_in_batches_of_any_size(pairs: list[Pair]) -> None:
    shuffled = random.Random(1).sample(pairs, len(pairs))
    for batch in (shuffled, shuffled[:240], shuffled[240:247], shuffled[-1:], []):
        assert_judged_alike(batch)


@pytest.mark.parametrize("orders", ORDERS)
def test_permitted_sets_are_the_very_same_numbers(cases: list[Case], orders: int | None) -> None:
    some = cases[:: 3 if orders else 11]
    looks = [Look(case, case.dtype, orders) for case in some]
    for look, parts in zip(looks, permitted_sets(looks), strict=True):
        for part, permitted in zip(look.parts, parts, strict=True):
            alone = (
                permitted_value(look.case, look.dtype)
                if part == "value"
                else permitted_gradient(look.case, look.dtype, part, orders)
            )
            assert np.array_equal(permitted.lower, alone.lower.reshape(-1)), look
            assert np.array_equal(permitted.upper, alone.upper.reshape(-1)), look
            flags = [0 if s.flags is None else s.flags.reshape(-1) for s in (permitted, alone)]
            assert np.array_equal(*np.broadcast_arrays(*flags)), look


@pytest.mark.parametrize("target", [m.target for m in MUTANTS[::29]], ids=lambda t: t.name)
def test_mutants_are_judged_alike(target: Target) -> None:
    own = claimed(target)
    shards = [shard for shard in plan(own, QUICK) if shard.phase in ("examples", "pairs")]
    for shard in (shards[0], shards[-1]):
        assert_judged_alike(observed(target, fixed_cases(own, QUICK, 0, shard)[::2]))


# -- corruptions: each changes one thing of an observation ---------------------------------------


def _tensors(seen: Observation) -> list[str]:
    return ["value", *(name for name, g in seen.gradients.items() if g is not None)]


def _replace(seen: Observation, name: str, change: Callable[[Seen], Seen]) -> None:
    if name == "value":
        assert seen.value is not None
        seen.value = change(seen.value)
    else:
        gradient = seen.gradients[name]
        assert gradient is not None
        seen.gradients[name] = change(gradient)


def _number(seen: Observation, dice: random.Random) -> None:
    """Another number in one place: often a near one."""

    def change(tensor: Seen) -> Seen:
        values = np.array(tensor.values)
        if values.size:
            place = dice.randrange(values.size)
            old = values.flat[place]
            near = [old * (1 + dice.choice((-1, 1)) * 2.0**-k) for k in (53, 24, 12, 9, 4)]
            odd = [np.nan, np.inf, -np.inf, 0.0, -old, old + 5e-324]
            values.flat[place] = dice.choice([*near, *odd])
        return dataclasses.replace(tensor, values=values)

    _replace(seen, dice.choice(_tensors(seen)), change)


def _shape(seen: Observation, dice: random.Random) -> None:
    name = dice.choice(_tensors(seen))
    _replace(seen, name, lambda t: dataclasses.replace(t, values=t.values[..., None]))


def _dtype(seen: Observation, dice: random.Random) -> None:
    dtype = dice.choice(("float64", "float32", "float16", "int64"))
    name = dice.choice(_tensors(seen))
    _replace(seen, name, lambda t: dataclasses.replace(t, dtype=dtype))


def _missing(seen: Observation, dice: random.Random) -> None:
    if seen.gradients:
        name = dice.choice(sorted(seen.gradients))
        if dice.random() < 0.5:
            seen.gradients[name] = None
        else:
            del seen.gradients[name]


def _said(seen: Observation, dice: random.Random) -> None:
    """What is not a number."""
    how: list[Callable[[], object]] = [
        lambda: seen.changed.append("target"),
        lambda: seen.attributes.append("input"),
        lambda: seen.settings.append("the default dtype"),
        lambda: setattr(seen, "alias", "input"),
        lambda: setattr(seen, "requires_grad", not seen.requires_grad),
        lambda: setattr(seen, "raised_backward", "RuntimeError: no"),
        lambda: (setattr(seen, "value", None), setattr(seen, "raised", "ValueError: no")),
        lambda: (setattr(seen, "value", None), setattr(seen, "rubbish", "float")),
        lambda: setattr(seen, "value", None),
    ]
    dice.choice(how)()


@pytest.mark.parametrize("seed", range(3))
def test_corrupted_observations_are_judged_alike(pairs: list[Pair], seed: int) -> None:
    dice = random.Random(seed)
    corrupted = []
    for case, seen in dice.sample(pairs, 300):
        seen = copy.deepcopy(seen)
        if seen.value is not None:
            dice.choice((_number, _number, _number, _shape, _dtype, _missing, _said))(seen, dice)
        corrupted.append((case, seen))
    assert_judged_alike(corrupted)
    assert any(judgement.deviations for judgement in judge_observations(corrupted))
