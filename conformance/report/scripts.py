"""A script for each failure that runs by itself: torch and the target, nothing of the suite.

It exits with 1 where the loss deviates and with 0 where it does not, so that it goes into a bug
report as it is. A failure with a case becomes its tensors, written out, and the one check that
failed; an experiment is copied with all that it needs (bundle.py).
"""

from __future__ import annotations

import ast
import functools
import itertools
import math
import os
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from conformance.cases.case import Case, Operand
from conformance.cases.claimed import Claimed
from conformance.cases.domain import FULL
from conformance.cases.features import form_of, result_shape
from conformance.cases.layouts import place
from conformance.cases.values import FORMAT_OF, INTEGER_GUARD, REGIMES, elements, in_buffer
from conformance.clauses import BY_ID
from conformance.report.bundle import Bundle, Part
from conformance.report.sources import decorated, defines, modules_of
from reference.losses import LOSSES
from reference.reductions import EVERYTHING

Json = dict[str, Any]
WRITTEN_OUT = 48  # numbers, or runs of equal ones: beyond, an operand is made as the suite makes it
LARGE = 4096  # elements
ATTEMPTS = 20  # some losses are right for the first ten calls on a shape, or most of the time
FEW_ATTEMPTS = 3  # where the operands are large, and of an experiment, which is many calls
SECONDS = 30  # for which the script of a call that is wrong now and then makes it
TIMEOUT = 60  # seconds after which the script of a call that does not return ends itself
WIDTH = 96

_COMMON, _VALUES, _FORMATS = (
    "conformance.report.standalone",
    "conformance.cases.values",
    "reference.formats",
)
_NAMES = {"input": "x", "target": "y"}
_MODES = {"no_grad": "torch.no_grad()", "inference": "torch.inference_mode()"}
# In the text that is around what is copied
_RESERVED = ("LOSS", "nan", "inf", "h", "deviations", "claimed", "protocols", "observer", "formula")

_JUDGING, _KIT = "conformance.judging", "conformance.observer.protocols.kit"
_ALONE, _BENCH = "conformance.report.bench_alone", f"{_JUDGING}.experiments.bench"
_PROTOCOLS = "conformance.observer.protocols"
# Both halves of an experiment are in one script: what knows of the wall gives way; and so does what
# is long because it is fast.
_INSTEAD = {
    (_FORMATS, "round_nearest"): (_COMMON, "round_nearest"),
    (f"{_JUDGING}.observer", "Observer"): (_ALONE, "Observer"),
    (f"{_JUDGING}.observer", "Unavailable"): (_KIT, "Unavailable"),
    (_KIT, "Evidence"): (f"{_JUDGING}.evidence", "Evidence"),
}


