"""Read the sources of the suite as text: what a module binds, and which names a statement mentions.

Nothing is imported: what is read may be where its reader does not reach.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

OWN = ("conformance", "reference", "targets")
REGISTRARS = ("experiment", "protocol")  # decorators that mean nothing outside the suite

Place = tuple[str, str]  # a module, and a name in it
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def decorated(package: str, decorator: str, argument: str) -> Place:
    """The function in the modules of ``package`` that has ``@decorator("argument")`` above it.

    Raises LookupError where there is none.
    """
    for module in (f"{package}.{name}" for name in modules_of(package)):
        if f'@{decorator}("{argument}")' in read(module)[0]:
            for name, node in bound(module).items():
                texts = [ast.unparse(d) for d in getattr(node, "decorator_list", ())]
                if f"{decorator}({argument!r})" in texts:
                    return module, name
    raise LookupError(f"nothing in {package} is @{decorator}({argument!r})")


def modules_of(package: str) -> list[str]:
    """The names of a package's modules."""
    return sorted(path.stem for path in _folder(package).glob("[!_]*.py"))


def defines(module: str, function: str) -> bool:
    """Whether there is such a module, with such a function."""
    path = _folder(module).with_suffix(".py")
    return path.is_file() and isinstance(bound(module).get(function), ast.FunctionDef)


@functools.cache
def _folder(package: str) -> Path:
    """Where a package of the suite lies, or a module's file without its suffix."""
    parent, _, name = package.rpartition(".")
    if parent:
        return _folder(parent) / name
    spec = importlib.util.find_spec(name)  # of what is no submodule: that imports nothing
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@functools.cache
def read(module: str) -> tuple[str, ast.Module]:
    """Its text, and the tree of it."""
    folder = _folder(module)
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    source = path.read_text(encoding="utf-8")
    return source, ast.parse(source)


@functools.cache
def bound(module: str) -> dict[str, ast.stmt]:
    """The statement at the top level of a module that binds each name."""
    found: dict[str, ast.stmt] = {}
    for node in _statements(read(module)[1].body):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in map(bound_by, node.names):
                known = found.get(name)
                if isinstance(node, ast.Import) and isinstance(known, ast.Import):
                    found[name] = ast.Import([*known.names, *node.names])  # of one package
                else:
                    found[name] = node
        elif isinstance(node, Definition):
            found[node.name] = node
        else:
            found |= {name.id: node for name in assigned(node)}
    return found


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Those of a module; of ``with suppress(ImportError):`` what is inside.

    Not of ``if TYPE_CHECKING:``, whose imports are for annotations alone.
    """
    for node in body:
        if isinstance(node, ast.With):
            yield from node.body
        else:
            yield node


def assigned(node: ast.stmt) -> list[ast.Name]:
    """The names that a statement gives values to, where it is an assignment."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign):
        targets = [node.target]
    return [n for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]


def bound_by(alias: ast.alias) -> str:
    """The name that an import binds."""
    return alias.asname or alias.name.partition(".")[0]


def is_own(module: str | None) -> bool:
    return bool(module) and str(module).partition(".")[0] in OWN


@functools.cache
def own_module(module: str, name: str) -> str | None:
    """The module of the suite that ``name`` is in ``module``, where it is one."""
    node = bound(module).get(name)
    if not isinstance(node, ast.ImportFrom) or not is_own(node.module):
        return None
    (alias,) = (a for a in node.names if bound_by(a) == name)
    found = f"{node.module}.{alias.name}"
    path = _folder(found)
    return found if path.is_dir() or path.with_suffix(".py").is_file() else None


# -- names in statements -------------------------------------------------------------------------


class Meant(NamedTuple):
    """A name as it stands in a source: its line, where in bytes, and the name."""

    line: int
    start: int
    text: str


