"""For which reasons do clauses fail? One defect breaks many, and is to be told once.

The clauses that fail suggest kinds of calls (*operands that are not contiguous*). With the calls of
one kind answered by torch's own loss (``observer/standin.py``) each of the others is asked again,
in its own terms: which of them hold then failed for that reason, and which still fail have one of
their own. What a call does beside its numbers, an operand that it writes to, say, is a fact that no
other defect explains.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from conformance.clauses import BY_ID
from conformance.judging.findings import Finding

TELLING = 4  # words of an exception, and its type, that no two lines of a loss share
BROKEN = ("fail", "crash", "timeout")
REDUCTIONS = ("none", "sum", "mean")
# What a call does beside its numbers.
FACTS = (
    "purity.inputs",
    "purity.grad_output",
    "purity.alias",
    "purity.attributes",
    "purity.state",
    "gradient.unneeded",
    "broadcasting.error",
    "broadcasting.warning",
    "weight.size",
    "weight.purity",
    "legacy.warning",
    "subclass.type",
    "module.pickle",
    "module.deepcopy",
    "module.state_dict",
    "module.repr",
    "module.reduction",
    "module.hooks",
    "resources.*",
    "errors.*",
    "domain.*",
    "determinism.intermittent",
)


@dataclass(frozen=True)
class Kind:
    """A kind of call, by its name in ``observer/standin.py``, and in words.

    ``clauses``: globs of those that speak of it, which suggest it. ``parts``: kinds that it takes
    together: where these explain as much, they are reasons by themselves.
    """

    when: str
    words: str
    clauses: tuple[str, ...]
    parts: tuple[str, ...] = ()


def _kind(when: str, words: str, *clauses: str, parts: tuple[str, ...] = ()) -> Kind:
    return Kind(when, words, clauses, parts)


# The narrower ones first.
KINDS = (
    _kind("empty", "empty operands", "*.empty"),
    _kind("same", "the same tensor as both operands", "*.same_tensor"),
    _kind("default", "a call that names no reduction", "value.default"),
    _kind("weighted", "calls with a weight", "weight.*"),
    _kind("conjugate", "views with the negative bit", "layout.negative"),
    _kind("scalar", "0-d operands", "*.scalar"),
    _kind("integer", "operands of integers", "dtypes.integer_*", "dtypes.unsupported"),
    _kind("two_dtypes", "operands of two dtypes", "dtypes.*"),
    _kind("strided", "operands that are not contiguous", "layout.*"),
    _kind("layout", "operands that are a part of a larger memory", "layout.*", "autograd.nonleaf"),
    _kind(
        "broadcast", "operands of different shapes", "broadcasting.value", "broadcasting.gradient"
    ),
    _kind("nonfinite", "operands with NaN or infinities", "*.nonfinite"),
    _kind("subnormal", "subnormal numbers", "*.subnormal"),
    _kind("huge", "numbers near the end of the range", "*.overflow", "*.mean_overflow"),
    _kind("very_large", "large operands", "*.large", "*.wide_index"),
    _kind("large", "more elements than a few", "*.size", "*.large"),
    _kind("nonleaf", "operands that are results of others", "autograd.*"),
    _kind("grad_output_nonfinite", "a grad_output with NaN or infinities", "grad_output.nonfinite"),
    _kind("grad_output_layout", "a grad_output that is no dense tensor", "grad_output.layout"),
    _kind("grad_output_uneven", "a grad_output whose elements differ", "grad_output.*"),
    _kind("grad_output", "a grad_output other than ones", "grad_output.*"),
    _kind("changed_operand", "operands that change before backward", "autograd.inplace"),
    _kind("second_backward", "a second backward", "autograd.retain"),
    _kind(
        "interleaved",
        "a backward after other calls",
        "autograd.interleaved",
        "purity.result",
        "determinism.concurrent",
    ),
    _kind(
        "graph",
        "gradients with a graph of their own",
        "autograd.double_backward",
        "autograd.grad_output_derivative",
        "autograd.composed",
        "transforms.hessian",
        "transforms.jacrev",
    ),
    _kind("forward", "forward-mode AD", "autograd.forward"),
    _kind("jvp", "forward-mode AD, also by torch.func", "autograd.forward", "transforms.*"),
    _kind("vmap", "calls under vmap", "transforms.*"),
    _kind("transformed", "calls under torch.func", "transforms.*", parts=("jvp", "vmap")),
    _kind("meta", "tensors without data", "transforms.meta", "transforms.fake"),
    _kind("compiled", "a compiled call", "transforms.*"),
    _kind("autocast", "calls under autocast", "transforms.autocast*", "purity.state"),
    _kind("deterministic", "deterministic mode", "transforms.deterministic_mode"),
    _kind("anomaly", "anomaly mode", "autograd.anomaly"),
    _kind("threads", "several threads of torch's", "determinism.threads"),
    _kind("threaded", "calls from other threads", "determinism.concurrent"),
    _kind("input_alone", "calls where the input alone needs a gradient", "*.requires_grad"),
    _kind("target_alone", "calls where the target alone needs a gradient", "*.requires_grad"),
    _kind("target_needs", "calls where the target needs a gradient", "*.requires_grad"),
    _kind("both_need", "calls where both operands need a gradient", "*.requires_grad"),
    _kind("no_gradient", "calls without a gradient", "value.requires_grad", "value.grad_mode"),
    _kind("gradient", "calls that need a gradient", "value.requires_grad"),
    _kind("known_memory", "tensors where earlier ones lay", "purity.repeat", "determinism.*"),
    _kind("later", "any call but the first", "purity.*", "determinism.*", "autograd.interleaved"),
    _kind("module", "calls of the module", "module.*"),
    _kind("copied", "", "purity.inputs", "purity.attributes", "purity.alias", "autograd.inplace"),
    _kind("result_copied", "", "purity.alias", "purity.result", "purity.grad_output"),
    _kind("settled", "", "purity.state"),
)
# In other words than "is wrong for".
SENTENCES = {
    "copied": "It changes its operands, or holds on to their memory.",
    "result_copied": "Results, gradients and grad_output share memory that is written to again.",
    "settled": "It leaves settings of the process changed.",
}
NUMBERS = ("*.size", "*.nonfinite", "*.subnormal", "*.overflow", "*.mean_overflow")
# With these the loss answers every call itself: what then holds was broken by this alone.
APART = ("copied", "result_copied", "settled", "second_backward")
PLAIN = {
    "value": ("value.none", "value.sum", "value.mean", "value.tensor", "dtypes.result"),
    "gradient.input": ("gradient.input",),
    "gradient.target": ("gradient.target",),
}
WORDS = {
    "value": "the value is",
    "gradient.input": "the gradient of input is",
    "gradient.target": "the gradient of target is",
    "gradient": "both gradients are",
    "all": "value and gradient are",
}


# Whether the case of a finding is as wrong with nothing special, if with other numbers.
Plainly = Callable[[Finding], bool]


@dataclass(frozen=True)
class Question:
    """Which calls are answered by torch's own loss: those of a kind, with these reductions.

    ``part``: of a call, what is torch's: all, value, gradient, or the gradient of one operand.
    ``clauses``: globs of those that suggest it. ``parts``: see :class:`Kind`.
    """

    when: str
    words: str
    clauses: tuple[str, ...]
    reductions: tuple[str, ...] = REDUCTIONS
    part: str = "all"
    parts: tuple[str, ...] = ()

    def to_json(self, function: str) -> dict[str, Any]:
        """``function`` of torch.nn.functional: torch's own loss."""
        return {
            "loss": function,
            "when": self.when,
            "reductions": list(self.reductions),
            "part": self.part,
        }

    def may_explain(self, finding: Finding, alike: Container[str], plainly: Plainly) -> bool:
        """Whether such a defect can break the clause of ``finding`` at all.

        Where a case had to be special to be wrong it is not what any call has, unless its likely
        cause is ``alike``, it merely has other numbers or more of them, or it is wrong ``plainly``.
        """
        if self.suggested_by(finding.clause) or self.when in APART:
            return True
        if self.when == "always" and finding.case is not None:
            same = finding.cause is not None and finding.cause.id in alike
            return same or matches(finding.clause, NUMBERS) or plainly(finding)
        refused = finding.status != "fail" or "raised" in finding.message.split(" ")
        return refused or not matches(finding.clause, FACTS)

    def suggested_by(self, clause: str) -> bool:
        return matches(clause, self.clauses)


