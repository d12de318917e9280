"""What a loss tries beside computing, where it cannot: writing, the network, signals.

As the interpreter's audit events tell. A loss that is not Python's, or that means to, goes unseen,
and is kept from it all the same.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

MOST = 20  # that are kept
LONGEST = 200  # characters of one
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_TRIED: dict[str, None] = {}  # of this process, as audit hooks are


def begin() -> None:
    """From now on."""

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        found = _LOOKS.get(event)
        if found is None or len(_TRIED) >= MOST:
            return
        for words in found(arguments):
            _TRIED[words[:LONGEST]] = None

    sys.addaudithook(look)


def tried() -> list[str]:
    """Each once, in the order in which they came."""
    return [*_TRIED]


def _opened(arguments: tuple[Any, ...]) -> Iterator[str]:
    path, _, flags = arguments
    if isinstance(flags, int) and flags & _WRITING:
        yield from _written((path,))


def _written(arguments: tuple[Any, ...]) -> Iterator[str]:
    """What an import keeps beside a module is the interpreter's own doing."""
    for path in arguments[:2]:
        if isinstance(path, str | bytes | os.PathLike):
            text = os.path.abspath(os.fsdecode(path))
            there = text if os.path.exists(text) else os.path.dirname(text)
            if "__pycache__" not in text and not os.access(there, os.W_OK):
                yield f"write to {text}"


def _first(arguments: tuple[Any, ...]) -> Iterator[str]:
    yield from _written(arguments[:1])


def _reached(arguments: tuple[Any, ...]) -> Iterator[str]:
    address = arguments[1]
    if isinstance(address, tuple):
        yield f"reach {address[0]} port {address[1]}"
    elif address:
        yield f"reach {os.fsdecode(address)}"


def _asked_for(arguments: tuple[Any, ...]) -> Iterator[str]:
    yield f"reach {arguments[0]}"


def _signalled(arguments: tuple[Any, ...]) -> Iterator[str]:
    process, number = arguments
    if process in (-1, 0, 1, os.getppid()):
        yield f"signal process {process} ({number})"


_LOOKS: dict[str, Callable[[tuple[Any, ...]], Iterator[str]]] = {
    "open": _opened,
    "os.chmod": _first,
    "os.link": _written,
    "os.mkdir": _first,
    "os.remove": _first,
    "os.rename": _written,
    "os.rmdir": _first,
    "os.symlink": _written,
    "os.truncate": _first,
    "socket.bind": _reached,
    "socket.connect": _reached,
    "socket.sendto": _reached,
    "socket.getaddrinfo": _asked_for,
    "os.kill": _signalled,
    "os.killpg": _signalled,
}
