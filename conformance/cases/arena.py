"""The arena: memory that both sides of the wall see, and its form.

It begins with a header: how many calls the observer has begun and ended, and why its process ends
where it can say so. What a request hands in lies behind it, and what the observer writes down lies
behind that. It is as large as address space allows and takes memory only where it was written to.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import weakref

SIZE = 1 << 34  # bytes of address space; memory is taken page by page
HEADER = 4096
ALIGNED = 64  # bytes: as torch aligns what it allocates on the CPU
_COUNT = struct.Struct("<Q")
_REASON = 24  # where its text begins, behind its length
LARGE = 1 << 24  # bytes: what is used beyond is given back to the system

# The dtypes that cross the wall, and the bytes of an element.
WIDTHS = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}


def aligned(offset: int) -> int:
    """The next offset at which a tensor may begin."""
    return -(-offset // ALIGNED) * ALIGNED


class Arena:
    """One mapping of the memory behind a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.map = mmap.mmap(descriptor, SIZE)
        self._begun = self._ended = 0  # as its observer counts

    @classmethod
    def new(cls) -> Arena:
        """Empty. Raises OSError where the system gives no memory."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("data")  # a target sees its name
        else:  # another system than Linux
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, SIZE)
        arena = cls(descriptor)
        weakref.finalize(arena, os.close, descriptor)
        return arena

    def begin(self) -> None:
        """The observer: a call begins."""
        self._begun += 1
        _COUNT.pack_into(self.map, 0, self._begun)

    def end(self) -> None:
        """The observer: the call has ended."""
        self._ended += 1
        _COUNT.pack_into(self.map, 8, self._ended)

    def fail(self, reason: str) -> None:
        """The observer: the process is about to end, for this reason."""
        text = reason.encode()[: HEADER - _REASON]
        self.map[_REASON : _REASON + len(text)] = text
        _COUNT.pack_into(self.map, 16, len(text))

    def counts(self) -> tuple[int, int]:
        """How many calls have begun, and ended, in the present request."""
        return _COUNT.unpack_from(self.map)[0], _COUNT.unpack_from(self.map, 8)[0]

    def reason(self) -> str:
        """Why the process ended, where it could say so."""
        length = min(_COUNT.unpack_from(self.map, 16)[0], HEADER - _REASON)
        return self.map[_REASON : _REASON + length].decode(errors="replace")

    def clear(self) -> None:
        """Before a request: nothing has begun."""
        self._begun = self._ended = 0
        self.map[:_REASON] = bytes(_REASON)

    def release(self, used: int) -> None:
        """Give memory back that a large request took: what is read there again is zeros."""
        if used > LARGE and hasattr(mmap, "MADV_REMOVE"):
            start = -(-(HEADER + LARGE) // mmap.PAGESIZE) * mmap.PAGESIZE
            self.map.madvise(mmap.MADV_REMOVE, start, -(-used // mmap.PAGESIZE) * mmap.PAGESIZE)
