"""What the sources tell of the bank is what it holds; its files stay of a size that can be read."""

from __future__ import annotations

import importlib
import re
from typing import Any

from tests.bank import BANK, defects, right_ones
from tests.mutants import CUDA_MUTANTS, LENIENT, MUTANTS, Mutant
from tests.right import RIGHT


def held(file: str) -> tuple[Mutant, ...]:
    """The mutants of the one tuple that a file of the bank fills."""
    module: Any = importlib.import_module(f"tests.mutants.{file}")
    source = (BANK / f"{file}.py").read_text(encoding="utf-8")
    (name,) = re.findall(r"^([A-Z_]+): tuple\[Mutant, \.\.\.\] = ", source, re.MULTILINE)
    found: tuple[Mutant, ...] = getattr(module, name)
    return found


def test_each_defect_has_as_many_mutants_as_are_told() -> None:
    for defect in defects():
        mutants = held(defect.file)
        assert defect.mutants == len(mutants), defect.file
        assert {*defect.families} == {f for m in mutants for f in m.families}, defect.file
        assert defect.about.endswith("."), defect.file


def test_no_mutant_is_left_out() -> None:
    every = [*MUTANTS, *CUDA_MUTANTS, *LENIENT]
    alone = 1  # of the domain's lenient ones, which has no tuple
    assert sum(defect.mutants for defect in defects()) == len(every) - alone
    assert right_ones() == len(RIGHT)


def test_no_file_of_mutants_passes_400_lines() -> None:
    sources = {d.file: (BANK / f"{d.file}.py").read_text(encoding="utf-8") for d in defects()}
    assert not [file for file, source in sources.items() if len(source.splitlines()) > 400]
