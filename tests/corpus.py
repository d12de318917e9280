"""The bank as kernels: each mutant, right one and forger in a file of its own, with its truth.

``python -m tests corpus DIR`` writes them, a table of them, and ``DIR/truth.jsonl``. A file holds
the statements that its loss is made of, as they stand in the bank, and nothing of the suite: what a
stranger would hand in.
"""

from __future__ import annotations

import ast
import functools
import importlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.forgeries import FORGERS
from tests.mutants import LENIENT, MUTANTS
from tests.right import RIGHT

HOME = Path(__file__).parent
TABLE, TRUTH = "kernels.jsonl", "truth.jsonl"
# What makes a mutant is made anew: its families and its witness are not the kernel's to know.
MAKERS = {
    "mutant": (
        "def mutant(\n"
        "    name, loss, *told, claims=EAGER, reductions=REDUCTIONS, dtypes=DTYPES, **more\n"
        "):\n"
        "    return Target(name, loss, claims, reductions, dtypes)"
    ),
    "Mutant": "def Mutant(target, *told, **more):\n    return target",
}
OPERATORS = ("torch.ops.", "custom_op(")
EFFECTS = (ast.Expr, ast.For, ast.With, ast.If, ast.AugAssign)
LEFT_OUT = ("witness", "witnesses")  # keywords of what makes one


@dataclass(frozen=True)
class Sample:
    """``kind``: mutant, lenient, right or forger. Of these, lenient and right ones conform."""

    name: str
    kind: str
    text: str

    @property
    def correct(self) -> bool:
        return self.kind in ("lenient", "right")


def samples() -> Iterator[Sample]:
    """Each whose text can stand alone: not where two of its statements have one name, nor where it
    makes or calls an operator, which is registered by its module as a whole."""
    for kind, package, names in (
        ("mutant", "mutants", [m.target.name for m in MUTANTS]),
        ("lenient", "mutants", [m.target.name for m in LENIENT]),
        ("right", "right", [t.name for t in RIGHT]),
        ("forger", "forgers", [f.name for f in FORGERS]),
    ):
        for name in names:
            try:
                text = written(package, name)
                compile(text, name, "exec")
            except LookupError:
                continue
            if any(word in text for word in OPERATORS):
                continue
            yield Sample(f"{kind}-{name}", kind, text)


def write(folder: Path, chosen: Iterable[Sample]) -> int:
    """The files, the same as one table, and what is true of them; how many these are."""
    (folder / "kernels").mkdir(parents=True, exist_ok=True)
    count = 0
    with (folder / TABLE).open("w") as table, (folder / TRUTH).open("w") as truth:
        for sample in chosen:
            (folder / "kernels" / f"{sample.name}.py").write_text(sample.text, encoding="utf-8")
            # By its name: to import one of the suite's own targets is to register that.
            kernel = {"name": sample.name, "source": sample.text, "attribute": "loss"}
            line = {"name": sample.name, "kind": sample.kind, "correct": int(sample.correct)}
            table.write(json.dumps(kernel) + "\n")
            truth.write(json.dumps(line) + "\n")
            count += 1
    return count


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        raise SystemExit("usage: python -m tests corpus DIR")
    print(f"{write(Path(arguments[0]), samples())} kernels in {arguments[0]}")
    return 0


# -- one text --------------------------------------------------------------------------------------


@dataclass
class Module:
    """The source of a module of the bank, and which statement binds each of its names."""

    name: str
    source: str
    body: list[ast.stmt]
    bound: dict[str, ast.stmt] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in self.body:
            for name in _binds(node):
                self.bound.setdefault(name, node)

    def text(self, node: ast.stmt) -> str:
        lines = self.source.splitlines()
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        return "\n".join(lines[first - 1 : node.end_lineno])


