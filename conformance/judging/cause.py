"""What a cause is, and the list of all that can be told."""

from __future__ import annotations

from dataclasses import dataclass

CAUSES = {
    "constant_factor": "a constant factor too much or too little",
    "missing_count": "not divided by n",
    "missing_scale": "a gradient without its factor of 2 and its division by n",
    "extra_count": "divided by n though it should not be",
    "wrong_count": "divided by another count than n",
    "mean_of_means": "a mean of the means of parts that are not of one size",
    "reduced": "reduced though no reduction was asked for",
    "not_reduced": "not reduced, or not over every dimension",
    "result_shape": "the right elements in another shape",
    "wrong_dtype": "another dtype than promotion gives",
    "other_formula": "another formula than the square of the difference, or its derivative",
    "cancellation": "x² − 2xy + y², or 2x − 2y, computed apart: it cancels",
    "constant_added": "a constant added to every square",
    "clamped": "limited to a range",
    "nonfinite_masked": "NaN or infinities replaced or left out",
    "flushed_subnormals": "subnormal numbers taken for 0",
    "intermediate_range": "an intermediate result that over- or underflows",
    "narrow_dtype": "something computed in a narrower dtype",
    "narrow_accumulator": "a sum that rounds or overflows as it is accumulated",
    "lost_tail": "elements from some index on are lost",
    "lost_elements": "other elements are lost",
    "counted_twice": "elements are counted more than once",
    "past_end": "more elements are counted than there are",
    "wrong_index": "some elements are read in the place of others",
    "strides_ignored": "elements are read or written where the strides do not say",
    "offset_ignored": "elements are read from another offset",
    "broadcast_wrong": "operands of different shapes are combined wrongly",
    "wrong_sign": "the opposite sign",
    "no_gradient": "no gradient flows, or zeros",
    "unneeded_gradient": "a gradient that nobody asked for",
    "missing_grad_output": "grad_output is taken for 1",
    "collapsed_grad_output": "one element of grad_output, or its mean, stands for several",
    "repeated_grad_output": "multiplied by grad_output more than once",
    "scalar_grad_output": "a 0-d grad_output is read as if it had an element for each",
    "dense_grad_output": "grad_output is read as if its elements lay one after the other",
    "broadcast_gradient": "a gradient not summed as it should be over broadcast dimensions",
    "second_derivative_missing": "second derivatives are cut off",
    "no_tangent": "the tangent of an operand is ignored",
    "depends_on_grad": "it depends on what needs a gradient",
    "stale_cache": "an earlier answer is given again",
    "accumulates": "answers are added to earlier ones",
    "result_reused": "an earlier result or gradient is overwritten by a later call",
    "state_kept": "what backward needs is overwritten by other calls",
    "saved_once": "what backward needs is gone after the first one",
    "operand_not_saved": "backward reads the operands as they are then",
    "changes_operand": "a tensor of the caller is changed",
    "leaves_settings": "a global setting or function is changed",
}


@dataclass(frozen=True)
class Cause:
    """The likely cause of a failure. ``id``: of :data:`CAUSES`; ``text``: a sentence for people."""

    id: str
    text: str

    def __post_init__(self) -> None:
        assert self.id in CAUSES, self.id