@dataclass(frozen=True)
class Reason:
    """Why some clauses fail. ``clauses``: the one that tells it best first.

    ``text``: a sentence for people, empty where the one clause stands for itself. ``when``: the
    kind of call.
    """

    text: str
    clauses: tuple[str, ...]
    when: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"text": self.text, "when": self.when, "clauses": list(self.clauses)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Reason:
        return cls(data["text"], tuple(data["clauses"]), data["when"])


def matches(clause: str, globs: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(clause, glob) for glob in globs)


def questions(clauses: Sequence[str], reductions: Sequence[str]) -> Iterator[Question]:
    """Those that one of these failing clauses suggests: what any call has, then the narrower ones.

    ``reductions``: of the target.
    """
    present = [part for part, plain in PLAIN.items() if {*plain} & {*clauses}]
    together: list[tuple[str, tuple[str, ...]]] = [(part, (part,)) for part in present]
    if {"gradient.input", "gradient.target"} <= {*present}:
        together.insert(0, ("gradient", ("gradient.input", "gradient.target")))
    if "value" in present and len(present) > 1:
        together.insert(0, ("all", tuple(present)))
    wrong = tuple(r for r in reductions if f"value.{r}" in clauses)
    for part, those in together:
        plain = tuple(clause for one in those for clause in PLAIN[one])
        some = [wrong, tuple(reductions)] if part in ("value", "all") and wrong else [reductions]
        for which in dict.fromkeys(map(tuple, some)):
            where = "" if len(which) == len(reductions) else f" with {' or '.join(which)}"
            yield Question("always", f"any call{where}", plain, which, part)
    for kind in KINDS:
        own = [clause for clause in clauses if matches(clause, kind.clauses)]
        if own:  # where values are right, they are to stay the loss's own
            part = "gradient" if all(map(_is_of_gradients, own)) else "all"
            yield Question(kind.when, kind.words, kind.clauses, part=part, parts=kind.parts)


