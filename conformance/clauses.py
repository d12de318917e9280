"""The clauses as data: what `loss-conformance clauses` lists and every verdict has rows for.

``reference/SPEC.md`` says the same for people; a test holds the two in step.
"""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from conformance.cases.case import FLOAT_DTYPES, promote
from conformance.cases.claimed import DEVICES, Claimed
from conformance.cases.profiles import PROFILE_ORDER

if TYPE_CHECKING:  # with NumPy, which the command line does not need
    from reference.losses import Loss

TELLING = ("float32", "float64", "bfloat16", "float16")
NARROW = ("bfloat16", "float16", "float32", "float64")
WIDER = ("float64", "float32")  # what a pair of different floating dtypes promotes to


Where = Callable[["Loss"], bool]


def anywhere(loss: Loss) -> bool:
    """Of every loss."""
    return True


def has_kinks(loss: Loss) -> bool:
    return loss.formula.has_kinks()


def has_parameters(loss: Loss) -> bool:
    return bool(loss.parameters)


def takes_weight(loss: Loss) -> bool:
    """Whether torch's own takes a weight for each element of input."""
    return bool(loss.formula.weight)


def is_over_weights(loss: Loss) -> bool:
    """Whether a weighted mean is over the sum of the weights."""
    return loss.formula.weight == "weights"


def is_legacy(loss: Loss) -> bool:
    """Whether torch's own takes the deprecated ``size_average`` and ``reduce``."""
    return loss.legacy


def is_homogeneous(loss: Loss) -> bool:
    """Whether operands times a power of two give a power of that times the loss."""
    return loss.formula.degree is not None


@dataclass(frozen=True)
class Clause:
    """One numbered sentence of the spec.

    ``claims``: what a target must claim for it to apply. ``dtypes``: the promoted dtypes that it
    speaks about. ``reductions``: one of these must be claimed. ``profile``: the first that runs it.
    ``first_of``: only the first of these dtypes that the target has is looked at.
    ``every_reduction``: not for a target with one reduction, which need not look at the name.
    ``devices``: the kinds that it speaks about. ``by_element``: the dtypes whose range is too small
    for a sum or mean of so many elements, so that ``none`` must be claimed. ``where``: the losses
    that it speaks about.
    The clauses on mixed dtypes apply where two claimed dtypes promote to the one in question.
    """

    id: str
    sentence: str
    level: str = "must"
    claims: frozenset[str] = frozenset()
    dtypes: tuple[str, ...] = FLOAT_DTYPES
    reductions: tuple[str, ...] = ("none", "sum", "mean")
    profile: str = "quick"
    first_of: tuple[str, ...] = ()
    every_reduction: bool = False
    devices: tuple[str, ...] = DEVICES
    by_element: tuple[str, ...] = ()
    where: Where = anywhere

    def level_for(self, loss: Loss) -> str:
        """Its level, which torch's own loss may make lower."""
        return "should" if self.id in loss.should else self.level

    @property
    def self_reported(self) -> bool:
        """Whether it rests on what only the inside of the target's process can see and say."""
        return self.id in SELF_REPORTED

    @property
    def family(self) -> str:
        """What its id begins with."""
        return self.id.partition(".")[0]

    def runs_in(self, profile: str) -> bool:
        """Whether ``profile`` runs it."""
        return PROFILE_ORDER.index(self.profile) <= PROFILE_ORDER.index(profile)

    def is_about(self, device: str) -> bool:
        """Whether it has a meaning on ``device`` (cpu, cuda or cuda:N)."""
        return device.partition(":")[0] in self.devices

    def dtypes_for(self, target: Claimed) -> tuple[str, ...]:
        """The dtypes of the target that it looks at; none where it speaks of nothing."""
        if self.family == "domain" and target.domain.takes_all:
            return ()
        if not self.where(target.specification):
            return ()
        first = [d for d in self.first_of if d in target.dtypes][:1]
        return tuple(d for d in self.dtypes if d in (first or target.dtypes))

    def applies(self, target: Claimed, dtype: str) -> bool:
        """Whether ``target`` claims what the clause speaks about, for the promoted ``dtype``."""
        pairs = itertools.combinations(target.dtypes, 2)
        mixed = any(promote(*pair) == dtype for pair in pairs)
        return (
            dtype in self.dtypes_for(target)
            and self.claims <= target.claims
            and any(r in target.reductions for r in self.reductions)
            and (mixed or not self.id.startswith("dtypes.mixed"))
            and (len(target.reductions) > 1 or not self.every_reduction)
            and ("none" in target.reductions or dtype not in self.by_element)
            and (target.parameters != () or not self.id.endswith(".parameter"))
        )


