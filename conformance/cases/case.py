"""One generated input, as data: it says everything and holds no tensor.

A case is small, hashable and survives a round trip through JSON, so that it can be counted,
reported, saved before a risky call, and run again by ``loss-conformance replay``.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from dataclasses import dataclass
from typing import Any

from conformance.cases.domain import Result

FLOAT_DTYPES = ("float64", "float32", "float16", "bfloat16")
INTEGER_DTYPES = ("int64", "int32", "int16", "int8", "uint8", "bool")


@dataclass(frozen=True)
class Fill:
    """How the elements of an operand are made: a regime of ``values.py`` and its seed.

    ``table``: for the regime ``table``, the index of each element into the telling values.
    """

    regime: str = "ordinary"
    seed: int = 0
    table: tuple[int, ...] = ()


@dataclass(frozen=True)
class Operand:
    """A tensor to be made: shape, dtype, memory layout (see ``layouts.py``) and elements."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    layout: str = "contiguous"
    fill: Fill = Fill()

    @functools.cached_property
    def size(self) -> int:
        return math.prod(self.shape)

    def replace(self, **changes: Any) -> Operand:
        own = {name: getattr(self, name) for name in ("shape", "dtype", "layout", "fill")}
        return Operand(**own | changes)

    def __hash__(self) -> int:
        return self._hash

    @functools.cached_property
    def _hash(self) -> int:
        return hash((self.shape, self.dtype, self.layout, self.fill))


