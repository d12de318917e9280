"""The clauses as data: what `loss-conformance clauses` lists and every verdict has rows for.

``reference/SPEC.md`` says the same for people; a test holds the two in step.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from conformance.case import FLOAT_DTYPES, promote
from targets import Target

WIDER = ("float64", "float32")  # what a pair of different floating dtypes promotes to


@dataclass(frozen=True)
class Clause:
    """One numbered sentence of the spec.

    ``claims``: what a target must claim for it to apply. ``dtypes``: the promoted dtypes that it
    speaks about. ``reductions``: one of these must be claimed. The clauses on mixed dtypes apply
    where two claimed dtypes promote to the one in question.
    """

    id: str
    sentence: str
    level: str = "must"
    claims: frozenset[str] = frozenset()
    dtypes: tuple[str, ...] = FLOAT_DTYPES
    reductions: tuple[str, ...] = ("none", "sum", "mean")

    def applies(self, target: Target, dtype: str) -> bool:
        """Whether ``target`` claims what the clause speaks about, for the promoted ``dtype``."""
        pairs = itertools.combinations(target.dtypes, 2)
        mixed = any(promote(*pair) == dtype for pair in pairs)
        return (
            dtype in self.dtypes
            and dtype in target.dtypes
            and self.claims <= target.claims
            and any(r in target.reductions for r in self.reductions)
            and (mixed or not self.id.startswith("dtypes.mixed"))
        )


def _clause(
    id: str,
    sentence: str,
    *claims: str,
    level: str = "must",
    dtypes: tuple[str, ...] = FLOAT_DTYPES,
    reductions: tuple[str, ...] = ("none", "sum", "mean"),
) -> Clause:
    return Clause(id, sentence, level, frozenset(claims), dtypes, reductions)


CLAUSES: tuple[Clause, ...] = (
    _clause("value.tensor", "The loss is a dense real tensor."),
    _clause("value.none", "none: every element is (x - y)².", reductions=("none",)),
    _clause(
        "value.sum", "sum: the result is 0-d and the sum of all (x - y)².", reductions=("sum",)
    ),
    _clause("value.mean", "mean: the result is 0-d and the sum over n.", reductions=("mean",)),
    _clause("value.scalar", "0-d operands are as good as any."),
    _clause("value.empty", "Of nothing, the mean is NaN, the sum 0 and none empty.", "empty"),
    _clause("value.size", "The value holds at every size: no tail, block or lane is lost."),
    _clause(
        "value.same_tensor", "The same tensor as both operands gives 0 (NaN where not finite)."
    ),
    _clause("value.nonfinite", "NaN and infinities follow IEEE 754 through the formula."),
    _clause("value.subnormal", "Subnormal differences and squares are not flushed to zero."),
    _clause(
        "value.overflow", "Overflow gives an infinity where, and only where, a step overflows."
    ),
    _clause(
        "value.mean_overflow",
        "A mean is finite where every term and the accumulator's sum are.",
        dtypes=("float16",),
        reductions=("mean",),
    ),
    _clause("value.requires_grad", "The value does not depend on which operands need a gradient."),
    _clause("value.grad_mode", "The value is the same under no_grad and in inference mode."),
    _clause("gradient.input", "The gradient of input is 2(x - y)·g, over n for a mean."),
    _clause(
        "gradient.target", "The gradient of target is the negative of input's.", "target_gradient"
    ),
    _clause("gradient.unneeded", "Where no operand needs a gradient, the result needs none."),
    _clause("gradient.partial", "A gradient does not depend on what else needs one."),
    _clause("gradient.scalar", "0-d operands have 0-d gradients."),
    _clause(
        "gradient.empty", "Gradients of nothing have their operand's shape, and are 0.", "empty"
    ),
    _clause("gradient.size", "The gradient holds at every size."),
    _clause("gradient.same_tensor", "The same tensor as both operands has a gradient of 0."),
    _clause("gradient.nonfinite", "NaN and infinities follow IEEE 754 through the gradient."),
    _clause("gradient.subnormal", "Subnormal gradients are not flushed to zero."),
    _clause(
        "gradient.overflow", "A gradient overflows only where a permitted order of steps does."
    ),
    _clause(
        "gradient.mean_overflow",
        "A gradient is right where the sum of squares passes the range of the format.",
        dtypes=("float16",),
        reductions=("mean",),
    ),
    _clause("grad_output.value", "The gradient is linear in grad_output, whatever its value."),
    _clause(
        "grad_output.layout",
        "grad_output may be expanded, strided or transposed.",
        reductions=("none",),
    ),
    _clause("grad_output.nonfinite", "NaN and infinities in grad_output follow IEEE 754."),
    _clause(
        "broadcasting.value", "Every broadcastable pair of shapes gives the value.", "broadcast"
    ),
    _clause(
        "broadcasting.gradient",
        "A gradient is summed to its operand's shape; n is the broadcast size.",
        "broadcast",
    ),
    _clause("broadcasting.error", "Shapes that do not broadcast raise.", "broadcast"),
    _clause("broadcasting.warning", "Unequal sizes warn.", "broadcast", level="should"),
    _clause("dtypes.result", "The result has the promoted dtype (torch.promote_types)."),
    _clause(
        "dtypes.mixed_value",
        "Operands of two floating dtypes are computed in the promoted one.",
        "mixed_dtype",
        dtypes=WIDER,
    ),
    _clause(
        "dtypes.mixed_gradient",
        "Each gradient has its operand's dtype, rounded from the promoted one.",
        "mixed_dtype",
        dtypes=WIDER,
    ),
    _clause(
        "dtypes.integer_value", "An integer operand converts to the floating one.", "mixed_dtype"
    ),
    _clause(
        "dtypes.integer_gradient",
        "A floating operand beside an integer has its gradient.",
        "mixed_dtype",
    ),
    _clause(
        "dtypes.scalar",
        "A 0-d operand takes part in promotion like any other.",
        "mixed_dtype",
        level="should",
        dtypes=("float64",),
    ),
    _clause(
        "dtypes.unsupported", "Integer, bool and complex pairs raise or are right.", "mixed_dtype"
    ),
    _clause("layout.value", "The value does not depend on strides, offsets or overlap."),
    _clause("layout.gradient", "The gradient does not depend on strides, offsets or overlap."),
    _clause("purity.inputs", "No call writes to its operands or around them."),
    _clause("purity.grad_output", "No backward writes to grad_output."),
    _clause("purity.alias", "The result shares no memory with an operand."),
    _clause("purity.repeat", "New contents, same addresses and shapes: a new answer."),
    _clause("purity.result", "A later call changes no earlier result or gradient."),
    _clause(
        "purity.state", "Random state, grad mode, dtype, threads and warnings stay as they were."
    ),
)

BY_ID = {clause.id: clause for clause in CLAUSES}
