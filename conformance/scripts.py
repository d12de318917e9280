"""A script for each failure that runs by itself: torch and the target, nothing of the suite."""

from __future__ import annotations

from pathlib import Path

from conformance.attribution import Finding
from conformance.case import Case, Operand
from conformance.layouts import place
from conformance.values import elements, in_buffer
from targets import Target

LIMIT = 4096  # elements: larger operands are not written out

_IMPORT = {
    "builtin": "loss = torch.nn.functional.mse_loss",
}


def script(target: Target, finding: Finding, device: str, seed: int) -> str:
    """The source of a script that shows the deviation; empty where there is no case to show.

    An experiment is several calls: its script runs it again, and so needs the suite.
    """
    case = finding.case
    if case is None:
        return _experiment(target, finding, device, seed)
    if max(case.input.size, case.target.size) > LIMIT:
        return ""
    lines = [
        f"# {target.name} breaks {finding.clause} ({finding.dtype}).",
        f"# {finding.message}",
        "import torch",
        "",
        "nan, inf = float('nan'), float('inf')",
        *_import_lines(target),
        *_operand_lines("x", case.input, case.needs[0]),
    ]
    if case.same:
        lines.append("y = x")
    else:
        lines += _operand_lines("y", case.target, case.needs[1])
    how = getattr(target.loss, "script", "loss(x, y, reduction={reduction!r})")
    call = f"result = {how.format(reduction=case.reduction)}"
    mode = {"no_grad": "torch.no_grad()", "inference": "torch.inference_mode()"}.get(case.mode)
    lines += [f"with {mode}:", f"    {call}"] if mode else [call]
    lines.append("print('result', result)")
    lines += _backward_lines(case)
    return "\n".join(lines) + "\n"


def _experiment(target: Target, finding: Finding, device: str, seed: int) -> str:
    if finding.status == "unavailable":
        return ""
    spec = target.source or target.name
    bench = f"Bench(resolve({spec!r}), {finding.dtype!r}, {device!r}, {seed})"
    return "\n".join(
        [
            f"# {target.name} breaks {finding.clause} ({finding.dtype}).",
            f"# {finding.message}",
            "from conformance.experiments import Bench, run_experiment",
            "from targets import resolve",
            "",
            f"print(*run_experiment({finding.clause!r}, {bench}))",
            "",
        ]
    )


def _import_lines(target: Target) -> list[str]:
    path, _, attribute = target.source.rpartition(":")
    if path.endswith(".py"):
        file = Path(path).resolve()
        first, *rest = attribute.split(".")
        return [
            "import runpy, sys",
            f"sys.path.insert(0, {str(file.parent)!r})",
            f"loss = {'.'.join([f'runpy.run_path({str(file)!r})[{first!r}]', *rest])}",
            "loss = loss.loss if type(loss).__name__ == 'Target' else loss",
        ]
    module = path or getattr(target.loss, "__module__", "")
    name = attribute or getattr(target.loss, "__qualname__", "")
    if target.name in _IMPORT or not module or "<" in name:
        return [_IMPORT.get(target.name, f"loss = ...  # {target.name}: {module}")]
    head, *rest = name.split(".")
    call = ".".join(["loss", *rest])
    found = [f"from {module} import {head} as loss"]
    return found if not rest else [*found, f"loss = {call}"]


def _operand_lines(name: str, operand: Operand, needs: bool) -> list[str]:
    spot = place(operand.layout, operand.shape)
    line = in_buffer(elements(operand), operand.layout)[0]
    held = ", ".join(_literal(v, operand) for v in line.tolist()[: spot.length - 60])
    made = f"torch.tensor([{held}], dtype=torch.{operand.dtype})"
    view = f".as_strided({operand.shape}, {spot.strides}, {spot.offset})"
    return [f"{name} = {made}{view}" + (".requires_grad_()" if needs else "")]


def _literal(v: float, operand: Operand) -> str:
    if operand.dtype in ("float64", "float32", "float16", "bfloat16"):
        if v != v or v in (float("inf"), float("-inf")):
            return str(v)
        return repr(v) if v == int(v) and abs(v) < 1e6 else f"float.fromhex({v.hex()!r})"
    return "0" if v != v else str(int(v))


def _backward_lines(case: Case) -> list[str]:
    wanted = [{"input": "x", "target": "y"}[name] for name in case.differentiated]
    if not wanted:
        return []
    g = case.grad_output.replace(dtype=case.dtype)
    names = ", ".join(wanted)
    return [
        *_operand_lines("g", g, False),
        f"print(torch.autograd.grad(result, [{names}], g.to(result.dtype), allow_unused=True))",
    ]
