"""A script for each failure that runs by itself: torch and the target, nothing of the suite.

It exits with 1 where the loss deviates and with 0 where it does not, so that it goes into a bug
report as it is. A failure with a case becomes its tensors, written out, and the one check that
failed; an experiment is copied with all that it needs (bundle.py).
"""

from __future__ import annotations

import itertools
import math
import os
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from conformance.cases.case import Case, Operand
from conformance.cases.layouts import place
from conformance.cases.values import FORMAT_OF, INTEGER_GUARD, REGIMES, elements, in_buffer
from conformance.clauses import BY_ID
from conformance.judging.attribution import Finding
from conformance.judging.oracle import permitted_gradient, permitted_value, result_dtypes
from conformance.report.bundle import Bundle
from reference.enclosure import NAN, NEG_INF, POS_INF, VOID, PermittedSet
from targets import Target

WRITTEN_OUT = 48  # numbers, or runs of equal ones: beyond, an operand is made as the suite makes it
LARGE = 4096  # elements
SHOWN = 8  # wrong elements whose permitted sets a script holds
ATTEMPTS = 20  # some losses are right for the first ten calls on a shape, or most of the time
FEW_ATTEMPTS = 3  # where the operands are large, and of an experiment, which is many calls
TIMEOUT = 60  # seconds after which the script of a call that does not return ends itself
WIDTH = 96

_COMMON, _VALUES, _FORMATS = (
    "conformance.report.standalone",
    "conformance.cases.values",
    "reference.formats",
)
_NAMES = {"input": "x", "target": "y"}
_MODES = {"no_grad": "torch.no_grad()", "inference": "torch.inference_mode()"}


def script(target: Target, finding: Finding, device: str, seed: int) -> str:
    """The source of a script that shows the deviation; empty where nothing failed."""
    if finding.status == "unavailable":
        return ""
    if finding.case is None:
        return _experiment(target, finding, device, seed)
    return _CaseScript(target, finding, finding.case, device).source()


# -- one call ----------------------------------------------------------------------------------


