"""The black box: a small file where a worker writes down each call before it makes it.

The file is mapped into memory, so it outlives a worker that crashes and costs no system call. The
supervisor reads which call a dead worker was in, and how long a live one has been in it.
"""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path

_SIZE = 1 << 16
# When the call began (time.monotonic), 0 outside; the lengths of its text and of the reason; how
# many calls have ended before.
_HEADER = struct.Struct("dIII")


class BlackBox:
    """One worker's box at ``path``; made if it does not exist."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            path.write_bytes(bytes(_SIZE))
        with path.open("r+b") as stream:
            self._map = mmap.mmap(stream.fileno(), _SIZE)
        self._ended = 0  # as its writer knows

    def enter(self, text: str) -> None:
        """A call begins."""
        self._write(time.monotonic(), text, "")

    def fail(self, reason: str) -> None:
        """The call goes on being the present one: the process is about to end, for this reason."""
        self._write(time.monotonic(), self.read()[1], reason)

    def leave(self) -> None:
        """The call has ended."""
        self._ended += 1
        _HEADER.pack_into(self._map, 0, 0.0, 0, 0, self._ended)

    def read(self) -> tuple[float, str]:
        """For how many seconds the present call has run, and its text; (0, "") outside a call."""
        began, length, _, _ = _HEADER.unpack_from(self._map, 0)
        if not began:
            return 0.0, ""
        return time.monotonic() - began, self._text(_HEADER.size, length)

    def ended(self) -> int:
        """How many calls have ended."""
        return int(_HEADER.unpack_from(self._map, 0)[3])

    def reason(self) -> str:
        """Why the process ended in the present call, where it could say so."""
        _, length, further, _ = _HEADER.unpack_from(self._map, 0)
        return self._text(_HEADER.size + length, further)

    def _text(self, start: int, length: int) -> str:
        return bytes(self._map[start : start + length]).decode(errors="replace")

    def _write(self, began: float, text: str, reason: str) -> None:
        data = text.encode()[: _SIZE - _HEADER.size]
        further = reason.encode()[: _SIZE - _HEADER.size - len(data)]
        whole = data + further
        self._map[_HEADER.size : _HEADER.size + len(whole)] = whole
        _HEADER.pack_into(self._map, 0, began, len(data), len(further), self._ended)
