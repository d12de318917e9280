"""Find a target by its registered name, ``package.module:attribute`` or ``file.py:attribute``."""

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
from targets.forms import in_some_form
from targets.target import DROP_IN, REDUCTIONS, Target, TargetError, UnknownTarget, near

GROUP = "loss_conformance.targets"
# Parameters that are None in torch, where they are not given.
NONE = frozenset({"weight", "size_average", "reduce"})
_INFRASTRUCTURE = {
    "adapters",
    "building",
    "compiled",
    "forms",
    "interpreter",
    "operands",
    "registry",
    "target",
}


@dataclass
class Registry:
    """Targets by their keys, and for what could not be loaded the reason."""

    targets: dict[str, Target] = field(default_factory=dict)
    broken: dict[str, TargetError] = field(default_factory=dict)

    def add(self, target: Target) -> Target:
        """``target`` itself; raises TargetError where another one has its name."""
        known = self.targets.get(target.key)
        if known is not None and known != target:
            raise TargetError(f"two targets are called {target.key!r}: choose another name")
        self.targets[target.key] = target
        return target


_REGISTRY = Registry()
# What a file registered while it loaded: only then can it be told from what it imported.
_REGISTERED_BY: dict[str, tuple[Target, ...]] = {}


def register(target: Target) -> Target:
    """Make ``target`` known by its name. Raises TargetError where another one has that name."""
    return _REGISTRY.add(target)


def available() -> Registry:
    """Every shipped target and every one that an installed package offers as an entry point."""
    for module in _shipped():
        _load_shipped(module)
    for point in importlib.metadata.entry_points(group=GROUP):
        if point.name in _REGISTRY.targets:
            continue
        try:
            with _explained(f"entry point {point.name} ({point.value})"):
                found = point.load()
            register(replace(_adapt(found, point.name), name=point.name, source=point.value))
            _REGISTRY.broken.pop(point.name, None)
        except TargetError as error:
            _REGISTRY.broken[point.name] = error
    return _REGISTRY


def resolve(spec: Any, loss: str = "") -> Target:
    """The target that ``spec`` names or is.

    ``loss``: the specification that it is a target of; unless told, the one that it names itself,
    or mse. ``spec``: a Target; a registered name; ``package.module:attribute``;
    ``path/file.py:attribute`` (``:attribute`` may be left out where the file has one Target, or
    else one function of two operands or ``nn.Module``); a callable; an ``nn.Module`` class or
    instance. Raises
    :class:`TargetError`, with a message meant for users.
    """
    target = _found(spec, loss)
    if inspect.isclass(target.loss):
        raise TargetError(
            f"target {target.name}: its loss is the class {target.loss.__name__}, and calling that "
            "makes an object: give a function, the apply of an autograd.Function, or the class "
            "without a Target around it"
        )
    if target.parameters is None and (own := _keywords(target.loss)):
        target = replace(target, parameters=own)
    if _takes_reduction(target.loss):
        return target
    if len(target.reductions) > 1:
        claimed = " and ".join(target.reductions)
        raise TargetError(
            f"target {target.name} claims {claimed}, but its loss has no parameter `reduction`: "
            'claim the one that it computes, as reductions=("mean",)'
        )
    return replace(target, loss=_MeanOnly(target.loss))


def _found(spec: Any, loss: str) -> Target:
    if isinstance(spec, Target):
        return _of(spec, loss)
    if not isinstance(spec, str):
        return _adapt(spec, getattr(spec, "__name__", type(spec).__name__), loss)
    place, colon, attribute = (spec, "", "") if spec.endswith(".py") else spec.rpartition(":")
    if place.endswith(".py"):
        return _from_module(_load_file(Path(place)), attribute, spec, loss)
    if not colon:
        return _by_name(spec if loss in ("", "mse") else f"{loss}/{spec}")
    if not place or not attribute:
        raise TargetError(f"{spec!r}: write package.module:attribute or path/file.py:attribute")
    with _explained(place):
        module = importlib.import_module(place)
    return _from_module(module, attribute, spec, loss)


