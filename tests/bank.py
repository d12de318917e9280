"""The bank as its sources tell it, for the table in the docs: read, and never imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from conformance.clauses import CLAUSES

BANK = Path(__file__).parent / "mutants"
RIGHT = Path(__file__).parent / "right"
TUPLES = ("tuple[Mutant, ...]", "tuple[Target, ...]")
FAMILIES = tuple(dict.fromkeys(clause.family for clause in CLAUSES))


@dataclass(frozen=True)
class Defect:
    """The mutants of one file: what is wrong, and the families that should reject them."""

    file: str
    about: str
    mutants: int
    families: tuple[str, ...]


def defects() -> list[Defect]:
    """One for each file of the bank that has a tuple of mutants, in the order of the bank."""
    trees = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in BANK.glob("*.py")}
    helpers = {f.name: f for t in trees.values() for f in t.body if isinstance(f, ast.FunctionDef)}
    found = {}
    for stem, tree in trees.items():
        for name, entries in _tuples(tree):
            families = {f for entry in entries for f in _families(entry, helpers)}
            ordered = tuple(f for f in FAMILIES if f in families)
            about = (ast.get_docstring(tree) or "").partition("\n")[0]
            found[name] = Defect(stem, about, len(entries), ordered)
    return [found.pop(name) for name in _order(trees["__init__"]) if name in found] + [
        found[name] for name in sorted(found)
    ]


def _tuples(tree: ast.Module) -> Iterator[tuple[str, list[ast.expr]]]:
    """The names and entries of the tuples of mutants or right ones that a file fills itself."""
    for node in tree.body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        if not isinstance(node.value, ast.Tuple):
            continue  # made from one source, as those of other losses are
        entries = node.value.elts
        whole = not any(isinstance(entry, ast.Starred) for entry in entries)
        if whole and ast.unparse(node.annotation) in TUPLES:
            yield node.target.id, entries


def _order(init: ast.Module) -> list[str]:
    """The names of the tuples, as MUTANTS puts one after the other."""
    starred = (node.value for node in ast.walk(init) if isinstance(node, ast.Starred))
    return [value.id for value in starred if isinstance(value, ast.Name)]


def _families(entry: ast.expr, helpers: dict[str, ast.FunctionDef]) -> set[str]:
    """Those that an entry names, or else the function that makes the mutant."""
    named = _named(entry)
    if named or not isinstance(entry, ast.Call):
        return named
    called = [entry.func, *(a.func for a in entry.args if isinstance(a, ast.Call))]
    makers = [helpers[f.id] for f in called if isinstance(f, ast.Name) and f.id in helpers]
    return {family for maker in makers for family in _named(maker)}


def _named(node: ast.AST) -> set[str]:
    texts = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
    return {family for family in FAMILIES if family in texts}


def right_ones() -> int:
    """How many right implementations there are."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in RIGHT.glob("*.py"))
    return sum(len(entries) for tree in trees for _, entries in _tuples(tree))
