"""Find a target: by registered name, ``package.module:attribute``, or ``path/file.py:attribute``."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import targets
from targets.target import DROP_IN, Target, TargetError, UnknownTarget, near

GROUP = "loss_conformance.targets"
_INFRASTRUCTURE = {"registry", "target", "operands"}


@dataclass
class Registry:
    """Targets by name, and for what could not be loaded the reason."""

    targets: dict[str, Target] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def add(self, target: Target) -> Target:
        known = self.targets.get(target.name)
        if known is not None and known != target:
            raise TargetError(f"two targets are called {target.name!r}: choose another name")
        self.targets[target.name] = target
        return target


_REGISTRY = Registry()


def register(target: Target) -> Target:
    """Make ``target`` known by its name. Raises TargetError where another one has that name."""
    return _REGISTRY.add(target)


def available() -> Registry:
    """Every shipped target and every one that an installed package offers as an entry point."""
    _load_shipped()
    for point in importlib.metadata.entry_points(group=GROUP):
        if point.name in _REGISTRY.targets:
            continue
        try:
            with _explained(f"entry point {point.name} ({point.value})"):
                found = point.load()
            register(replace(_adapt(found, point.name), name=point.name, source=point.value))
        except TargetError as error:
            _REGISTRY.broken[point.name] = str(error)
    return _REGISTRY


def resolve(spec: Any) -> Target:
    """The target that ``spec`` names or is.

    ``spec``: a Target; a registered name; ``package.module:attribute``; ``path/file.py:attribute``
    (``:attribute`` may be left out where the file has one Target); a callable; an ``nn.Module``
    class or instance. Raises :class:`TargetError` (:class:`UnknownTarget`) with a message for users.
    """
    if not isinstance(spec, str):
        return _adapt(spec, getattr(spec, "__name__", type(spec).__name__))
    path, _, attribute = spec.rpartition(":") if ":" in spec else (spec, "", "")
    if path.endswith(".py"):
        return _from_module(_load_file(Path(path)), attribute, spec)
    if attribute:
        with _explained(path):
            module = importlib.import_module(path)
        return _from_module(module, attribute, spec)
    return _by_name(spec)


def fingerprint(target: Target) -> str:
    """SHA-256 of the source file of the loss; of its qualified name where there is no source."""
    function: Any = target.loss
    while isinstance(function, functools.partial):
        function = function.func
    owner = getattr(function, "__self__", None)
    if owner is not None and not isinstance(owner, ModuleType):
        function = type(owner)
    elif not inspect.isroutine(function) and not inspect.isclass(function):
        function = type(function)
    try:
        source = Path(str(inspect.getsourcefile(inspect.unwrap(function)))).read_bytes()
    except (TypeError, OSError):
        source = f"{function.__module__}.{getattr(function, '__qualname__', '')}".encode()
    return hashlib.sha256(source).hexdigest()


def _by_name(name: str) -> Target:
    _load_shipped()
    if name in _REGISTRY.targets:
        return _REGISTRY.targets[name]
    registry = available()
    if name in registry.targets:
        return registry.targets[name]
    if name in registry.broken:
        raise TargetError(registry.broken[name])
    raise UnknownTarget(
        f"unknown target {name!r}{near(name, registry.targets)} "
        f"Known: {', '.join(sorted(registry.targets))}. "
        "Or name yours as package.module:attribute or path/file.py:attribute"
    )


def _load_shipped() -> None:
    for info in pkgutil.iter_modules(targets.__path__):
        if info.name not in _INFRASTRUCTURE:
            with _explained(f"targets.{info.name}"):
                importlib.import_module(f"targets.{info.name}")


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UnknownTarget(f"no such file: {path}")
    whole = path.resolve()
    digest = hashlib.sha256(str(whole).encode()).hexdigest()[:8]
    name = f"_loss_conformance_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    specification = importlib.util.spec_from_file_location(name, whole)
    if specification is None or specification.loader is None:
        raise TargetError(f"cannot import {path}: not a Python source file")
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        with _explained(str(path)), _importable(whole.parent):
            specification.loader.exec_module(module)
    except TargetError:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """While a file loads, the modules beside it can be imported."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn whatever an import raises into one line: what, why, and the file and line."""
    try:
        yield
    except TargetError:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        reason = str(error).strip().splitlines()
        text = f"{type(error).__name__}: {reason[0]}" if reason else type(error).__name__
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
        where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if len(frames) > 1 else ""
        raise TargetError(f"cannot import {what}: {text}{where}") from None


def _from_module(module: ModuleType, attribute: str, spec: str) -> Target:
    own = [v for v in vars(module).values() if isinstance(v, Target)]
    if not attribute:
        if len(own) == 1:
            return replace(own[0], source=spec)
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise TargetError(f"{spec}: say which attribute, as {spec}:NAME; it has {', '.join(names)}")
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise TargetError(f"{spec}: no attribute {part!r}{near(part, vars(module))}")
        found = getattr(found, part)
    with _explained(spec):
        target = _adapt(found, attribute.rsplit(".", 1)[-1])
    return replace(target, source=spec)


def _adapt(found: Any, name: str) -> Target:
    """A Target as it is; a callable or an ``nn.Module`` as one that claims to be a drop-in."""
    if isinstance(found, Target):
        return found
    if _is_module(found):
        return _adapt_module(found, name)
    if not callable(found):
        raise TargetError(f"{name} is not callable: it is of type {type(found).__name__}")
    name = re.sub(r"[^\w.+-]", "_", name) or "loss"
    if _takes_reduction(found):
        return Target(name, found)
    return Target(name, _MeanOnly(found), reductions=("mean",))


def _is_module(found: Any) -> bool:
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    kind = found if inspect.isclass(found) else type(found)
    return issubclass(kind, torch.nn.Module)


def _adapt_module(found: Any, name: str) -> Target:
    claims = DROP_IN | {"module"}
    if not inspect.isclass(found):
        reduction = getattr(found, "reduction", "mean")
        reductions = (reduction,) if reduction in ("none", "sum", "mean") else ("mean",)
        return Target(name, _MeanOnly(found), claims, reductions)
    if _takes_reduction(found):
        return Target(name, _FromClass(found), claims, module=found)
    return Target(name, _MeanOnly(found()), claims, ("mean",))


def _takes_reduction(function: Callable[..., Any]) -> bool:
    """Whether it can be called with ``reduction=``; unknown signatures are taken to accept it."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return True
    return "reduction" in parameters or any(
        p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()
    )


@dataclass(frozen=True)
class _MeanOnly:
    """A loss without the parameter ``reduction``."""

    function: Callable[..., Any]

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return self.function

    def __call__(self, input: Any, target: Any, reduction: str = "mean") -> Any:
        return self.function(input, target)


@dataclass(frozen=True)
class _FromClass:
    """A module class, made anew for each call with the reduction that is asked for."""

    factory: Callable[..., Any]

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return self.factory

    def __call__(self, input: Any, target: Any, reduction: str = "mean") -> Any:
        return self.factory(reduction=reduction)(input, target)
