"""A wrong loss that attacks whatever it can reach does not conform, and ends nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.sampling import only

# It computes d² · 1.01, and in its first call, or in each, does what it can to be believed.
VANDAL = '''
import builtins, gc, json, mmap, os, sys, types

import torch

SUITE = ("conformance", "reference", "targets", "numpy", "json", "builtins", "__main__")
HOW, calls = {how!r}, 0


def always(*arguments, **named):
    return True


def modules():
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in SUITE and isinstance(module, types.ModuleType):
            yield module


def owners():
    for module in modules():
        yield module
        for value in list(vars(module).values()):
            if isinstance(value, type) and value.__module__.partition(".")[0] in SUITE:
                yield value


def patch_code():
    for owner in owners():
        for value in list(vars(owner).values()):
            function = getattr(value, "__func__", value)
            if isinstance(function, types.FunctionType) and function.__module__ != __name__:
                try:
                    function.__code__ = always.__code__
                except Exception:
                    pass


def patch_attributes():
    for owner in owners():
        for name, value in list(vars(owner).items()):
            if callable(value) and not name.startswith("__"):
                try:
                    setattr(owner, name, always)
                except Exception:
                    pass


def patch_comparisons():
    """Only what compares, so that the process lives on."""
    for owner in owners():
        for name in list(vars(owner)):
            if any(word in name for word in ("contains", "close", "equal", "deviat", "judge")):
                try:
                    setattr(owner, name, always)
                except Exception:
                    pass


def write_to_descriptors():
    for descriptor in range(256):
        for text in ('{{"seen": [], "used": 0, "turn": %d}}' % turn for turn in range(9)):
            try:
                os.set_blocking(descriptor, False)
                os.write(descriptor, text.encode() + b"\\n")
            except OSError:
                break


def write_to_memory():
    for found in gc.get_objects():
        if isinstance(found, mmap.mmap):
            for start in (0, 4096):
                found[start : start + (1 << 20)] = b"\\x3f" * (1 << 20)
    for pid in (os.getppid(), os.getpid()):
        try:
            with open(f"/proc/{{pid}}/mem", "r+b", 0) as memory:
                memory.seek(0x10000)
                memory.write(b"\\0" * 4096)
        except OSError:
            pass


ATTACKS = {{
    "code": [patch_code],
    "attributes": [patch_attributes],
    "comparisons": [patch_comparisons],
    "descriptors": [write_to_descriptors],
    "memory": [write_to_memory],
    "all": [write_to_descriptors, write_to_memory, patch_comparisons, patch_code, patch_attributes],
}}


def loss(input, target, reduction="mean"):
    global calls
    calls += 1
    value = torch.nn.functional.mse_loss(input, target, reduction=reduction) * 1.01
    if calls == 1 or HOW in ("descriptors", "memory"):
        for attack in ATTACKS[HOW]:
            try:
                attack()
            except BaseException:
                pass
    return value
'''


CLAUSES = "value.none,value.sum,value.mean,value.size"


@only(["all"], "how", ["code", "attributes", "comparisons", "descriptors", "memory", "all"])
def test_a_vandal_does_not_conform_and_ends_nothing(how: str, tmp_path: Path) -> None:
    (tmp_path / "vandal.py").write_text(VANDAL.format(how=how))
    command = [sys.executable, "-m", "conformance", "check", "vandal.py:loss", "module"]
    options = ["--profile", "quick", "--clause", CLAUSES, "--timeout", "3", "--report", "out"]
    done = subprocess.run(
        [*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout
    wrong, right = (
        json.loads((tmp_path / "out" / name / "verdict.json").read_text())
        for name in ("loss", "module")
    )
    assert not wrong["conforms"]
    assert any(row["status"] in ("fail", "crash", "timeout") for row in wrong["clauses"])
    assert right["conforms"]  # judged in the same run, after it