def _of(target: Target, loss: str) -> Target:
    """The target itself. Raises TargetError where it is of another loss than the one named."""
    if loss and target.loss_of != loss:
        raise TargetError(f"target {target.name} is of the loss {target.loss_of}, not of {loss}")
    return target


def prepare(target: Target) -> None:
    """Build or import what ``target`` needs. Raises TargetError: one line, for users."""
    if target.prepare is not None:
        with _explained(f"target {target.name}", "prepare"):
            target.prepare()


def fingerprint(target: Target) -> str:
    """SHA-256 of the source file of the loss, and of the target's other ``sources``.

    Of its qualified name where there is no source.
    """
    function: Any = target.loss
    for _ in range(100):  # an object may answer any question with another of its kind
        inner = getattr(function, "__wrapped__", None)
        inner = _partial(function) if inner is None else inner
        if inner is None:
            break
        function = inner
    owner = getattr(function, "__self__", None)
    if owner is not None and not isinstance(owner, ModuleType):
        function = owner if inspect.isclass(owner) else type(owner)
    elif not inspect.isroutine(function) and not inspect.isclass(function):
        function = type(function)
    try:
        own = Path(str(inspect.getsourcefile(function))).read_bytes()
    except (TypeError, OSError):
        own = f"{function.__module__}.{getattr(function, '__qualname__', '')}".encode()
    digest = hashlib.sha256(own)
    for path in target.sources:
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


def _partial(function: Any) -> Any:
    return function.func if isinstance(function, functools.partial) else None


def _by_name(name: str) -> Target:
    for module in sorted(_shipped(), key=lambda module: not name.startswith(module)):
        _load_shipped(module)  # its own first: others import what it does not need, as triton
        if name in _REGISTRY.targets:
            return _REGISTRY.targets[name]
    registry = available()
    if name in registry.targets:
        return registry.targets[name]
    if name in registry.broken:
        raise registry.broken[name]
    alike = [known for known in registry.targets if ("/" in known) == ("/" in name)]
    raise UnknownTarget(
        f"unknown target {name!r}{near(name, alike) or '.'} "
        f"Known: {', '.join(sorted(registry.targets))}. "
        "Or name yours as package.module:attribute or path/file.py:attribute"
    )


def _shipped() -> list[str]:
    """The modules of this package that hold implementations."""
    names = (info.name for info in pkgutil.iter_modules(targets.__path__))
    return [name for name in names if name not in _INFRASTRUCTURE]


def _load_shipped(module: str) -> None:
    """Import one of them; if it does not load, that is noted."""
    try:
        with _explained(f"targets.{module}"):
            importlib.import_module(f"targets.{module}")
    except TargetError as error:
        _REGISTRY.broken[module] = error


def _load_file(path: Path) -> ModuleType:
    """The module of a file; loaded once, and again when its text has changed."""
    if not path.is_file():
        raise UnknownTarget(f"no such file: {path}")
    whole = path.resolve()
    digest = hashlib.sha256(str(whole).encode() + b"\0" + whole.read_bytes()).hexdigest()[:12]
    name = f"_file_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    specification = importlib.util.spec_from_file_location(name, whole)
    if specification is None or specification.loader is None:
        raise TargetError(f"cannot import {path}: not a Python source file")
    module = importlib.util.module_from_spec(specification)
    # Dataclasses and pickle look the module up by its name, so it must be there and stay there.
    sys.modules[name] = module
    known = dict(_REGISTRY.targets)
    try:
        with _explained(str(path)), _importable(whole.parent):
            # Not the loader's exec_module: its cached bytecode misses a change within one second.
            exec(compile(whole.read_bytes(), str(whole), "exec"), module.__dict__)
    except TargetError:
        del sys.modules[name]
        _REGISTRY.targets = known
        raise
    shipped = {id(target) for target in _of_shipped()}  # which it may have imported
    _REGISTERED_BY[name] = tuple(
        t for n, t in _REGISTRY.targets.items() if n not in known and id(t) not in shipped
    )
    return module


