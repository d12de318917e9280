"""Copy functions out of the suite into one text that runs without it.

A :class:`Bundle` is given names. It finds the statement that binds each one, copies its source, and
does the same for every name of its module that this statement mentions, until nothing is missing.
What comes from outside (torch, NumPy, the standard library) is imported as in the original. A
module of the suite that is used as ``module.name`` becomes a namespace of the names so used.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

OWN = ("conformance", "reference", "targets")
REGISTRARS = ("experiment",)  # decorators that mean nothing outside the suite


@dataclass
class Bundle:
    """``parts``: source texts, each after what it needs at once, before what its functions need.

    ``imports``: names, by where from.
    """

    parts: list[str] = field(default_factory=list)
    imports: dict[str, set[str]] = field(default_factory=dict)
    _origins: dict[str, str] = field(default_factory=dict)
    _copied: set[int] = field(default_factory=set)
    _namespaces: dict[str, set[str]] = field(default_factory=dict)

    def add(self, module: str, name: str) -> None:
        """Copy what ``name`` is bound to in ``module``, and all that it needs.

        Raises ValueError where two different things of that name would be needed.
        """
        lines, bound = _read(module)
        node = bound.get(name)
        if node is None:
            return  # a local name, or one of Python's own
        if isinstance(node, ast.Import | ast.ImportFrom):
            self._import(module, node, name)
        elif self._origins.setdefault(name, module) != module:
            raise ValueError(f"two names {name!r}: of {module} and of {self._origins[name]}")
        elif id(node) not in self._copied:
            self._copied.add(id(node))
            self._add_used(module, _at_once(node))
            self.parts.append(_source(lines, node))
            self._add_used(module, ast.walk(node))

    def has(self, name: str) -> bool:
        """Whether ``name`` is among what was copied."""
        return name in self._origins

    def use(self, name: str, origin: str = "") -> None:
        """Import ``name``; from ``origin``, where there is one."""
        self.imports.setdefault(origin, set()).add(name)

    def import_lines(self) -> list[str]:
        plain = [f"import {name}" for name in sorted(self.imports.get("", ()))]
        origins = sorted(origin for origin in self.imports if origin)
        return plain + [f"from {o} import {', '.join(sorted(self.imports[o]))}" for o in origins]

    def namespaces(self) -> list[str]:
        """What stands for the modules of the suite: after all parts."""
        return [
            f"{name} = SimpleNamespace({', '.join(f'{n}={n}' for n in sorted(used))})"
            for name, used in self._namespaces.items()
        ]

    def _add_used(self, module: str, nodes: Iterator[ast.AST]) -> None:
        bound = _read(module)[1]
        for inner in nodes:
            if isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name):
                own = _own_module(bound.get(inner.value.id), inner.value.id)
                if own:
                    self.add(own, inner.attr)
                    self._namespaces.setdefault(inner.value.id, set()).add(inner.attr)
                    self.use("SimpleNamespace", "types")
            elif isinstance(inner, ast.Name) and not _own_module(bound.get(inner.id), inner.id):
                self.add(module, inner.id)

    def _import(self, module: str, node: ast.Import | ast.ImportFrom, name: str) -> None:
        (alias,) = (a for a in node.names if _bound_by(a) == name)
        if isinstance(node, ast.ImportFrom) and _is_own(node.module):
            self.add(str(node.module), alias.name)
        else:
            renamed = f" as {alias.asname}" if alias.asname else ""
            origin = str(node.module) if isinstance(node, ast.ImportFrom) else ""
            self.use(alias.name + renamed, origin)


@functools.cache
def _read(module: str) -> tuple[list[str], dict[str, ast.stmt]]:
    """The lines of a module, and the statement at its top level that binds each name."""
    source = inspect.getsource(importlib.import_module(module))
    bound: dict[str, ast.stmt] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [_bound_by(alias) for alias in node.names]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
            node.decorator_list = [d for d in node.decorator_list if not _registers(d)]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
        else:
            continue  # `if TYPE_CHECKING` among others: what it imports is for annotations alone
        bound |= dict.fromkeys(names, node)
    return source.splitlines(), bound


def _at_once(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that are evaluated when a statement runs, and not when a function is called."""
    yield node
    if isinstance(node, ast.FunctionDef):
        defaults = [d for d in node.args.kw_defaults if d is not None]
        children: Iterable[ast.AST] = (*node.decorator_list, *node.args.defaults, *defaults)
    elif isinstance(node, ast.AnnAssign):
        children = () if node.value is None else (node.value,)
    else:
        children = ast.iter_child_nodes(node)
    for child in children:
        yield from _at_once(child)


def _registers(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Name) and called.id in REGISTRARS


def _source(lines: list[str], node: ast.stmt) -> str:
    """The text of a statement, with its decorators and the comment above it."""
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
    while lines[first - 2].startswith("# ") and not lines[first - 2].startswith("# --"):
        first -= 1
    return "\n".join(lines[first - 1 : node.end_lineno])


def _bound_by(alias: ast.alias) -> str:
    return alias.asname or alias.name.partition(".")[0]


def _is_own(module: str | None) -> bool:
    return bool(module) and str(module).partition(".")[0] in OWN


def _own_module(node: ast.stmt | None, name: str) -> str | None:
    """The module of the suite that ``name`` is, where ``node`` imports one."""
    if not isinstance(node, ast.ImportFrom) or not _is_own(node.module):
        return None
    package, found = importlib.import_module(str(node.module)), f"{node.module}.{name}"
    is_module = hasattr(package, "__path__") and importlib.util.find_spec(found) is not None
    return found if is_module else None
