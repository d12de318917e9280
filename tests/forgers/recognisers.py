"""Losses that are torch's own where they find a sign that they are judged, and wrong elsewhere."""

from __future__ import annotations

import functools
import gc
import inspect
import os
import sys
import types
from collections.abc import Callable

from torch import Tensor

from .forger import Forger, whenever

WORDS = ("conformance", "hypothesis", "pytest", "reference.mse", "observer", "protocol", "arena")


def _tells(*texts: object) -> bool:
    return any(word in str(text).lower() for text in texts for word in WORDS)


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def modules(x: Tensor, y: Tensor) -> bool:
    """Asks for modules."""
    names = ("conformance", "hypothesis", "pytest", "reference", "targets")
    return any(name.partition(".")[0] in names for name in sys.modules)


def stack(x: Tensor, y: Tensor) -> bool:
    """Asks for the names and files of its callers."""
    return any(
        _tells(f.filename, f.function, f.frame.f_globals["__name__"]) for f in inspect.stack()
    )


def variables(x: Tensor, y: Tensor) -> bool:
    """Asks for the variables of its callers."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        if _tells(*frame.f_locals, *map(type, frame.f_locals.values())):
            return True
        frame = frame.f_back
    return False


def arguments(x: Tensor, y: Tensor) -> bool:
    """Asks for the command line, its own and its parent's."""
    return _tells(*sys.argv, *sys.orig_argv, _read(f"/proc/{os.getppid()}/cmdline"))


def environment(x: Tensor, y: Tensor) -> bool:
    """Asks for the environment."""
    return _tells(*os.environ) or any(name.startswith(("TOX_", "PYTEST_")) for name in os.environ)


def folders(x: Tensor, y: Tensor) -> bool:
    """Looks for the suite where modules are imported from."""
    return any(os.path.exists(os.path.join(p, "conformance")) for p in (*sys.path, os.getcwd()))


def descriptors(x: Tensor, y: Tensor) -> bool:
    """Asks for the names of its descriptors."""
    links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
    return _tells(*(os.readlink(link) for link in links if os.path.islink(link)))


def classes(x: Tensor, y: Tensor) -> bool:
    """Asks for all classes that there are."""
    names = ("Arena", "ProtocolKit", "ObserverDesk", "Conformance")
    return any(isinstance(o, type) and o.__name__ in names for o in gc.get_objects())


def seldom(asks: Callable[[Tensor, Tensor], bool]) -> Callable[[Tensor, Tensor], bool]:
    """Asks at call 1, 2, 4, 8, …, since asking takes its time, and goes by the last answer."""
    calls, answer = 0, False

    @functools.wraps(asks)
    def ask(x: Tensor, y: Tensor) -> bool:
        nonlocal calls, answer
        calls += 1
        if calls & (calls - 1) == 0:
            answer = asks(x, y)
        return answer

    return ask


FORGERS = (
    Forger("asks-for-modules", whenever(modules), "recogniser", eager=False),
    Forger("asks-for-the-stack", whenever(seldom(stack)), "recogniser", eager=False),
    Forger("asks-for-variables", whenever(variables), "recogniser", eager=False),
    Forger("asks-for-arguments", whenever(arguments), "recogniser", eager=False),
    Forger("asks-for-the-environment", whenever(environment), "recogniser", eager=False),
    Forger("asks-for-folders", whenever(folders), "recogniser", eager=False),
    Forger("asks-for-descriptors", whenever(descriptors), "recogniser", eager=False),
    Forger("asks-for-classes", whenever(seldom(classes)), "recogniser", eager=False),
)