def _is_of_gradients(clause: str) -> bool:
    return clause.startswith(("gradient.", "grad_output.")) or clause.endswith("gradient")


Holds = Callable[[tuple[Question, ...], Finding], bool]


def reasons(
    findings: Iterable[Finding],
    reductions: Sequence[str],
    holds: Holds,
    plainly: Plainly = lambda finding: False,
) -> list[Reason]:
    """For which reasons these clauses fail, the one that explains most first.

    ``holds``: whether the clause of a finding holds where the calls of these questions are torch's.
    Every clause is in one reason; one that has several is in the first.
    """
    rows: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.status in BROKEN:
            rows.setdefault(finding.clause, []).append(finding)
    left, found = sorted(rows, key=[*BY_ID].index), list[tuple[Question | None, list[str]]]()
    while len(left) > 1:
        best = _best(left, rows, reductions, holds, plainly)
        if best is None:
            break
        found.append(best)
        left = [clause for clause in left if clause not in best[1]]
    known = [question for question, _ in found if question]
    found += _of_several(known, left, rows, holds, found)
    told = [_reason(question, covered, rows) for question, covered in found]
    return _by_exception(sorted(told, key=lambda reason: -len(reason.clauses)), rows)


def _by_exception(told: list[Reason], rows: dict[str, list[Finding]]) -> list[Reason]:
    """Those of whose clauses each raises the very same are one: one line of the loss does so."""
    first: dict[str, int] = {}
    found: list[Reason] = []
    for reason in told:
        texts = {_exception(f) for clause in reason.clauses for f in rows[clause]}
        text = texts.pop() if len(texts) == 1 else ""
        if text and text in first:
            one = found[first[text]]
            words = " ".join(filter(None, (one.text, reason.text)))
            found[first[text]] = Reason(words, one.clauses + reason.clauses, one.when)
        else:
            if text:
                first[text] = len(found)
            found.append(reason)
    return [
        replace(reason, text=reason.text or "It raises the same in all of them.")
        if len(reason.clauses) > 1
        else reason
        for reason in found
    ]


def _exception(finding: Finding) -> str:
    """What was raised, and says more than its type; without what it was asked for."""
    _, raised, text = finding.message.partition("raised ")
    text = text.partition(" (in ")[0]
    return text if raised and len(text.split()) >= TELLING else ""


