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
_HEADER = struct.Struct("dI")  # when the call began (time.monotonic), 0 outside; length of the text


class BlackBox:
    """One worker's box at ``path``; made if it does not exist."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_SIZE))
        with path.open("r+b") as stream:
            self._map = mmap.mmap(stream.fileno(), _SIZE)

    def enter(self, text: str) -> None:
        """A call begins."""
        data = text.encode()[: _SIZE - _HEADER.size]
        self._map[_HEADER.size : _HEADER.size + len(data)] = data
        _HEADER.pack_into(self._map, 0, time.monotonic(), len(data))

    def leave(self) -> None:
        """The call has ended."""
        _HEADER.pack_into(self._map, 0, 0.0, 0)

    def read(self) -> tuple[float, str]:
        """For how many seconds the present call has run, and its text; (0, "") outside a call."""
        began, length = _HEADER.unpack_from(self._map, 0)
        if not began:
            return 0.0, ""
        text = bytes(self._map[_HEADER.size : _HEADER.size + length]).decode()
        return time.monotonic() - began, text