@dataclass(frozen=True)
class Case:
    """One call of the loss, and of its gradient.

    ``grad_output``: shape () for sum and mean, the broadcast shape for none; its dtype is that of
    the result. ``needs``: whether input and target require a gradient. ``same``: the target is the
    very tensor that is the input. ``mode``: ``grad``, or the loss is called under ``no_grad`` or in
    ``inference`` mode (and nothing is differentiated). ``loss``: the name of its specification;
    ``parameters``: those that the call passes, by name. ``result``: the form of what is returned,
    where that is not the builtin's.
    """

    input: Operand
    target: Operand
    reduction: str = "mean"
    grad_output: Operand = Operand((), fill=Fill("one"))
    needs: tuple[bool, bool] = (True, True)
    same: bool = False
    mode: str = "grad"
    loss: str = "mse"
    parameters: tuple[tuple[str, float], ...] = ()
    result: Result | None = None

    @functools.cached_property
    def differentiated(self) -> tuple[str, ...]:
        """The names of the operands whose gradient is asked for."""
        if self.mode != "grad":
            return ()
        x, y = self.needs
        names = (*(("input",) if x else ()), *(("target",) if y else ()))
        return names[:1] if self.same else names

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """The broadcast shape."""
        return broadcast(self.input.shape, self.target.shape)

    @functools.cached_property
    def dtype(self) -> str:
        """The promoted dtype (``torch.promote_types``, the operands' dimensions apart)."""
        return promote(self.input.dtype, self.target.dtype)

    def replace(self, **changes: Any) -> Case:
        return dataclasses.replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        own: dict[str, Any] = {} if self.loss == "mse" else {"loss": self.loss}
        if self.parameters:
            own["parameters"] = {name: repr(value) for name, value in self.parameters}
        if self.result:
            own["result"] = self.result.to_json()
        return {
            "input": _operand_json(self.input),
            "target": _operand_json(self.target),
            "reduction": self.reduction,
            "grad_output": _operand_json(self.grad_output),
            "needs": list(self.needs),
            "same": self.same,
            "mode": self.mode,
            **own,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Case:
        """The inverse of :meth:`to_json`. Raises ValueError where ``data`` is no case."""
        try:
            operands = {k: _operand(data[k]) for k in ("input", "target", "grad_output")}
            needs = (bool(data["needs"][0]), bool(data["needs"][1]))
            return cls(
                reduction=str(data["reduction"]),
                needs=needs,
                same=bool(data["same"]),
                mode=str(data["mode"]),
                loss=str(data.get("loss", "mse")),
                parameters=tuple((k, float(v)) for k, v in data.get("parameters", {}).items()),
                result=Result.from_json(data["result"]) if "result" in data else None,
                **operands,
            )
        except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
            raise ValueError(f"not a case: {error!r}") from error

    def __hash__(self) -> int:
        return hash(self._key)  # a text remembers its own

    def key(self) -> str:
        """A canonical text, JSON of :meth:`to_json`: equal cases have equal keys."""
        return self._key

    @functools.cached_property
    def _key(self) -> str:
        operands = (self.grad_output, self.input, self.target)
        g, x, y = (_operand_text(operand) for operand in operands)
        mode, needs = _quoted(self.mode), ",".join(map(_TRUTH.__getitem__, self.needs))
        loss = "" if self.loss == "mse" else f'"loss":{_quoted(self.loss)},'
        values = ",".join(f"{_quoted(k)}:{_quoted(repr(v))}" for k, v in sorted(self.parameters))
        values = f'"parameters":{{{values}}},' if values else ""
        form = f'"result":{_plain_text(self.result)},' if self.result else ""
        return (
            f'{{"grad_output":{g},"input":{x},{loss}"mode":{mode},"needs":[{needs}],{values}'
            f'"reduction":{_quoted(self.reduction)},{form}"same":{_TRUTH[self.same]},"target":{y}}}'
        )

    def __str__(self) -> str:
        parts = [f"reduction={self.reduction!r}", *(f"{k}={v!r}" for k, v in self.parameters)]
        parts.append(f"input {describe(self.input)}")
        parts.append("target is input" if self.same else f"target {describe(self.target)}")
        if self.differentiated:
            parts.append(f"grad_output {describe(self.grad_output)}")
            parts.append(f"gradient of {' and '.join(self.differentiated)}")
        else:
            parts.append("no gradient" if self.mode == "grad" else f"mode {self.mode}")
        return ", ".join(parts)


_quoted = json.encoder.encode_basestring_ascii
_TRUTH = {False: "false", True: "true"}


def _plain_text(result: Result) -> str:
    return json.dumps(result.to_json(), separators=(",", ":"), sort_keys=True)


def _operand_text(operand: Operand) -> str:
    """As JSON writes :func:`_operand_json`, keys in order; it takes a fifth of the time."""
    fill = operand.fill
    return (
        f'{{"dtype":{_quoted(operand.dtype)},"fill":{{"regime":{_quoted(fill.regime)},'
        f'"seed":{fill.seed},"table":[{",".join(map(str, fill.table))}]}},'
        f'"layout":{_quoted(operand.layout)},"shape":[{",".join(map(str, operand.shape))}]}}'
    )


def describe(operand: Operand) -> str:
    """``float32[3, 4] transposed, huge#2``."""
    shape = ", ".join(map(str, operand.shape))
    layout = "" if operand.layout == "contiguous" else f" {operand.layout}"
    return f"{operand.dtype}[{shape}]{layout} {operand.fill.regime}#{operand.fill.seed}"


def cost(case: Case) -> tuple[int, int, str]:
    """The order of simplicity in which counterexamples are preferred."""
    operands = (case.input, case.target, case.grad_output)
    odd = sum(o.layout != "contiguous" for o in operands)
    odd += sum(o.fill.regime not in ("ordinary", "one") for o in operands)
    odd += case.input.dtype != case.target.dtype
    odd += len(case.parameters)
    size = math.prod(case.shape) + sum(len(o.shape) for o in operands)
    return (size, odd, case.key())


def broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that both broadcast to. Raises ValueError where there is none."""
    if a == b:
        return a
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    padded = (*(1,) * (len(longer) - len(shorter)), *shorter)
    if any(n != m and 1 not in (n, m) for n, m in zip(longer, padded, strict=True)):
        raise ValueError(f"{a} and {b} do not broadcast")
    return tuple(m if n == 1 else n for n, m in zip(longer, padded, strict=True))


def promote(a: str, b: str) -> str:
    """``torch.promote_types`` on the names that cases use, for pairs with a floating dtype."""
    if a == b:
        return a
    floating = [d for d in (a, b) if d in FLOAT_DTYPES]
    if len(floating) < 2:
        return floating[0] if floating else "int64"
    if set(floating) == {"float16", "bfloat16"}:
        return "float32"
    return min(floating, key=FLOAT_DTYPES.index)


def _operand_json(operand: Operand) -> dict[str, Any]:
    fill = operand.fill
    return {
        "shape": list(operand.shape),
        "dtype": operand.dtype,
        "layout": operand.layout,
        "fill": {"regime": fill.regime, "seed": fill.seed, "table": list(fill.table)},
    }


def _operand(data: dict[str, Any]) -> Operand:
    fill = data["fill"]
    return Operand(
        shape=tuple(int(n) for n in data["shape"]),
        dtype=str(data["dtype"]),
        layout=str(data["layout"]),
        fill=Fill(str(fill["regime"]), int(fill["seed"]), tuple(int(i) for i in fill["table"])),
    )
