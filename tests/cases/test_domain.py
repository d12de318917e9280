"""Shapes and layouts inside of a domain, and what a target may say of it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, fields

import pytest

from conformance.cases.case import Case
from conformance.cases.claimed import Claimed
from conformance.cases.domain import FULL, Domain, Result, dense, fitted, fitted_pair, holds, padded
from conformance.cases.layouts import LAYOUTS, place
from conformance.cases.plans import examples, pairs, plain
from targets import DROP_IN, DomainError, Target, TargetError
from targets import Domain as Stated
from targets import Result as StatedResult
from tests.sessions import claimed as seen_of

DOMAINS = {
    "matrices": Domain(ranks=(2, 2)),
    "images": Domain(ranks=(3, 3)),
    "lines": Domain(ranks=(1, 1)),
    "one column": Domain(ranks=(2, 2), shape=(None, 1)),
    "whole warps": Domain(ranks=(2, 2), columns=(32, 1024)),
    "vectors": Domain(elements=(4, 0)),
    "few": Domain(elements=(1, 1000)),
    "contiguous": Domain(layout="contiguous"),
    "dense rows": Domain(ranks=(1, 64), layout="dense_rows"),
    "no backward": Domain(backward=False),
}
SHAPES = ((), (1,), (5,), (24,), (4097,), (3, 4), (65537, 2), (2, 65537), (2, 3, 4), (1,) * 9)


def claimed(domain: Domain) -> Claimed:
    dtypes = ("float64", "float32", "float16", "bfloat16")
    return Claimed("of a part", DROP_IN, ("none", "sum", "mean"), dtypes, domain=domain)


@pytest.mark.parametrize("name", DOMAINS)
def test_every_case_lies_inside_and_there_are_many(name: str) -> None:
    domain = DOMAINS[name]
    cases = [*examples(claimed(domain)), *pairs(claimed(domain), 7)]
    assert len(cases) > 600
    for case in cases:
        for operand in (case.input, case.target):
            assert holds(domain, operand.shape)
            strides = place(operand.layout, operand.shape).strides
            assert dense(domain, operand.shape, strides)
        assert domain.backward or not any(case.needs)


@pytest.mark.parametrize("name", DOMAINS)
def test_a_shape_keeps_about_its_size(name: str) -> None:
    domain, limit = DOMAINS[name], DOMAINS[name].elements[1] or math.inf
    for shape in SHAPES:
        found = fitted(domain, shape)
        if found is None:
            continue
        size = math.prod(shape)
        assert min(size, limit // 2, 512) <= math.prod(found) or domain.shape
        assert math.prod(found) <= 32 * size + 128


def test_long_lines_stay_long_where_they_can() -> None:
    assert fitted(DOMAINS["matrices"], (4097,)) == (4097, 1)
    assert fitted(DOMAINS["matrices"], (4096,)) == (2, 2048)
    assert fitted(DOMAINS["whole warps"], (65537, 2)) == (4097, 32)
    assert fitted(DOMAINS["whole warps"], (2, 65537)) == (130, 1024)
    assert fitted(DOMAINS["lines"], (3, 4)) == (12,)
    assert fitted(Domain(ranks=(0, 0)), (3,)) is None


def test_two_shapes_are_broadcast_as_before_or_left_out() -> None:
    assert fitted_pair(DOMAINS["matrices"], (3, 4), (4,)) == ((3, 4), (1, 4))
    assert fitted_pair(DOMAINS["one column"], (3, 1), (1, 3)) == ((3, 1), (1, 1))
    assert fitted_pair(DOMAINS["vectors"], (4, 3), (3,)) is None


def test_a_full_domain_changes_nothing() -> None:
    for shape in SHAPES:
        assert fitted(FULL, shape) == padded(FULL, shape) == shape
    for layout in LAYOUTS:
        assert dense(FULL, (3, 4), place(layout, (3, 4)).strides)


def test_what_a_target_states_is_what_cases_know() -> None:
    assert [f.name for f in fields(Stated)] == [f.name for f in fields(Domain)]
    stated = Stated(shape=(None, 1), columns=(1, 0), layout="contiguous", backward=False)
    assert Domain.from_json(asdict(stated)).to_json() == asdict(stated)
    assert Domain.from_json(asdict(Stated())) == FULL
    words = "shape (any, 1), contiguous, no backward"
    assert (Domain.from_json(asdict(stated)).words(), FULL.words()) == (words, "")


def test_the_form_of_a_result_crosses_the_wall_as_it_was_said() -> None:
    assert [f.name for f in fields(StatedResult)] == [f.name for f in fields(Result)]
    said = StatedResult(over=(1, None), divisor=(0, 1), mean="batchmean", dtype="float32")
    found = Domain.from_json(json.loads(json.dumps(asdict(Stated(result=said)))))
    assert found.result == Result(over=(1, None), divisor=(0, 1), mean="batchmean", dtype="float32")
    assert found.takes_all
    words = "sum and mean over dimensions [1:], batchmean divides by the sizes of dimensions [:1]"
    assert found.words() == f"{words}, the result float32"
    assert Stated(result=StatedResult()) == Stated()


def test_a_case_holds_the_form_and_its_key_is_as_before_without() -> None:
    case = plain("float32", "mean")
    formed = case.replace(result=Result(scalar=(1,), rounded=("", "float32")))
    assert Case.from_json(json.loads(json.dumps(formed.to_json()))) == formed
    assert json.loads(formed.key()) == json.loads(json.dumps(formed.to_json()))
    assert "result" not in case.to_json()
    assert case.key() == formed.replace(result=None).key() != formed.key()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("over", (0, 1, 2), "where a slice of dimensions begins and ends"),
        ("over", None, "over is None, not a tuple"),
        ("divisor", ("0", 1), "where a slice of dimensions begins and ends"),
        ("scalar", (2,), "scalar is (2,): the shape () or (1,)"),
        ("dtype", "float8", "known: input, float64, float32, float16, bfloat16"),
        ("rounded", ("float32",), "of input and of target"),
        ("rounded", ("", "int8"), "rounded: 'int8'; known: input"),
        ("mean", "sum", "the name of a reduction that is a mean"),
    ],
)
def test_a_wrong_form_is_named(field: str, value: object, message: str) -> None:
    with pytest.raises(DomainError) as raised:
        StatedResult(**{field: value})  # type: ignore[arg-type]
    assert message in str(raised.value)


def test_a_mean_of_another_name_takes_the_place_of_the_usual_one() -> None:
    domain = Stated(result=StatedResult(mean="batchmean", divisor=(0, 1)))
    target = Target("kl", print, reductions=("sum", "batchmean"), domain=domain)
    assert seen_of(target).reductions == ("sum", "mean")
    with pytest.raises(TargetError, match="unknown reduction 'mean'"):
        Target("kl", print, reductions=("mean",), domain=domain)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("ranks", (3, 2), "ranks is (3, 2): the least and the largest, from 0 on"),
        ("ranks", 2, "ranks is 2, not two numbers"),
        ("shape", (0, None), "sizes of at least 1, or None for any"),
        ("columns", (0, 5), "columns is (0, 5): a multiple, and a limit or 0"),
        ("elements", (8, 4), "elements: no multiple of 8 is at most 4"),
        ("layout", "dense", "known: any, dense_rows, contiguous"),
    ],
)
def test_a_wrong_domain_is_named(field: str, value: object, message: str) -> None:
    with pytest.raises(DomainError) as raised:
        Stated(**{field: value})  # type: ignore[arg-type]
    assert message in str(raised.value)