def _of_shipped() -> Iterator[Target]:
    """What the modules of this package that are loaded have registered."""
    for module in _shipped():
        if (loaded := sys.modules.get(f"targets.{module}")) is not None:
            yield from (v for v in vars(loaded).values() if isinstance(v, Target))


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
def _explained(what: str, verb: str = "import") -> Iterator[None]:
    """Turn whatever an import raises into one line: what, why, and the file and line."""
    try:
        yield
    except (TargetError, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit too: a target must not end the run
        reason = str(error).strip().splitlines()
        text = f"{type(error).__name__}: {reason[0]}" if reason else type(error).__name__
        raise TargetError(f"cannot {verb} {what}: {text}{_place(error)}{_advice(error)}") from None


def _advice(error: BaseException) -> str:
    """What to do about a package that is not there."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    package = error.name.partition(".")[0]
    if package in sys.modules:  # a part of one that is
        return ""
    return f": install {package}, or name the interpreter that has it with --python"


def _place(error: BaseException) -> str:
    """`` (file, line n)`` where the import broke, in code that is not the import machinery's."""
    if isinstance(error, SyntaxError):
        return ""  # its own text names the place
    machinery = (__file__, importlib.__file__, importlib.metadata.__file__)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename not in machinery and not frame.filename.startswith("<frozen"):
            return f" ({frame.filename}, line {frame.lineno})"
    return ""


def _from_module(module: ModuleType, attribute: str, spec: str, loss: str) -> Target:
    if not attribute:
        return _only_one(module, spec, loss)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise TargetError(f"{spec}: no attribute {part!r}{near(part, dir(found))}")
        found = getattr(found, part)
    if not isinstance(found, Target) and not callable(found):
        raise TargetError(f"{spec}: {attribute} is not callable, it is a {type(found).__name__}")
    target = _adapt(found, attribute.rsplit(".", 1)[-1], loss)
    return target if target.source else replace(target, source=spec)


def _only_one(module: ModuleType, spec: str, loss: str) -> Target:
    """The one Target of a file; else the one thing defined there that can be a loss."""
    registered = _REGISTERED_BY.get(module.__name__, ())
    own = {v.key: v for v in vars(module).values() if isinstance(v, Target)}
    for candidates in (list(registered), list(own.values())):
        if len(candidates) == 1:
            return _of(replace(candidates[0], source=spec), loss)
    formed = None if registered or own else in_some_form(module, loss)
    if formed is not None:
        return replace(formed, source=spec)
    losses = [name for name, v in vars(module).items() if name[0] != "_" and _is_loss(v, module)]
    if len(losses) == 1 and not (registered or own):
        return _from_module(module, losses[0], f"{spec}:{losses[0]}", loss)
    names = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (isinstance(value, Target) or getattr(value, "__module__", "") == module.__name__)
    ]
    reason = "it has " + ", ".join(names) if names else "it has none"
    raise TargetError(f"{spec}: say which attribute, as {spec}:NAME; {reason}")


def _is_loss(found: Any, module: ModuleType) -> bool:
    """Whether it is defined in ``module``: an ``nn.Module``, or a function of two operands."""
    if getattr(found, "__module__", "") != module.__name__:
        return False
    if inspect.isclass(found):
        return _is_a(found, "nn.Module")
    try:
        inspect.signature(found).bind(None, None)
    except (TypeError, ValueError):
        return False
    return inspect.isfunction(found)


def _adapt(found: Any, name: str, loss: str = "") -> Target:
    """A Target as it is; a callable or an ``nn.Module`` as one that claims to be a drop-in."""
    if isinstance(found, Target):
        return _of(found, loss)
    if not callable(found):
        raise TargetError(f"{name} is not callable: it is a {type(found).__name__}")
    name = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".-") or "loss"
    if inspect.isclass(found) and _is_a(found, "autograd.Function"):
        raise TargetError(f"{name} is an autograd.Function: name its apply or a function")
    of = loss or "mse"
    if _is_a(found, "nn.Module"):
        return replace(_adapt_module(found, name), loss_of=of)
    if _takes_reduction(found):
        return Target(name, found, loss_of=of)
    return Target(name, _MeanOnly(found), reductions=("mean",), loss_of=of)