@dataclass
class _CaseScript:
    """The script of a finding with a case."""

    target: Target
    finding: Finding
    case: Case
    device: str
    bundle: Bundle = field(default_factory=Bundle)

    def source(self) -> str:
        before, after = self._check()
        body = [*self._tensors(), *self._earlier(), *before, *self._calls(), *after]
        sizes = (math.prod(self.case.shape), self.case.input.size, self.case.target.size)
        attempts = FEW_ATTEMPTS if max(sizes) > LARGE else ATTEMPTS
        lines = [
            "def deviations(target, attempt, earlier):",
            '    """What is not as it must be, after so many earlier calls."""',
            *(f"    {line}" for line in body),
        ]
        options = f"{attempts}, histories={2 if self._has_history else 1}"
        return _assembled(self.target, self.finding, self.bundle, lines, options)

    def _tensors(self) -> Iterator[str]:
        case = self.case
        yield "# Around each tensor and in its gaps lies NaN: who reads or writes there is seen."
        yield from self._operand("x", case.input, case.needs[0])
        if case.same:
            yield "y = x"
        else:
            yield from self._operand("y", case.target, case.needs[1])
        if self._differentiates:
            yield from self._operand("g", case.grad_output.replace(dtype=case.dtype))

    @property
    def _differentiates(self) -> bool:
        """Whether the case asks for a gradient and the check looks at it."""
        of_result = self.finding.aspect.startswith(("value", "dtypes"))
        return bool(self.case.differentiated) and not (of_result and self.finding.status == "fail")

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
            other = "torch.ones_like(x), torch.zeros_like(y)"
            yield "for _ in range(earlier):  # some losses remember what was there before"
            yield f"    target.loss({other}, reduction={self.case.reduction!r})"

    def _calls(self) -> Iterator[str]:
        """The loss, and its gradient."""
        case = self.case
        call = f"result = target.loss(x, y, reduction={case.reduction!r})"
        mode = _MODES.get(case.mode)
        lines = [f"with {mode}:", f"    {call}"] if mode else [call]
        if "bool" in (case.input.dtype, case.target.dtype):
            yield "try:"
            yield from (f"    {line}" for line in lines)
            yield from ("except Exception:", "    return []  # as `-` of bool does")
        else:
            yield from lines
        if self._differentiates:
            wanted = ", ".join(_NAMES[name] for name in case.differentiated)
            g = "g" if len(result_dtypes(case)) == 1 else "g.to(result.dtype)"
            yield f"gradients = torch.autograd.grad(result, [{wanted}], {g}, allow_unused=True)"

    def _check(self) -> tuple[list[str], list[str]]:
        """What comes before the call, and what after it decides."""
        aspect = self.finding.aspect
        if self.finding.status != "fail":
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
            return ["settings = Settings.now()"], [
                'return [f"a call changed {text}" for text in settings.changes()]'
            ]
        if aspect == "purity.attributes":
            self.bundle.add("conformance.observer.tensors", "form_of")
            state = "[(t.requires_grad, t.grad is None, form_of(t)) for t in (x, y)]"
            text = "a call changed requires_grad, .grad, memory, strides or dtype of an operand"
            return [f"before = {state}"], _unless(f"{state} == before", text)
        dtypes = ", ".join(f"torch.{d}" for d in result_dtypes(self.case))
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
        where, dtypes = self.finding.where, result_dtypes(self.case)
        if where is None:
            shape = self.case.shape if self.case.reduction == "none" else ()
            return _unless(f"result.shape == {shape}", "the result has shape {tuple(result.shape)}")
        self.bundle.add(_COMMON, "compare")
        lines = []
        for dtype in dtypes:
            test = "" if len(dtypes) == 1 else f"if result.dtype == torch.{dtype}:"
            inside = _permitted([permitted_value(self.case, dtype)], where.shape, where.wrong)
            lines += [test, *(f"    {line}" for line in inside)] if test else inside
        return [*lines, "return compare('result', result, permitted)"]

    def _gradient(self, operand: str) -> list[str]:
        """Whether there is one, of the right shape and dtype, or the elements that are wrong."""
        where, wanted = self.finding.where, getattr(self.case, operand)
        got = f"got = gradients[{self.case.differentiated.index(operand)}]"
        if where is None:
            right = f"(got.shape, got.dtype) == ({wanted.shape}, torch.{wanted.dtype})"
            text = f"gradient of {operand}: {{got if got is None else (got.shape, got.dtype)}}"
            return [got, *_unless(f"got is not None and {right}", text)]
        self.bundle.add(_COMMON, "compare")
        sets = [permitted_gradient(self.case, d, operand) for d in result_dtypes(self.case)]
        lines = [got, *_permitted(sets, where.shape, where.wrong)]
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


def _unless(right: str, text: str) -> list[str]:
    return [f"if {right}:", "    return []", f'return [f"{text}"]']


def _permitted(
    sets: list[PermittedSet], shape: tuple[int, ...], wrong: tuple[int, ...]
) -> list[str]:
    """A dictionary: the index of each of the first wrong elements, and what it may be."""
    lines = ["permitted = {  # for these elements: from … to …"]
    for flat in wrong[:SHOWN]:
        at = tuple(int(i) for i in np.unravel_index(flat, shape)) if shape else ()
        intervals = dict.fromkeys(text for one in sets for text in _intervals(one, at))
        lines.append(f"    {at}: [{', '.join(intervals)}],")
    return [*lines, "}"]


def _intervals(permitted: PermittedSet, at: tuple[int, ...]) -> Iterator[str]:
    flags = 0 if permitted.flags is None else int(permitted.flags[at])
    if not flags & VOID:
        yield f"({_literal(permitted.lower[at])}, {_literal(permitted.upper[at])})"
    for bit, name in ((NAN, "nan"), (POS_INF, "inf"), (NEG_INF, "-inf")):
        if flags & bit:
            yield f"({name}, {name})"


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