def _of_several(
    known: list[Question],
    left: list[str],
    rows: dict[str, list[Finding]],
    holds: Holds,
    found: list[tuple[Question | None, list[str]]],
) -> list[tuple[Question | None, list[str]]]:
    """A reason for each clause that is left, but for those which hold where the calls of all other
    reasons are torch's at once: these join one of them, in ``found``."""
    alone = {c: _own(c, rows[c], holds) for c in left}
    told: list[tuple[Question | None, list[str]]] = [(q, [c]) for c, q in alone.items() if q]
    together = (*known, *(q for q in alone.values() if q))
    for clause in [c for c, q in alone.items() if q is None]:
        might = all(q.may_explain(f, (), lambda _: False) for q in together for f in rows[clause])
        several = len(together) > 1 and might
        if several and all(holds(together, f) for f in rows[clause]):
            (found or told)[0][1].append(clause)
        else:
            told.append((None, [clause]))
    return told


def _own(clause: str, rows: list[Finding], holds: Holds) -> Question | None:
    """The narrowest kind of call, of those that the clause speaks of, without which it holds."""
    if matches(clause, FACTS):
        return None
    kinds = (Question(k.when, k.words, k.clauses) for k in KINDS if matches(clause, k.clauses))
    return next((q for q in kinds if all(holds((q,), f) for f in rows)), None)


def _best(
    left: list[str],
    rows: dict[str, list[Finding]],
    reductions: Sequence[str],
    holds: Holds,
    plainly: Plainly,
) -> tuple[Question, list[str]] | None:
    """The question that explains most of these clauses, and these; None where none explains two."""
    best: tuple[Question, list[str]] | None = None
    explained: dict[str, set[str]] = {}
    for question in questions(left, reductions):
        least = len(best[1]) if best else 1
        own = [f for c in left if question.suggested_by(c) for f in rows[c]]
        alike = {f.cause.id for f in own if f.cause is not None}
        might = [c for c in left if all(question.may_explain(f, alike, plainly) for f in rows[c])]
        if len(might) <= least:
            continue
        first = [c for c in might if holds((question,), rows[c][0])]
        if len(first) <= least:
            explained[question.when] = {*first}
            continue
        covered = [c for c in first if all(holds((question,), f) for f in rows[c][1:])]
        explained[question.when] = {*covered}
        if len(covered) > least and _is_one(question, covered, rows, explained):
            best = question, covered
            if len(covered) == len(left):
                break
    return best


def _is_one(
    question: Question,
    covered: list[str],
    rows: dict[str, list[Finding]],
    explained: dict[str, set[str]],
) -> bool:
    """Whether that is one reason: no accident, and not two of which each is told by itself."""
    if not any(map(question.suggested_by, covered)):
        return False
    parts = [explained.get(part, set()) for part in question.parts]
    if parts and all(parts) and set.union(*parts) >= {*covered}:
        return False
    causes = {f.cause.id for c in covered for f in rows[c] if f.cause is not None}
    return question.when != "always" or len(causes) < 2


def _reason(
    question: Question | None, covered: list[str], rows: dict[str, list[Finding]]
) -> Reason:
    if question is None or len(covered) == 1:
        return Reason("", tuple(covered))
    head = min(covered, key=lambda c: _order(question, c, rows[c]))
    clauses = (head, *(clause for clause in covered if clause != head))
    found = [finding for clause in covered for finding in rows[clause]]
    return Reason(_sentence(question, found), clauses, question.when)


def _order(question: Question, clause: str, rows: list[Finding]) -> tuple[bool, bool, bool]:
    """What speaks of the kind of call itself tells it best, and what has a case."""
    return (
        BY_ID[clause].level == "should",
        not question.suggested_by(clause),
        rows[0].case is None,
    )


def _sentence(question: Question, found: list[Finding]) -> str:
    if question.when in SENTENCES:
        return SENTENCES[question.when]
    if all(f.status != "fail" for f in found):
        return f"It does not return from {question.words}."
    if all(f.status == "fail" and "raised" in f.message.split(" ") for f in found):
        return f"It raises for {question.words}."
    if question.when == "always":
        return f"In {question.words} {WORDS[question.part]} wrong."
    return f"It is wrong for {question.words}."