def _clause(
    id: str,
    sentence: str,
    *claims: str,
    level: str = "must",
    dtypes: tuple[str, ...] = FLOAT_DTYPES,
    reductions: tuple[str, ...] = ("none", "sum", "mean"),
    profile: str = "quick",
    first_of: tuple[str, ...] = (),
    every_reduction: bool = False,
    devices: tuple[str, ...] = DEVICES,
    by_element: tuple[str, ...] = (),
    where: Where = anywhere,
) -> Clause:
    return Clause(
        id,
        sentence,
        level,
        frozenset(claims),
        dtypes,
        reductions,
        profile,
        first_of,
        every_reduction,
        devices,
        by_element,
        where,
    )


CLAUSES: tuple[Clause, ...] = (
    _clause("value.tensor", "The loss is a dense real tensor."),
    _clause("value.none", "none: every element is ℓ(x - y).", reductions=("none",)),
    _clause(
        "value.sum", "sum: the result is 0-d and the sum of all ℓ(x - y).", reductions=("sum",)
    ),
    _clause("value.mean", "mean: the result is 0-d and the sum over n.", reductions=("mean",)),
    _clause("value.scalar", "0-d operands are as good as any."),
    _clause("value.empty", "Of nothing, the mean is NaN, the sum 0 and none empty.", "empty"),
    _clause("value.size", "The value holds at every size: no tail, block or lane is lost."),
    _clause(
        "value.large",
        "The value holds for 2^24 elements and more.",
        by_element=("float16",),
        first_of=TELLING,
    ),
    _clause(
        "value.wide_index",
        "The value holds for 2^31 elements and more.",
        profile="release",
        by_element=("float16",),
        first_of=NARROW,
    ),
    _clause(
        "value.same_tensor", "The same tensor as both operands gives 0 (NaN where not finite)."
    ),
    _clause(
        "value.kink",
        "On a kink of the formula and on both sides of it the value is right.",
        where=has_kinks,
    ),
    _clause(
        "value.parameter",
        "The value is right for every parameter, passed by keyword.",
        where=has_parameters,
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
    _clause(
        "value.default",
        "Without a reduction named, the result is the mean; names are compared as text.",
        reductions=("mean",),
    ),
    _clause("gradient.input", "The gradient of input is ℓ′(x - y)·g, over n for a mean."),
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
    _clause(
        "gradient.large",
        "The gradient holds for 2^24 elements and more.",
        profile="default",
        by_element=("float16",),
        first_of=TELLING,
    ),
    _clause(
        "gradient.wide_index",
        "The gradient holds for 2^31 elements and more.",
        profile="release",
        by_element=("float16",),
        first_of=NARROW,
    ),
    _clause(
        "gradient.same_tensor",
        "The same tensor as both operands has a gradient of 0.",
        "target_gradient",
    ),
    _clause(
        "gradient.kink",
        "On a kink of the formula and on both sides of it the gradient is right.",
        where=has_kinks,
    ),
    _clause(
        "gradient.parameter",
        "The gradient is right for every parameter, passed by keyword.",
        where=has_parameters,
    ),
    _clause("gradient.nonfinite", "NaN and infinities follow IEEE 754 through the gradient."),
    _clause("gradient.subnormal", "Subnormal gradients are not flushed to zero."),
    _clause(
        "gradient.overflow", "A gradient overflows only where a permitted order of steps does."
    ),
    _clause(
        "gradient.mean_overflow",
        "A gradient is right where the sum of the terms passes the range of the format.",
        dtypes=("float16",),
        reductions=("mean",),
    ),
    _clause("grad_output.value", "The gradient is linear in grad_output, whatever its value."),
    _clause(
        "grad_output.layout",
        "grad_output may be expanded, strided, transposed or a part of a larger memory.",
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
        "broadcast",
        level="should",
        dtypes=("float64",),
    ),
    _clause(
        "dtypes.unsupported",
        "Integer, bool, complex and unsigned operands raise or are right, and never wrap.",
        "mixed_dtype",
    ),
    _clause("layout.value", "The value does not depend on strides, offsets or overlap."),
    _clause("layout.gradient", "The gradient does not depend on strides, offsets or overlap."),
    _clause(
        "layout.shared", "Value and gradient are right where both operands are views of one memory."
    ),
    _clause(
        "layout.negative",
        "The value does not depend on the negative bit of a view.",
        level="should",
    ),
    _clause("purity.inputs", "No call writes to its operands or around them."),
    _clause("purity.grad_output", "No backward writes to grad_output."),
    _clause(
        "purity.alias",
        "The result shares no memory with an operand, nor an element or gradient with another.",
    ),
    _clause(
        "purity.attributes",
        "requires_grad, .grad, hooks, memory and dtype of the operands stay as they were.",
    ),
    _clause("purity.repeat", "New contents, same addresses and shapes: a new answer."),
    _clause("purity.result", "A later call changes no earlier result or gradient."),
    _clause(
        "purity.state",
        "Random state, grad mode, dtype, threads and warnings stay as they were, in any block.",
    ),
    _clause("autograd.accumulate", "backward() adds to .grad what the gradient is."),
    _clause(
        "autograd.retain",
        "With retain_graph a second backward agrees; without, it raises or agrees.",
    ),
    _clause(
        "autograd.inplace",
        "After a change in place backward is right, or raises where an operand was changed.",
    ),
    _clause(
        "autograd.hooks",
        "Hooks see the gradient, once, and may replace it; what is saved may be copied.",
    ),
    _clause(
        "autograd.nonleaf", "Operands may be results or views of other tensors; gradients flow on."
    ),
    _clause(
        "autograd.interleaved", "Several graphs may be alive at once, in any order of backward."
    ),
    _clause("autograd.anomaly", "Anomaly mode finds no NaN and changes nothing."),
    _clause(
        "autograd.double_backward",
        "The derivatives of the gradients by the operands are right.",
        "double_backward",
    ),
    _clause(
        "autograd.grad_output_derivative",
        "The derivatives of the gradients by grad_output are right.",
        "double_backward",
    ),
    _clause(
        "autograd.composed",
        "Second derivatives of L² and of L(x², y) are right; a third is right or raises.",
        "double_backward",
    ),
    _clause(
        "autograd.forward",
        "Forward-mode tangents are right, along either operand and both, or raise beside integers.",
        "forward_ad",
    ),
    _clause(
        "transforms.grad", "torch.func.grad gives the gradient, by either operand.", "functorch"
    ),
    _clause("transforms.vjp", "torch.func.vjp gives the vjp for any cotangent.", "functorch"),
    _clause("transforms.jvp", "torch.func.jvp gives the jvp.", "functorch", "forward_ad"),
    _clause("transforms.jacrev", "torch.func.jacrev gives the Jacobian.", "functorch"),
    _clause(
        "transforms.hessian", "jacrev of jacrev gives the Hessian.", "functorch", "double_backward"
    ),
    _clause(
        "transforms.vmap",
        "vmap gives each sample's loss and gradient, with every in_dims, also nested.",
        "functorch",
    ),
    _clause(
        "transforms.batched_gradient",
        "is_grads_batched gives the gradient for each cotangent.",
        "functorch",
    ),
    _clause(
        "transforms.deterministic_mode",
        "Deterministic mode changes neither result nor gradient.",
        "deterministic",
    ),
    _clause(
        "transforms.default_device",
        "The default device is for tensors of no operand: it changes nothing.",
        level="should",
    ),
    _clause(
        "transforms.autocast",
        "Under autocast value and gradients are right, in float32 or the operands' dtype.",
        "autocast",
    ),
    _clause(
        "transforms.autocast_dtype",
        "Under autocast the loss of halves is float32.",
        "autocast",
        level="should",
    ),
    _clause("transforms.meta", "On meta tensors shapes, dtypes and devices are right.", "compile"),
    _clause(
        "transforms.fake",
        "On fake tensors shapes, dtypes and devices are right; nothing of them stays.",
        "compile",
    ),
    _clause(
        "transforms.compile",
        "torch.compile takes it as one graph, which gives the value and gradient.",
        "compile",
        profile="default",
    ),
    _clause(
        "transforms.compile_dynamic",
        "One graph with dynamic shapes serves every size.",
        "compile",
        "dynamic",
        profile="default",
    ),
    _clause(
        "transforms.export",
        "torch.export gives a program with the same value.",
        "export",
        profile="default",
    ),
    _clause(
        "transforms.inductor",
        "torch.compile with inductor gives the value and gradient.",
        "compile",
        profile="release",
    ),
    _clause("determinism.repeat", "The same call gives the same bits.", "deterministic"),
    _clause(
        "determinism.intermittent", "What was wrong once is wrong whenever it is called again."
    ),
    _clause("determinism.threads", "The value is permitted whatever the number of threads."),
    _clause(
        "determinism.concurrent",
        "Calls from several threads at once do not disturb each other.",
        first_of=TELLING,
    ),
    _clause("metamorphic.symmetry", "L(x, y) and L(y, x) have the same bits.", "deterministic"),
    _clause(
        "metamorphic.scaling",
        "Operands scaled by a power of two scale the value exactly.",
        "deterministic",
        level="should",
        where=is_homogeneous,
    ),
    _clause(
        "metamorphic.negation",
        "The gradient of target is the negative of input's to the bit.",
        "deterministic",
        "target_gradient",
        level="should",
    ),
    _clause(
        "weight.value",
        "Each term counts by its weight; a mean is over the sum of the weights, or over n.",
        "weight",
        where=takes_weight,
    ),
    _clause(
        "weight.gradient",
        "The gradients by the operands count by the weights as the terms do.",
        "weight",
        where=takes_weight,
    ),
    _clause(
        "weight.derivative",
        "The gradient by the weight is that of terms and divisor.",
        "weight",
        where=takes_weight,
    ),
    _clause(
        "weight.layout",
        "Neither depends on the weight's strides, offset or overlap.",
        "weight",
        where=takes_weight,
    ),
    _clause(
        "weight.zero",
        "A weight of zero follows IEEE 754: it hides no NaN, and a mean over no weight is NaN.",
        "weight",
        where=takes_weight,
    ),
    _clause(
        "weight.size",
        "A weight of another size than input raises, even where it would broadcast.",
        "weight",
        where=takes_weight,
    ),
    _clause(
        "weight.dtype",
        "A weight of another dtype, integers among them, takes part in promotion.",
        "weight",
        "mixed_dtype",
        where=takes_weight,
    ),
    _clause("weight.purity", "No call writes to the weight.", "weight", where=takes_weight),
    _clause(
        "weight.stretched",
        "Where input is broadcast, a weighted mean is over its own weights, each once.",
        "weight",
        "broadcast",
        level="should",
        reductions=("mean",),
        where=is_over_weights,
    ),
    _clause(
        "legacy.reduction",
        "size_average and reduce, where one is passed, say what the reduction is.",
        "legacy",
        where=is_legacy,
    ),
    _clause(
        "legacy.positional",
        "They are the third and fourth argument; a text there is no reduction.",
        "legacy",
        where=is_legacy,
    ),
    _clause(
        "legacy.warning",
        "Passing either warns.",
        "legacy",
        level="should",
        where=is_legacy,
    ),
    _clause(
        "subclass.value",
        "Operands of a tensor subclass give the value and the gradients.",
        "subclass",
    ),
    _clause("subclass.type", "The result for a tensor subclass is one as well.", "subclass"),
    _clause(
        "subclass.dispatch",
        "What a subclass makes of calls, in __torch_function__, is what counts.",
        "subclass",
    ),
    _clause("module.value", "The module gives the value.", "module"),
    _clause("module.hooks", "Its hooks are called, and change what they may change.", "module"),
    _clause("module.mode", "eval() and train() change nothing.", "module"),
    _clause("module.pickle", "It survives pickle and torch.save.", "module"),
    _clause("module.deepcopy", "It survives deepcopy.", "module"),
    _clause(
        "module.state_dict",
        "It has no parameters, and no keys in its state_dict(), which loads strictly.",
        "module",
    ),
    _clause(
        "module.to", "After .to(dtype or device) it computes in its operands' dtype.", "module"
    ),
    _clause("module.repr", "Its repr names its class.", "module", level="should"),
    _clause(
        "module.reduction",
        "It has its reduction as an attribute, and goes by it.",
        "module",
        level="should",
    ),
    _clause("resources.memory", "Repeated calls leave nothing behind.", first_of=TELLING),
    _clause(
        "resources.cycle",
        "Operands and result are freed when they go out of scope.",
        first_of=TELLING,
    ),
    _clause(
        "resources.saved",
        "It saves at most one tensor more than the builtin.",
        level="should",
        first_of=TELLING,
    ),
    _clause(
        "resources.released",
        "What a result holds on to is freed by its backward.",
        level="should",
        profile="default",
        first_of=TELLING,
    ),
    _clause(
        "resources.time",
        "A call takes less than 1000 times as long as the builtin, and no longer than its size.",
        level="should",
        first_of=TELLING,
    ),
    _clause(
        "cuda.stream",
        "Value and gradient wait for the current stream, whichever that is.",
        devices=("cuda",),
        first_of=TELLING,
    ),
    _clause(
        "cuda.graph",
        "Captured in a CUDA graph, value and gradient are right on each replay.",
        devices=("cuda",),
        first_of=TELLING,
    ),
    _clause(
        "cuda.device",
        "The operands' device counts, whichever is current, and stays what it was.",
        devices=("cuda",),
        first_of=TELLING,
    ),
    _clause("errors.reduction", "An unknown reduction raises.", every_reduction=True),
    _clause("errors.parameter", "A parameter outside of its domain raises.", where=has_parameters),
    _clause("errors.operands", "What is no tensor raises or is right."),
    _clause("errors.devices", "Operands on different devices raise."),
    _clause(
        "domain.error",
        "What lies outside of the target's domain raises or is right.",
        level="should",
        first_of=TELLING,
    ),
)

# No part of the specification: a right loss may break it. Only where a user forbids something.
FORBIDDEN = _clause(
    "provenance.forbidden", "It runs no operator or kernel that was forbidden by name."
)

# Why a clause is unavailable though nothing is missing: the target is rejected without it.
BLOCKED = "a plain value or gradient is wrong already"
# What no verdict made on one GPU can say; the verdict names it.
ONE_GPU = "it takes two GPUs, and there is one"

# Flags, version counters and attributes of tensors, whether memory is shared, settings, warnings,
# live tensors, and that a call raised where it must.
SELF_REPORTED = frozenset(
    {
        "gradient.unneeded",
        "broadcasting.error",
        "broadcasting.warning",
        "dtypes.unsupported",
        "purity.alias",
        "purity.attributes",
        "purity.state",
        "weight.size",
        "legacy.warning",
        "subclass.type",
        "module.reduction",
        "module.repr",
        "module.state_dict",
        "resources.memory",
        "resources.cycle",
        "resources.saved",
        "resources.released",
        "resources.time",
        "errors.reduction",
        "errors.parameter",
        "errors.operands",
        "errors.devices",
        "domain.error",
    }
)

BY_ID = {clause.id: clause for clause in CLAUSES}


def sentence_of(clause: str) -> str:
    """Of any that a verdict may have a row for."""
    return (BY_ID | {FORBIDDEN.id: FORBIDDEN})[clause].sentence


def selects(globs: str, clause: str) -> bool:
    """Whether one of ``globs``, with commas between them, matches this id."""
    return any(fnmatch.fnmatchcase(clause, glob) for glob in globs.split(","))