@functools.cache
def read(name: str) -> Module:
    path = HOME.joinpath(*name.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    source = path.read_text(encoding="utf-8")
    return Module(name, source, ast.parse(source).body)


@functools.cache
def entries(package: str) -> dict[str, tuple[str, ast.expr | None, str]]:
    """For each name of a package's tuples its module, its element there, and the tuple's name.

    The element is None where it does not stand there as it is.
    """
    found: dict[str, tuple[str, ast.expr | None, str]] = {}
    for path in sorted((HOME / package).glob("[!_]*.py")):
        module = read(f"{package}.{path.stem}")
        own = importlib.import_module(f"tests.{package}.{path.stem}")
        for node in module.body:
            if not isinstance(node, ast.AnnAssign | ast.Assign) or node.value is None:
                continue
            for bound in _binds(node):
                values = getattr(own, bound, None)
                if not isinstance(values, tuple):
                    continue
                elements = node.value.elts if isinstance(node.value, ast.Tuple) else []
                whole = len(elements) == len(values)
                for k, value in enumerate(values):
                    name = getattr(getattr(value, "target", value), "name", None)
                    if isinstance(name, str):
                        found.setdefault(name, (module.name, elements[k] if whole else None, bound))
    return found


def written(package: str, name: str) -> str:
    """The text of one. Raises LookupError where it cannot stand alone."""
    if name not in entries(package):
        raise LookupError(name)
    module, element, bound = entries(package)[name]
    text = _Text()
    if element is None:
        text.need(module, bound)
        last = (
            f"loss = next(one for one in {bound} if getattr(one, 'target', one).name == {name!r})"
        )
    else:
        bare = _bare(element)
        text.need_all(module, bare)
        last = f"loss = {ast.unparse(bare)}"
    if package == "forgers":
        last += "\nloss = loss.target"
    return text.whole(last)


class _Text:
    """Statements of several modules, each with all that it needs."""

    def __init__(self) -> None:
        self.taken: dict[str, set[int]] = {}  # of each module, in the order in which it is needed
        self.owner: dict[str, str] = {}
        self.imports: dict[str, None] = {}
        self.made: dict[str, None] = {}

    def need(self, module: str, name: str) -> None:
        own = read(module)
        node = own.bound.get(name)
        if node is None:
            return
        if name in MAKERS and module == "mutants.mutant":
            self.made.setdefault(name)
            self.need("mutants.mutant", "EAGER")
            self.imports.setdefault("from targets import Target")
            self.imports.setdefault("from targets.target import DTYPES, REDUCTIONS")
            return
        if isinstance(node, ast.ImportFrom | ast.Import):
            self._import(module, node, name)
            return
        known = self.owner.setdefault(name, module)
        if known != module:
            raise LookupError(f"{name} of {known} and of {module}")
        numbers = self.taken.setdefault(module, set())
        if node.lineno in numbers:
            return
        numbers.add(node.lineno)
        for other in _binds(node):
            self.owner.setdefault(other, module)
        self.need_all(module, node)
        for effect in own.body:  # a statement for its effect on what is needed
            about = isinstance(effect, EFFECTS) and name in _names(effect)
            if about and effect.lineno not in numbers:
                numbers.add(effect.lineno)
                self.need_all(module, effect)

    def need_all(self, module: str, node: ast.AST) -> None:
        for name in sorted(_names(node)):
            self.need(module, name)

    def whole(self, last: str) -> str:
        """With imports first, and before each module those that it needs."""
        parts = ["from __future__ import annotations\n", "\n".join(self.imports)]
        order: list[str] = []
        for module in self.taken:
            self._before(module, order)
        pieces: list[str] = []
        for module in order:
            own = read(module)
            chosen = [n for n in own.body if n.lineno in self.taken[module]]
            pieces += [own.text(node) for node in chosen]
            if module == "mutants.mutant":
                pieces += [MAKERS[name] for name in self.made]
        if self.made and "mutants.mutant" not in order:
            pieces = [*(MAKERS[name] for name in self.made), *pieces]
        return "\n\n\n".join([*parts, *pieces, last]) + "\n"

    def _before(self, module: str, order: list[str]) -> None:
        if module in order:
            return
        package = module.partition(".")[0]
        for node in read(module).body:
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                other = f"{package}.{node.module}"
                if other in self.taken:
                    self._before(other, order)
        if module not in order:
            order.append(module)

    def _import(self, module: str, node: ast.ImportFrom | ast.Import, name: str) -> None:
        alias = next(a for a in node.names if (a.asname or a.name.partition(".")[0]) == name)
        renamed = f" as {alias.asname}" if alias.asname else ""
        if isinstance(node, ast.Import):
            self.imports.setdefault(f"import {alias.name}{renamed}")
            return
        package = module.partition(".")[0]
        if node.level == 1 or str(node.module).startswith("tests."):
            if alias.asname:
                raise LookupError(f"{alias.name} is imported under another name")
            inner = f"{package}.{node.module}" if node.level else str(node.module)[len("tests.") :]
            self.need(inner, alias.name)
            return
        if str(node.module).partition(".")[0] in ("conformance", "reference", "tests"):
            raise LookupError(f"it takes {node.module}")
        if node.module != "__future__":
            self.imports.setdefault(f"from {node.module} import {alias.name}{renamed}")


def _bare(element: ast.expr) -> ast.expr:
    """Without its witness."""
    if isinstance(element, ast.Call):
        kept = [k for k in element.keywords if k.arg not in LEFT_OUT]
        return ast.Call(element.func, element.args, kept)
    return element


def _binds(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [a.asname or a.name.partition(".")[0] for a in node.names]
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign):
        targets = [node.target]
    else:
        return []
    return [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]


def _names(node: ast.AST) -> set[str]:
    """All that it mentions; what is in an annotation, too."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