@dataclass(frozen=True)
class Reference:
    """A name that is none of a function's own, and the ``attribute`` of it that is meant, if any.

    ``later``: it is evaluated when a function is called, and not when the statement runs.
    """

    line: int
    start: int
    name: str
    attribute: str
    later: bool

    def meant(self, module: str) -> tuple[Meant, Place]:
        """What is meant in ``module``: a name of it, or an attribute of a module of the suite."""
        own = own_module(module, self.name)
        if own is None:
            return Meant(self.line, self.start, self.name), (module, self.name)
        if not self.attribute:
            raise ValueError(f"{module} uses the module {own} as a value, which cannot be copied")
        text = f"{self.name}.{self.attribute}"
        return Meant(self.line, self.start, text), (own, self.attribute)


@functools.cache
def references(node: ast.AST) -> tuple[Reference, ...]:
    """Of a statement, in the order of its text or nearly so. Raises ValueError."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.ImportFrom) and is_own(inner.module):
            raise ValueError(f"{inner.module} is imported inside of a function: not to be copied")
    return tuple(_found(node, frozenset(), later=False))


def _found(node: ast.AST, own: frozenset[str], later: bool) -> Iterator[Reference]:
    """``own``: the names of the functions around the node."""
    children: Iterable[ast.AST] = ast.iter_child_nodes(node)
    base = node.value if isinstance(node, ast.Attribute) else node
    if isinstance(base, ast.Name):
        if base.id not in own and (later or isinstance(base.ctx, ast.Load)):
            attribute = node.attr if isinstance(node, ast.Attribute) else ""
            yield Reference(base.lineno, base.col_offset, base.id, attribute, later)
        return
    if isinstance(node, ast.AnnAssign):
        yield from _found(node.annotation, own, later=True)
        children = [node.target, *([node.value] if node.value else [])]
    elif isinstance(node, Function):
        for annotation in _annotations(node):
            yield from _found(annotation, own, later=True)
        inside = own | _locals(node)
        for inner in node.body if isinstance(node.body, list) else [node.body]:
            yield from _found(inner, inside, later=True)
        defaults = (*node.args.defaults, *node.args.kw_defaults)
        children = [*decorators(node), *filter(None, defaults)]
    elif isinstance(node, ast.ClassDef):
        children = [*decorators(node), *node.bases, *node.keywords, *node.body]
    elif isinstance(node, _COMPREHENSIONS):
        targets = [n for g in node.generators for n in ast.walk(g.target)]
        own |= {n.id for n in targets if isinstance(n, ast.Name)}
    for child in children:
        yield from _found(child, own, later)


@functools.cache
def attributes(module: str, node: ast.AST) -> frozenset[str]:
    """Their names, wherever they stand in a statement; not those of other modules (np.array)."""
    found = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute):
            base = inner.value.id if isinstance(inner.value, ast.Name) else ""
            if not isinstance(bound(module).get(base), ast.Import):
                found.add(inner.attr)
    return frozenset(found)


def _locals(function: Function) -> frozenset[str]:
    """The names of a function's parameters and variables."""
    arguments = function.args
    all_arguments = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    names = {a.arg for a in (*all_arguments, arguments.vararg, arguments.kwarg) if a}
    elsewhere: set[str] = set()
    todo: list[ast.AST] = [*function.body] if isinstance(function.body, list) else []
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.Global):
            elsewhere |= {*node.names}
        elif isinstance(node, Definition | ast.ExceptHandler):
            names |= {node.name or ""}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {*map(bound_by, node.names)}
        if not isinstance(node, (Function, *_COMPREHENSIONS, ast.ClassDef)):
            todo += ast.iter_child_nodes(node)
    return frozenset(names - elsewhere)


def _annotations(function: Function) -> Iterator[ast.expr]:
    for node in ast.iter_child_nodes(function.args):
        if isinstance(node, ast.arg) and node.annotation:
            yield node.annotation
    if not isinstance(function, ast.Lambda) and function.returns:
        yield function.returns


def decorators(node: ast.AST) -> list[ast.expr]:
    """Those that are copied."""
    return [d for d in getattr(node, "decorator_list", ()) if not registers(d)]


def registers(decorator: ast.expr) -> bool:
    """Whether a decorator does no more than to register."""
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Name) and called.id in REGISTRARS