class Failure(Protocol):
    """What a script shows: see ``judging/findings.py``."""

    @property
    def clause(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def case(self) -> Case | None: ...
    @property
    def aspect(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def is_intermittent(self) -> bool: ...


def script(target: Claimed, failure: Failure, permitted: Json, device: str, seed: int) -> str:
    """The source of a script that shows the deviation; empty where nothing failed.

    ``permitted``: of the elements that are wrong, as ``judging/permitted_shown.py`` gives it.
    """
    if failure.status == "unavailable":
        return ""
    if failure.case is None:
        return _experiment(target, failure, device, seed)
    return _CaseScript(target, failure, failure.case, permitted, device).source()


# -- one call ----------------------------------------------------------------------------------


@dataclass
class _CaseScript:
    """The script of a finding with a case."""

    target: Claimed
    failure: Failure
    case: Case
    permitted: Json
    device: str
    bundle: Bundle = field(default_factory=lambda: Bundle(_INSTEAD, _RESERVED))

    def source(self) -> str:
        named = _by_its_name(self.target, self.bundle)
        body = [*named, *self._tensors(), *self._earlier(), *self._shown()]
        sizes = (math.prod(self.case.shape), self.case.input.size, self.case.target.size)
        attempts = FEW_ATTEMPTS if max(sizes) > LARGE else ATTEMPTS
        lines = [
            "def deviations(target, attempt, earlier):",
            '    """What is not as it must be, after so many earlier calls."""',
            *(f"    {line}" for line in body),
        ]
        options = f"{attempts}, histories={2 if self._has_history else 1}"
        return _assembled(self.target, self.failure, self.bundle, lines, options)

    def _tensors(self) -> Iterator[str]:
        case = self.case
        yield "# Around each tensor and in its gaps lies NaN: who reads or writes there is seen."
        yield from self._operand("x", case.input, case.needs[0])
        if case.same:
            yield "y = x"
        else:
            yield from self._operand("y", case.target, case.needs[1])
        if self._differentiates:
            dtypes = (
                {"dtype": self.permitted["dtypes"][0]} if case.result else {"dtype": case.dtype}
            )
            g = case.grad_output.replace(shape=result_shape(case), **dtypes)
            yield from self._operand("g", g)

    @property
    def _differentiates(self) -> bool:
        """Whether the case asks for a gradient and the check looks at it."""
        of_result = self.failure.aspect.startswith(("value", "dtypes"))
        return bool(self.case.differentiated) and not (of_result and self.failure.status == "fail")

    def _operand(self, name: str, operand: Operand, needs: bool = False) -> Iterator[str]:
        """Lines that make a tensor; what it is a view of is called ``…_memory``."""
        spot, gap = place(operand.layout, operand.shape), INTEGER_GUARD.get(operand.dtype, np.nan)
        line = in_buffer(elements(operand), operand.layout)[0]
        as_text = _literal if operand.dtype in FORMAT_OF else _whole
        texts = [as_text(v) for v in np.where(np.isnan(line), gap, line).tolist()]
        options = f"dtype=torch.{operand.dtype}"
        options += "" if self.device == "cpu" else f", device={self.device!r}"
        if sum(1 for _ in itertools.groupby(texts)) <= WRITTEN_OUT:
            made = f"torch.tensor({_listed(texts)}, {options})"
        else:
            self.bundle.add(_COMMON, "laid_out")
            values = f"{self._generated(operand)}.reshape({operand.shape})"
            where = f"{spot.length}, {spot.strides}, {spot.offset}, {gap}"
            made = f"laid_out({values}, {where}).to({options})"
        yield from _wrapped(f"{name}_memory = {made}")
        view = f"{name}_memory.as_strided({operand.shape}, {spot.strides}, {spot.offset})"
        own = ".detach()" if operand.layout == "contiguous" else ""  # as tensors.make
        yield f"{name} = {view}{own}" + (".requires_grad_()" if needs else "")

    def _generated(self, operand: Operand) -> str:
        """The elements as the suite makes them, from a seed."""
        fill = operand.fill
        if fill.regime == "table" and operand.dtype in FORMAT_OF:
            cycle = operand.replace(shape=(len(fill.table) or 1,), layout="contiguous")
            self.bundle.use("numpy as np")
            return f"np.resize([{', '.join(map(_literal, elements(cycle)))}], {operand.size})"
        self.bundle.add(_VALUES, "Bits")
        bits = f"Bits(np.random.PCG64({fill.seed}), {operand.size})"
        if operand.dtype in INTEGER_GUARD:
            self.bundle.add(_VALUES, "_integers_of")
            return f"_integers_of({operand.dtype!r}, {fill.regime!r}, {bits})"
        regime, fmt = REGIMES[fill.regime].__name__, FORMAT_OF[operand.dtype].name.upper()
        self.bundle.add(_VALUES, regime)
        self.bundle.add(_FORMATS, "round_nearest")
        self.bundle.add(_FORMATS, fmt)
        return f"round_nearest({regime}({bits}, {fmt}), {fmt})"

    @property
    def _has_history(self) -> bool:
        """Whether a call on other contents can come first."""
        dtypes = (self.case.input.dtype, self.case.target.dtype)
        return self.case.mode == "grad" and "bool" not in dtypes

    def _earlier(self) -> Iterator[str]:
        """Calls on other contents."""
        if self._has_history:
            yield from _earlier("torch.ones_like(x), torch.zeros_like(y)", self.case.reduction)

    def _shown(self) -> list[str]:
        """The calls, and what is looked at before and after."""
        (before, after), lines = self._check(), list(self._calls())
        inside = self.failure.aspect == "purity.state"  # leaving a mode would put settings back
        if inside:
            lines = [*before, *lines, *after]
        if self.case.mode in _MODES:
            lines = [f"with {_MODES[self.case.mode]}:", *(f"    {line}" for line in lines)]
        return lines if inside else [*before, *lines, *after]

    def _calls(self) -> Iterator[str]:
        """The loss, and its gradient."""
        case = self.case
        given = "".join(f", {name}={_literal(value)}" for name, value in case.parameters)
        call = f"result = target.loss(x, y, reduction={case.reduction!r}{given})"
        if "bool" in (case.input.dtype, case.target.dtype):
            yield from ("try:", f"    {call}")
            yield from ("except Exception:", "    return []  # as `-` of bool does")
        else:
            yield call
        if self._differentiates:
            wanted = ", ".join(_NAMES[name] for name in case.differentiated)
            g = "g" if len(self.permitted["dtypes"]) == 1 else "g.to(result.dtype)"
            yield f"gradients = torch.autograd.grad(result, [{wanted}], {g}, allow_unused=True)"

    def _check(self) -> tuple[list[str], list[str]]:
        """What comes before the call, and what after it decides."""
        aspect = self.failure.aspect
        if self.failure.status != "fail":
            return [], ["return []"]
        operand = aspect.removeprefix("gradient.")
        if operand in _NAMES:
            return [], self._gradient(operand)
        if aspect == "value":
            return [], self._value()
        if aspect in ("purity.inputs", "purity.grad_output"):
            return self._unchanged(["g"] if aspect == "purity.grad_output" else ["x", "y"])
        if aspect == "purity.state":
            self.bundle.add("conformance.observer.state", "Settings")
            self.bundle.mention("now", "changes")
            return ["settings = Settings.now()"], [
                'return [f"a call changed {text}" for text in settings.changes()]'
            ]
        if aspect == "purity.attributes":
            self.bundle.add("conformance.observer.tensors", "form_of")
            state = "[(t.requires_grad, t.grad is None, form_of(t)) for t in (x, y)]"
            text = "a call changed requires_grad, .grad, memory, strides or dtype of an operand"
            return [f"before = {state}"], _unless(f"{state} == before", text)
        dtypes = ", ".join(f"torch.{d}" for d in self.permitted["dtypes"])
        storages = "{t.untyped_storage().data_ptr() for t in (x, y)} - {0}"
        right, text = {
            "value.tensor": (
                "isinstance(result, torch.Tensor) and result.layout == torch.strided "
                "and not result.is_complex()",
                "the result is no dense real tensor: {result}",
            ),
            "dtypes.result": (f"result.dtype in ({dtypes},)", "the result is {result.dtype}"),
            "gradient.unneeded": ("not result.requires_grad", "the result requires a gradient"),
            "purity.alias": (
                f"result.untyped_storage().data_ptr() not in {storages}",
                "the result shares memory with an operand",
            ),
        }[aspect]
        return [], _unless(right, text)

    def _value(self) -> list[str]:
        """Its shape, or the elements that are wrong; of each dtype that the result may have."""
        dtypes, elements = self.permitted["dtypes"], self.permitted["elements"]
        if not elements:
            shape = result_shape(self.case)
            return _unless(f"result.shape == {shape}", "the result has shape {tuple(result.shape)}")
        self.bundle.add(_COMMON, "compare")
        lines = []
        for dtype, ones in zip(dtypes, elements, strict=True):
            test = "" if len(dtypes) == 1 else f"if result.dtype == torch.{dtype}:"
            inside = _permitted(ones)
            lines += [test, *(f"    {line}" for line in inside)] if test else inside
        return [*lines, "return compare('result', result, permitted)"]

    def _gradient(self, operand: str) -> list[str]:
        """Whether there is one, of the right shape and dtype, or the elements that are wrong."""
        elements, wanted = self.permitted["elements"], getattr(self.case, operand)
        got = f"got = gradients[{self.case.differentiated.index(operand)}]"
        if not elements:
            right = f"(got.shape, got.dtype) == ({wanted.shape}, torch.{wanted.dtype})"
            text = f"gradient of {operand}: {{got if got is None else (got.shape, got.dtype)}}"
            return [got, *_unless(f"got is not None and {right}", text)]
        self.bundle.add(_COMMON, "compare")
        lines = [got, *_permitted(elements[0])]
        return [*lines, f"return compare('gradient of {operand}', got, permitted)"]

    def _unchanged(self, names: list[str]) -> tuple[list[str], list[str]]:
        self.bundle.add(_COMMON, "unchanged")
        tensors = ", ".join(
            f"({n!r}, {n}, {n}_memory)" for n in names[: 1 if self.case.same else 2]
        )
        return [
            f"tensors = [{tensors}]",
            "before = [(t._version, memory.clone()) for _, t, memory in tensors]",
        ], [
            "return [",
            '    f"a call changed the memory or the version counter of {name}"',
            "    for (name, t, memory), (version, bits) in zip(tensors, before)",
            "    if t._version != version or not unchanged(memory, bits)",
            "]",
        ]


def _by_its_name(target: Claimed, bundle: Bundle) -> list[str]:
    """Where its mean has another name: that it is called by that."""
    result = target.domain.result
    if result is None or result.mean == "mean":
        return []
    bundle.add(_KIT, "by_its_name")
    return [f"target.loss = by_its_name(target.loss, {result.mean!r})"]


def _earlier(operands: str, reduction: str) -> list[str]:
    return [
        "for _ in range(earlier):  # some losses remember what was there before",
        f"    target.loss({operands}, reduction={reduction!r})",
    ]


def _unless(right: str, text: str) -> list[str]:
    return [f"if {right}:", "    return []", f'return [f"{text}"]']


def _permitted(elements: list[Any]) -> list[str]:
    """A dictionary: the index of each of the first wrong elements, and what it may be."""
    lines = ["permitted = {  # for these elements: from … to …"]
    for at, intervals in elements:
        texts = ", ".join(f"({_literal(low)}, {_literal(high)})" for low, high in intervals)
        lines.append(f"    {tuple(at)}: [{texts}],")
    return [*lines, "}"]


def _listed(texts: list[str]) -> str:
    """A list of these, with runs of equal ones as ``[v]*n``."""
    parts: list[list[str]] = [[]]
    lists: list[str] = []
    for text, group in itertools.groupby(texts):
        n = len(list(group))
        if n < 4:
            parts[-1] += [text] * n
        else:
            lists += [f"[{', '.join(parts[-1])}]"] * bool(parts[-1]) + [f"[{text}]*{n}"]
            parts.append([])
    return " + ".join(lists + [f"[{', '.join(parts[-1])}]"] * bool(parts[-1]))


def _literal(v: float) -> str:
    """Exact: a short decimal where there is one, else hexadecimal."""
    v = float(v)
    if not math.isfinite(v) or len(repr(v)) <= 8:
        return repr(v)
    digits, exponent = v.hex().split("p")
    return f'h("{digits.rstrip("0").rstrip(".")}p{exponent}")'


def _whole(v: float) -> str:
    return str(int(v))


# -- an experiment -----------------------------------------------------------------------------


def _experiment(target: Claimed, failure: Failure, device: str, seed: int) -> str:
    bundle = Bundle(_INSTEAD, _RESERVED)
    clause = failure.aspect if failure.is_intermittent else failure.clause
    experiment = decorated(f"{_JUDGING}.experiments", "experiment", clause)
    bundle.add(*experiment)
    bundle.add(_ALONE, "first_message")
    bundle.add(_ALONE, "Observer")
    bundle.add(_BENCH, "Bench")
    protocols = _protocols(bundle)
    name, claims = bundle.name(*experiment), f"frozenset({sorted(target.claims)!r})"
    domain = "" if target.domain == FULL else f", domain={target.domain!r}"
    own = ("loss_of", "parameters", "function", "refused")
    rest = domain + "".join(f", {name}={getattr(target, name)!r}" for name in own)
    named = ", ".join(f"{known!r}: {bundle.name(*at)}" for known, at in protocols.items())
    options = f"dtype=torch.{failure.dtype}" + ("" if device == "cpu" else f", device={device!r}")
    statements = [
        *_by_its_name(target, bundle),
        f"claimed = Claimed({target.name!r}, {claims}, {target.reductions!r}, {target.dtypes!r}"
        f"{rest if target.loss_of != 'mse' else domain})",
        f"protocols = {{{named}}}",
        f"observer = Observer(Kit(target, {device!r}), claimed, protocols)",
        f"formula = {_formula(target, bundle)}",
        f"bench = Bench(observer, {failure.dtype!r}, {seed} + attempt, formula)",
        f"ones = torch.ones(5, {options})",
        *_earlier("ones, 0 * ones", target.reductions[0]),
        f"return first_message({name}(bench))",
    ]
    lines = [
        "def deviations(target, attempt, earlier):",
        f'    """The first message of {name}() on this target."""',
        *(f"    {line}" for statement in statements for line in _wrapped(statement)),
    ]
    first = [bundle.part(*place) for place in (experiment, *protocols.values())]
    modules = {part.module for part in first}
    first += [part for part in bundle.parts if part.module in modules and part not in first]
    quick = BY_ID[clause].profile == "quick"
    options = f"{FEW_ATTEMPTS}, histories=2" if quick else "1"
    return _assembled(target, failure, bundle, lines, f"{options}, unable=(Unavailable,)", first)


def _formula(target: Claimed, bundle: Bundle) -> str:
    """What the loss computes, in the form in which the target gives it."""
    place = f"reference.losses.{target.loss_of}", "FORMULA"
    bundle.add(*place)
    form = form_of(target.domain.result)
    if form == EVERYTHING:
        return bundle.name(*place)
    bundle.use("dataclasses")
    bundle.add("conformance.cases.domain", "Result")
    return f"dataclasses.replace({bundle.name(*place)}, form={form!r})"


def _protocols(bundle: Bundle) -> dict[str, tuple[str, str]]:
    """Add the protocols that are asked for; by name, where each is."""
    found: dict[str, tuple[str, str]] = {}
    while names := sorted(_asked(bundle) - found.keys()):
        for name in names:
            family, _, function = name.partition(".")
            found[name] = f"{_PROTOCOLS}.{family}", function
            bundle.add(*found[name], wanted=f"{family}_{function}")
    return found


def _asked(bundle: Bundle) -> set[str]:
    """The names of protocols in what is copied of the judge's half."""
    judging = [part for part in bundle.parts if part.module.startswith(_JUDGING)]
    return {name for part in judging for piece in part.pieces for name in protocols_in(piece)}


@functools.cache
def protocols_in(piece: ast.AST) -> frozenset[str]:
    """The names of protocols in a statement. Raises ValueError where one is put together."""
    found = set()
    inside = getattr(piece, "body", [piece])  # not the clause's id above a function
    for node in (inner for statement in inside for inner in ast.walk(statement)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            family, dot, function = node.value.partition(".")
            if dot and defines(f"{_PROTOCOLS}.{family}", function):
                found.add(node.value)
        elif isinstance(node, ast.JoinedStr) and ast.unparse(node)[2:].startswith(_families()):
            raise ValueError(f"a protocol's name is put together: {ast.unparse(node)}")
    return frozenset(found)


@functools.cache
def _families() -> tuple[str, ...]:
    """How the names of protocols begin, where something follows that is no part of the text."""
    return tuple(f"{family}.{{" for family in modules_of(_PROTOCOLS))


# -- both --------------------------------------------------------------------------------------


def _assembled(
    target: Claimed,
    failure: Failure,
    bundle: Bundle,
    demonstration: list[str],
    options: str,
    first: Sequence[Part] = (),
) -> str:
    """The whole script. What matters comes first, what all scripts have in common last."""
    own = list(bundle.parts)
    bundle.add(_COMMON, "run")
    common = [part for part in bundle.parts if part not in own]
    front = [part for part in first if not part.needs]
    options += f", seconds={SECONDS}" if failure.is_intermittent else ""
    options += ", apart=True" if failure.status == "crash" else ""
    end = [f"    sys.exit(run(deviations, LOSS, {options}))"]
    if failure.status == "timeout":
        bundle.use("faulthandler")
        end.insert(0, f"    faulthandler.dump_traceback_later({TIMEOUT}, exit=True)")
    set_up = []
    if os.environ.get("TRITON_INTERPRET") == "1":  # as in this run
        bundle.use("os")
        set_up = ['os.environ["TRITON_INTERPRET"] = "1"', ""]
    loss = _name_of(target, failure.clause)
    needed = bundle.texts(part for part in own if part not in front)
    lines = [
        *_header(target, failure, "numpy as np" in bundle.imports[""]),
        "",
        "from __future__ import annotations",
        "",
        *bundle.import_lines(),
        "",
        *set_up,
        f"LOSS = {loss!r}" + ("" if loss else "  # nothing that can be imported: name one"),
        'nan, inf, h = float("nan"), float("inf"), float.fromhex',
        *("", "", *demonstration),
        *_apart(bundle.texts(front)),
        *(("", "", "# -- what this takes", *_apart(needed)) if needed else ()),
        *("", "", "# -- finding the loss and reporting: the same in every script"),
        *_apart(bundle.texts(common)),
        *("", "", 'if __name__ == "__main__":', *end),
    ]
    return "\n".join(lines) + "\n"


def _apart(parts: list[str]) -> Iterator[str]:
    """Two empty lines around what is longer than a line."""
    long = True
    for part in parts:
        if long or "\n" in part:
            yield from ("", "")
        yield part
        long = "\n" in part


def _header(target: Claimed, failure: Failure, numpy: bool) -> Iterator[str]:
    sentence = BY_ID[failure.clause].sentence
    yield from _comment(f"{target.name} breaks {failure.clause} ({failure.dtype}): {sentence}")
    yield from _comment(failure.message)
    if failure.status == "crash":
        yield from _comment("The call ended its process: it is made in a child of this script's.")
    elif failure.status == "timeout":
        yield from _comment(f"The call did not return: the script ends itself after {TIMEOUT} s.")
    if failure.is_intermittent:
        text = f"It is wrong now and then: the script calls again and again, for up to {SECONDS} s "
        yield from _comment(f"{text}on a fresh loss, and as long on one that was called before.")
    yield "#"
    yield from _comment(
        "Exit status: 1 where the loss deviates, 0 where it does not, 2 where it cannot be had. "
        "To try another loss, name it: package.module:attribute or path/file.py:attribute. "
        f"It needs torch{', NumPy' if numpy else ''} and the loss."
    )


def _comment(text: str) -> Iterator[str]:
    """Comment lines, whatever characters the text has."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    yield from (f"# {line}" for line in textwrap.wrap(plain, WIDTH - 2))


def _wrapped(line: str) -> list[str]:
    """A long line, continued inside its brackets."""
    return textwrap.wrap(
        line,
        WIDTH - 4,
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _name_of(target: Claimed, clause: str) -> str:
    """Where the script finds the loss; empty where it has no name that can be imported."""
    if target.name == "builtin" and not target.source:  # torch's own needs nothing of the suite
        family = clause.partition(".")[0]
        loss = LOSSES[target.loss_of]
        return (
            f"torch.nn:{loss.module}"
            if family == "module"
            else f"torch.nn.functional:{loss.function}"
        )
    return target.script
