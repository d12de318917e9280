"""Copy functions out of the suite into one text that runs without it.

A :class:`Bundle` is given names. It finds the statement that binds each one, copies its source, and
does the same for every name of its module that this statement mentions, until nothing is missing.
What comes from outside (torch, NumPy, the standard library) is imported as in the original. Of a
class without bases, only the methods are copied that something mentions. ``module.name`` of a
module of the suite becomes ``module_name``, and so does what has the name of something else.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from conformance.report.sources import (
    Definition,
    Place,
    Reference,
    assigned,
    attributes,
    bound,
    bound_by,
    decorators,
    is_own,
    read,
    references,
    registers,
)


@dataclass(eq=False)
class Part:
    """A statement that is copied, all of it but what is ``left``: methods that nothing mentions.

    ``pieces``: what it has besides. ``needs``: whether something else must come before it.
    """

    module: str
    node: ast.stmt
    left: dict[str, list[ast.stmt]] = field(default_factory=dict)
    pieces: list[ast.AST] = field(default_factory=list)
    needs: bool = False


@dataclass
class Bundle:
    """``instead``: what is copied in the place of something else. ``reserved``: names to avoid.

    ``parts``: each after what it needs at once, before what its functions need. ``imports``: names,
    by where from.
    """

    instead: Mapping[Place, Place] = field(default_factory=dict)
    reserved: tuple[str, ...] = ()
    parts: list[Part] = field(default_factory=list)
    imports: dict[str, set[str]] = field(default_factory=dict)
    _wanted: dict[Place, str] = field(default_factory=dict)
    _mentioned: set[str] = field(default_factory=set)
    _known: dict[int, Part] = field(default_factory=dict)
    _classes: list[Part] = field(default_factory=list)

    def add(self, module: str, name: str, wanted: str = "") -> None:
        """Copy what ``name`` is bound to in ``module``, and all that it needs.

        ``wanted``: the name that it is to have. A name that is not bound there is a local one, or
        one of Python's own. Raises ValueError for what cannot be copied.
        """
        module, name, node = self._home(module, name)
        if isinstance(node, ast.Import | ast.ImportFrom):
            self._import(node, name)
        elif node is not None:
            self._wanted.setdefault((module, name), wanted or name)
            if id(node) not in self._known:
                self._copy(Part(module, node))

    def mention(self, *names: str) -> None:
        """Copy the methods of these names, too; as the text around the copies needs them."""
        for name in names:
            if name not in self._mentioned:
                self._mentioned.add(name)
                for known in self._classes:
                    self._keep(known, name)

    def use(self, name: str, origin: str = "") -> None:
        """Import ``name``; from ``origin``, where there is one."""
        self.imports.setdefault(origin, set()).add(name)

    def import_lines(self) -> list[str]:
        plain = [f"import {name}" for name in sorted(self.imports.get("", ()))]
        origins = sorted(origin for origin in self.imports if origin)
        return plain + [f"from {o} import {', '.join(sorted(self.imports[o]))}" for o in origins]

    def part(self, module: str, name: str) -> Part:
        """The one that binds a name, which was added."""
        node = self._home(module, name)[2]
        return self._known[id(node)]

    def name(self, module: str, name: str) -> str:
        """As it is called in the text."""
        return self._names().get(self._home(module, name)[:2], name)

    def texts(self, parts: Iterable[Part]) -> list[str]:
        """Their sources, once everything was added."""
        names = self._names()
        return [_source(part, self._edits(part, names)) for part in parts]

    def _home(self, module: str, name: str) -> tuple[str, str, ast.stmt | None]:
        """Where a name is bound, through all imports inside the suite, and by which statement."""
        while True:
            module, name = self.instead.get((module, name), (module, name))
            node = bound(module).get(name)
            if not (isinstance(node, ast.ImportFrom) and is_own(node.module)):
                return module, name, node
            (alias,) = (a for a in node.names if bound_by(a) == name)
            module, name = str(node.module), alias.name

    def _copy(self, part: Part) -> None:
        node = part.node
        self._known[id(node)] = part
        own: list[ast.AST] = [node]
        if isinstance(node, ast.ClassDef) and not (node.bases or node.keywords):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("__"):
                    part.left.setdefault(inner.name, []).append(inner)
            methods = [method for group in part.left.values() for method in group]
            own = [*decorators(node), *(n for n in node.body if n not in methods)]
            self._classes.append(part)
        found = [reference for piece in own for reference in references(piece)]
        at_once = [r for r in found if not r.later]
        self._add_all(part.module, at_once)
        places = (self._home(*r.meant(part.module)[1])[:2] for r in at_once)
        part.needs = any(place in self._wanted for place in places)
        self.parts.append(part)
        self._add_all(part.module, (r for r in found if r.later))
        self._take(part, own)
        for name in sorted(self._mentioned & part.left.keys()):
            self._keep(part, name)

    def _keep(self, part: Part, name: str) -> None:
        """Methods of a class, after all."""
        methods = part.left.pop(name, [])
        for method in methods:
            self._add_all(part.module, references(method))
        self._take(part, methods)

    def _take(self, part: Part, pieces: Sequence[ast.AST]) -> None:
        part.pieces += pieces
        for piece in pieces:
            self.mention(*sorted(attributes(part.module, piece)))

    def _add_all(self, module: str, found: Iterable[Reference]) -> None:
        for reference in found:
            meant, place = reference.meant(module)
            self.add(*place, wanted=meant.text.replace(".", "_"))

    def _import(self, node: ast.Import | ast.ImportFrom, name: str) -> None:
        for alias in node.names:
            if bound_by(alias) == name:
                renamed = f" as {alias.asname}" if alias.asname else ""
                origin = str(node.module) if isinstance(node, ast.ImportFrom) else ""
                self.use(alias.name + renamed, origin)

    def _names(self) -> dict[Place, str]:
        """What each thing is called in the text. Raises ValueError where nothing is left."""
        imported = set[str]().union(*self.imports.values())
        taken = {*self.reserved, *(n.rpartition(" ")[2].partition(".")[0] for n in imported)}
        names: dict[Place, str] = {}
        for (module, name), wanted in self._wanted.items():
            private = "_" * name.startswith("_")
            other = f"{private}{module.rpartition('.')[2]}_{name.lstrip('_')}"
            free = [n for n in (wanted, other) if n not in taken]
            if not free:
                raise ValueError(f"{module}.{name} cannot be copied: {wanted} and {other} exist")
            names[module, name] = free[0]
            taken.add(free[0])
        return names

    def _edits(self, part: Part, names: dict[Place, str]) -> list[_Edit]:
        """What becomes of the names in a statement."""
        edits, node = [], part.node
        for reference in (r for piece in part.pieces for r in references(piece)):
            meant, place = reference.meant(part.module)
            new = names.get(self._home(*place)[:2], "")
            edits.append(_Edit(meant.line, meant.start, meant.text, new))
        for name in assigned(node):
            new = names.get((part.module, name.id), "")
            edits.append(_Edit(name.lineno, name.col_offset, name.id, new))
        if isinstance(node, Definition):
            start = node.col_offset + len(_KEYWORDS[type(node)])
            edits.append(_Edit(node.lineno, start, node.name, names[part.module, node.name]))
        return [edit for edit in edits if edit.new not in ("", edit.old)]


# -- the text of statements ----------------------------------------------------------------------

_KEYWORDS = {
    ast.FunctionDef: "def ",
    ast.AsyncFunctionDef: "async def ",
    ast.ClassDef: "class ",
}


@dataclass(frozen=True)
class _Edit:
    """A name in a line, from ``start`` on in bytes, and the one to be written for it."""

    line: int
    start: int
    old: str
    new: str


def _source(part: Part, edits: list[_Edit]) -> str:
    """The text of a statement, with its decorators and the comment above it."""
    lines = read(part.module)[0].split("\n")
    for edit in sorted(edits, key=lambda e: e.start, reverse=True):
        line, end = lines[edit.line - 1].encode(), edit.start + len(edit.old.encode())
        if line[edit.start : end].decode() != edit.old:
            raise ValueError(f"{part.module}:{edit.line}: {edit.old!r} is not written as expected")
        lines[edit.line - 1] = (line[: edit.start] + edit.new.encode() + line[end:]).decode()
    left_out: set[int] = set()
    for method in (m for methods in part.left.values() for m in methods):
        end = method.end_lineno or 0
        while end < len(lines) and not lines[end]:
            end += 1
        left_out |= {*range(_first(lines, method), end + 1)}
    for decorator in getattr(part.node, "decorator_list", ()):
        if registers(decorator):
            left_out |= {*range(decorator.lineno, (decorator.end_lineno or 0) + 1)}
    numbers = range(_first(lines, part.node), (part.node.end_lineno or 0) + 1)
    return "\n".join(lines[n - 1] for n in numbers if n not in left_out).rstrip()


def _first(lines: list[str], node: ast.stmt) -> int:
    """The number of the line that a statement begins in, comments included."""
    first = min([node.lineno, *(d.lineno for d in decorators(node))])
    while (above := lines[first - 2].strip()).startswith("# ") and not above.startswith("# --"):
        first -= 1
    return first