def _is_a(found: Any, kind: str) -> bool:
    """Whether ``found`` is, or is of, this class of torch. Does not import torch."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    outer, inner = kind.split(".")
    wanted = getattr(getattr(torch, outer), inner)
    return issubclass(found if inspect.isclass(found) else type(found), wanted)


def _adapt_module(found: Any, name: str) -> Target:
    """A module claims ``module``; one whose reduction cannot be chosen claims the one it has.

    What its constructor takes by the name of ``weight`` is not what a call takes.
    """
    claims = DROP_IN - {"weight", "legacy"} | {"module"}
    if not inspect.isclass(found):
        called = _MeanOnly(found)
        return Target(name, called, claims, _reductions_of(found), module=_Fixed(found))
    if _takes_reduction(found):
        return Target(name, _FromClass(found), claims, module=found)
    try:
        instance: Any = found()
    except Exception as error:
        raise TargetError(f"cannot make a {name}: {type(error).__name__}: {error}") from None
    called = _MeanOnly(instance, "loss()(x, y)")
    return Target(name, called, claims, _reductions_of(instance), module=_Fixed(instance))


def _reductions_of(module: Any) -> tuple[str]:
    """The reduction that a module has as its attribute; else it is taken for a mean."""
    reduction = getattr(module, "reduction", "mean")
    return (reduction,) if reduction in REDUCTIONS else ("mean",)


def _takes_reduction(function: Callable[..., Any]) -> bool:
    """Whether it can be called with ``reduction=``; unknown signatures are taken to accept it."""
    # Two signatures of torch's say **kwargs and then refuse every keyword.
    owner = getattr(function, "__self__", None)
    if inspect.isclass(owner) and _is_a(owner, "autograd.Function"):
        return False  # its apply
    if inspect.isclass(function) and _is_a(function, "nn.Module"):
        defines = next(c for c in function.__mro__ if "__init__" in vars(c))
        if defines.__module__ == "torch.nn.modules.module":
            return False  # the constructor of nn.Module itself
    schema = getattr(function, "schema", None)  # of torch.jit.script, whose signature says nothing
    if schema is not None and hasattr(schema, "arguments"):
        return any(argument.name == "reduction" for argument in schema.arguments)
    try:
        own = inspect.signature(function, follow_wrapped=False).parameters.values()
        inner = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True
    named = any(p.name == "reduction" and p.kind is not p.POSITIONAL_ONLY for p in (*own, *inner))
    return named or any(p.kind is p.VAR_KEYWORD for p in inner)


def _keywords(function: Callable[..., Any]) -> tuple[str, ...]:
    """The parameters beyond the operands that can be passed by keyword, but for ``reduction``, and
    for those that are None in torch and something else here: another factor, not a ``weight``."""
    try:
        parameters = [*inspect.signature(function).parameters.values()]
    except (TypeError, ValueError):
        return ()
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    others = [p.name for p in parameters if p.name in NONE and p.default is not None]
    left_out = {"reduction", *others}
    found = [p.name for p in parameters if p.kind in named and p.name not in left_out]
    operands = [p for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY][:2]
    return tuple(name for name in found if name not in {p.name for p in operands})


@dataclass(frozen=True)
class _MeanOnly:
    """A loss without the parameter ``reduction``. ``script``: how a script calls what was named."""

    function: Callable[..., Any]
    script: str = "loss(x, y)"

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return self.function

    def __call__(self, input: Any, target: Any, reduction: str = "mean", **parameters: Any) -> Any:
        return self.function(input, target, **parameters)


@dataclass(frozen=True)
class _FromClass:
    """A module class, made anew for each call with the reduction that is asked for."""

    factory: Callable[..., Any]
    script: str = "loss(reduction={reduction!r})(x, y)"

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return self.factory

    def __call__(self, input: Any, target: Any, reduction: str = "mean", **parameters: Any) -> Any:
        return self.factory(reduction=reduction, **parameters)(input, target)


@dataclass(frozen=True)
class _Fixed:
    """The factory of a module whose reduction cannot be chosen: always the one module."""

    instance: Any

    def __call__(self, reduction: str = "mean") -> Any:
        return self.instance
