"""Reasons over clauses: one where one defect explains them, and none where it does not."""

from __future__ import annotations

from collections.abc import Collection

from conformance.cases.plans import plain
from conformance.clauses import CLAUSES
from conformance.judging.cause import Cause
from conformance.judging.findings import Finding
from conformance.judging.reasons import FACTS, KINDS, Question, matches, reasons

REDUCTIONS = ("none", "sum", "mean")


def experiment(clause: str, message: str = "is 1.0, permitted: 2.0", **more: str) -> Finding:
    return Finding(clause, "float32", message, None, clause, **more)


def of_case(clause: str, cause: str = "", dtype: str = "float32") -> Finding:
    told = Cause(cause, "It is so.") if cause else None
    return Finding(clause, dtype, "is 1.0", plain(dtype, "mean"), "value", cause=told)


def explained(findings: list[Finding], *answers: tuple[str, Collection[str]]) -> list[list[str]]:
    """The clauses of each reason, where a kind of call explains these, and no other does."""
    known = dict(answers)

    def holds(asked: tuple[Question, ...], finding: Finding) -> bool:
        return any(finding.clause in known.get(question.when, ()) for question in asked)

    return [list(reason.clauses) for reason in reasons(findings, REDUCTIONS, holds)]


def test_a_kind_of_call_covers_what_holds_without_it() -> None:
    found = [experiment("autograd.retain"), of_case("layout.value"), experiment("purity.repeat")]
    answers = ("strided", ["autograd.retain", "layout.value"])
    assert explained(found, answers) == [["layout.value", "autograd.retain"], ["purity.repeat"]]


def test_each_clause_is_in_one_reason() -> None:
    found = [of_case("layout.value"), of_case("layout.gradient"), of_case("broadcasting.value")]
    both = [f.clause for f in found]
    (told,) = explained(found, ("strided", both), ("broadcast", both))
    assert told[0] == "layout.value"
    assert sorted(told) == sorted(both)


def test_a_clause_is_covered_where_each_of_its_dtypes_is() -> None:
    found = [of_case("layout.value"), of_case("layout.gradient")]
    other = of_case("layout.gradient", dtype="float64")

    def holds(asked: tuple[Question, ...], finding: Finding) -> bool:
        return finding.dtype == "float32"

    assert len(reasons(found, REDUCTIONS, holds)) == 1
    assert len(reasons([*found, other], REDUCTIONS, holds)) == 2


def test_a_kind_of_call_that_no_clause_speaks_of_explains_nothing() -> None:
    found = [experiment("metamorphic.symmetry"), experiment("purity.result")]
    everything = [(kind.when, [f.clause for f in found]) for kind in KINDS if kind.when == "vmap"]
    assert len(explained(found, *everything)) == 2


def test_what_a_call_does_beside_its_numbers_stands_for_itself() -> None:
    fact = experiment("resources.memory", "24 calls left 24 tensors alive")
    found, both = [of_case("value.mean"), fact], ["value.mean", "resources.memory"]
    assert len(explained(found, ("always", both))) == 2
    refused = [of_case("value.mean"), experiment("resources.memory", "raised TypeError: no")]
    assert len(explained(refused, ("always", both))) == 1


def test_what_took_a_special_case_is_not_what_any_call_has() -> None:
    found = [of_case("value.mean", "wrong_count"), of_case("layout.value", "strides_ignored")]
    both = [f.clause for f in found]
    assert len(explained(found, ("always", both))) == 2
    alike = [of_case("value.mean", "wrong_count"), of_case("layout.value", "wrong_count")]
    assert len(explained(alike, ("always", both))) == 1
    larger = [of_case("value.mean"), of_case("value.size")]
    assert len(explained(larger, ("always", ["value.mean", "value.size"]))) == 1


def test_two_likely_causes_are_two_reasons() -> None:
    found = [of_case("value.sum", "extra_count"), of_case("value.mean", "constant_added")]
    assert len(explained(found, ("always", ["value.sum", "value.mean"]))) == 2


def test_what_two_narrower_kinds_explain_is_not_one_wider_one() -> None:
    found = [experiment("transforms.jvp"), experiment("transforms.vmap")]
    both = [f.clause for f in found]
    answers = [("jvp", both[:1]), ("vmap", both[1:]), ("transformed", both)]
    assert len(explained(found, *answers)) == 2
    assert len(explained(found, ("transformed", both))) == 1


def test_what_raises_the_very_same_is_one_reason() -> None:
    text = "raised RuntimeError: view size is not compatible (in modes.autocast: x float32[3])"
    found = [experiment("transforms.autocast", text), experiment("autograd.forward", text)]
    (reason,) = reasons(found, REDUCTIONS, lambda asked, finding: False)
    assert reason.text == "It raises the same in all of them."
    other = experiment("autograd.forward", "raised RuntimeError: no rule for a tangent of this")
    assert len(explained([found[0], other])) == 2
    generic = [experiment(f.clause, "raised NotImplementedError: not yet") for f in found]
    assert len(explained(generic)) == 2


def test_a_reason_says_what_is_so_for_which_calls() -> None:
    found = [of_case("layout.value"), of_case("layout.gradient")]
    (reason,) = reasons(found, REDUCTIONS, lambda asked, finding: True)
    assert reason.text == "It is wrong for operands that are not contiguous."
    raising = [Finding(f.clause, f.dtype, "raised RuntimeError: no", f.case) for f in found]
    (reason,) = reasons(raising, REDUCTIONS, lambda asked, finding: True)
    assert reason.text == "It raises for operands that are not contiguous."


def test_every_pattern_of_a_clause_names_one() -> None:
    globs = [glob for kind in KINDS for glob in kind.clauses] + [*FACTS]
    assert not [g for g in globs if not any(matches(c.id, [g]) for c in CLAUSES)]