def _experiment(target: Target, finding: Finding, device: str, seed: int) -> str:
    from conformance.observer.protocols import EXPERIMENTS

    function, bundle = EXPERIMENTS[finding.clause], Bundle()
    name = function.__name__
    bundle.add(function.__module__, name)
    bundle.add("conformance.observer.protocols.bench", "Bench")
    bundle.use("itertools")
    claims = f"frozenset({sorted(target.claims)!r})"
    lines = [
        "def deviations(target, attempt, earlier):",
        f'    """The first message of {name}() on this target."""',
        *(f"    {line}" for line in _wrapped(f"target.claims = {claims}")),
        f"    target.reductions = {target.reductions!r}",
        f"    target.dtypes = {target.dtypes!r}",
        f"    bench = Bench(target, {finding.dtype!r}, {device!r}, {seed} + attempt)",
        "    for _ in range(earlier):  # some losses remember what was there before",
        "        bench.loss(bench.tensor((5,), 0), bench.tensor((5,), 1), bench.reductions[0])",
        f"    return itertools.islice({name}(bench), 1)",
        "",
        "",
        bundle.parts.pop(0),  # the experiment itself
    ]
    quick = BY_ID[finding.clause].profile == "quick"
    options = f"{FEW_ATTEMPTS}, histories=2" if quick else "1"
    unable = ", unable=(Unavailable,)" if bundle.has("Unavailable") else ""
    return _assembled(target, finding, bundle, lines, f"{options}{unable}")


# -- both --------------------------------------------------------------------------------------


def _assembled(
    target: Target, finding: Finding, bundle: Bundle, demonstration: list[str], options: str
) -> str:
    """The whole script. What matters comes first, what all scripts have in common last."""
    needed = len(bundle.parts)
    bundle.add(_COMMON, "run")
    end = [f"    sys.exit(run(deviations, LOSS, {options}))"]
    if finding.status == "timeout":
        bundle.use("faulthandler")
        end.insert(0, f"    faulthandler.dump_traceback_later({TIMEOUT}, exit=True)")
    own = [*bundle.parts[:needed], *bundle.namespaces()]
    set_up = []
    if os.environ.get("TRITON_INTERPRET") == "1":  # as in this run
        bundle.use("os")
        set_up = ['os.environ["TRITON_INTERPRET"] = "1"', ""]
    loss = _name_of(target, finding.clause)
    lines = [
        *_header(target, finding, "numpy as np" in bundle.imports[""]),
        "",
        "from __future__ import annotations",
        "",
        *bundle.import_lines(),
        "",
        *set_up,
        f"LOSS = {loss!r}" + ("" if loss else "  # nothing that can be imported: name one"),
        'nan, inf, h = float("nan"), float("inf"), float.fromhex',
        *("", "", *demonstration),
        *(("", "", "# -- what this takes", *_apart(own)) if own else ()),
        *("", "", "# -- finding the loss and reporting: the same in every script"),
        *_apart(bundle.parts[needed:]),
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


def _header(target: Target, finding: Finding, numpy: bool) -> Iterator[str]:
    sentence = BY_ID[finding.clause].sentence
    yield from _comment(f"{target.name} breaks {finding.clause} ({finding.dtype}): {sentence}")
    yield from _comment(finding.message)
    if finding.status == "crash":
        yield from _comment("The call ended its process: so it will end this script.")
    elif finding.status == "timeout":
        yield from _comment(f"The call did not return: the script ends itself after {TIMEOUT} s.")
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


def _name_of(target: Target, clause: str) -> str:
    """Where the script finds the loss; empty where it has no name that can be imported."""
    if target.name == "builtin" and not target.source:
        return (
            "torch.nn:MSELoss" if clause.startswith("module.") else "torch.nn.functional:mse_loss"
        )
    path, _, attribute = target.source.rpartition(":")
    if target.source.endswith(".py"):
        return str(Path(target.source).resolve())
    if target.source:
        return f"{Path(path).resolve()}:{attribute}" if path.endswith(".py") else target.source
    for name, module in list(sys.modules.items()):
        if name.startswith("targets."):  # one that comes with the project
            for attribute, value in list(vars(module).items()):
                if value is target:
                    return f"{name}:{attribute}"
    home = getattr(target.loss, "__module__", "")
    own_name = getattr(target.loss, "__qualname__", "<none>")
    return "" if "<" in own_name or home in ("", "__main__") else f"{home}:{own_name}"
