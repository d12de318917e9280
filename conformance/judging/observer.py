"""The judge's end of the wall: what is asked of an observer, and what came back, checked."""

from __future__ import annotations

import abc
import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.cases.arena import ALIGNED, HEADER, SIZE, WIDTHS, Arena, aligned
from conformance.cases.case import Case, Operand
from conformance.cases.claimed import Claimed
from conformance.cases.domain import FULL
from conformance.cases.layouts import place
from conformance.cases.values import encoded, raw
from conformance.judging.evidence import BadEvidence, Evidence, evidence, observation
from conformance.judging.oracle import grad_output, result_dtypes
from conformance.judging.seen import Observation
from reference.formats import Floats

Json = dict[str, Any]
BATCH = 1 << 26  # bytes handed in: a batch ends there
ASKED = 200  # characters of what was asked for that a message has
SPARE = 1 << 20  # bytes of notes beyond what is expected: a wrong result may be larger than a right


class Lost(Exception):
    """A call ended the observer, or did not return. ``call``: as it was announced, empty outside of
    any. ``status``: crash or timeout, after ``limit`` seconds. ``how``: after "the call".
    ``elements``: that were handed in to a protocol, which ``asked`` describes."""

    def __init__(self, call: str, status: str, how: str, limit: float = 0.0) -> None:
        super().__init__(how)
        self.call, self.status, self.how, self.limit = call, status, how, limit
        self.elements, self.asked = 0, ""


class Raised(Exception):
    """A protocol raised: the message is the exception as text, ``kind`` the name of its type.
    ``asked``: what it was asked for."""

    def __init__(self, text: str, kind: str, asked: str = "") -> None:
        super().__init__(text)
        self.kind, self.asked = kind, asked


class Unavailable(Exception):
    """Something that cannot be found out here; the message says what is missing."""


class Outside(Unavailable):
    """A call whose operands lie outside of what the target says it takes."""


@dataclass(frozen=True, eq=False)
class Given:
    """A tensor that the observer is to make: contiguous, with these elements, exact in ``dtype``.

    ``needs``: whether it requires a gradient.
    """

    values: Floats
    dtype: str
    needs: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def put(self, at: int, value: float) -> Given:
        """The same but for one element."""
        values = self.values.copy()
        values[at] = value
        return Given(values, self.dtype, self.needs)

    def leaf(self, needs: bool = True) -> Given:
        """The same, requiring a gradient."""
        return Given(self.values, self.dtype, needs)


Range = tuple[str, int, int]  # of which operand, and from where to where in what is handed in


class _Image:
    """What a request hands in: the judge's own copy of it."""

    def __init__(self) -> None:
        self.parts: list[tuple[int, NDArray[np.uint8]]] = []
        self.size = 0

    def add(self, data: NDArray[np.uint8], spare: int = 0) -> int:
        """Where it begins, from the start of what is handed in. ``spare``: bytes after it, of 0."""
        start = self.size
        self.parts.append((start, data))
        self.size = aligned(start + data.size + spare)
        return start

    def whole(self) -> bytes:
        """What is between the parts is 0."""
        pieces: list[bytes | memoryview] = []
        at = 0
        for start, data in self.parts:
            pieces += [bytes(start - at), data.data]
            at = start + data.size
        return b"".join([*pieces, bytes(self.size - at)])


class Observer(abc.ABC):
    """An observer of one target on one device, whichever side of a wall it is on.

    ``claimed``: what the target says of itself. ``environment``: versions and hardware beside it.
    ``limit``: seconds that a call may take. ``isolation``: none, process or sandbox. ``stand_in``:
    which calls are not the target's, while somebody asks why it deviates (see
    ``observer/standin.py``).
    """

    limit = math.inf
    isolation = "none"
    stand_in: Sequence[Json] = ()
    claimed: Claimed
    environment: dict[str, str]
    device: str
    arena: Arena

    def observe(self, cases: Sequence[Case]) -> list[Observation]:
        """Run each of ``cases`` once. Raises Lost, which names the case, and BadEvidence."""
        return [seen for batch in _batches(cases) for seen in self._observe(batch)]

    def _observe(self, cases: Sequence[Case]) -> list[Observation]:
        image = _Image()
        calls, ranges = zip(*(_call(case, image) for case in cases), strict=True)
        room = sum(map(_room, cases)) + SPARE
        request = {"do": "calls", "calls": calls}
        whole = image.whole()
        answer, notes = self._asked(request, whole, room, [c.key() for c in cases])
        changed = self._changes(whole)
        self.arena.release(len(whole) + len(notes))
        seen = _only(answer, "seen")["seen"]
        if not isinstance(seen, list) or len(seen) != len(cases):
            raise BadEvidence("the observer's answer does not speak of each call once")
        return [
            observation(one, notes, [n for n, start, end in mine if changed(start, end)])
            for one, mine in zip(seen, ranges, strict=True)
        ]

    def ask(
        self, protocol: str, given: dict[str, Given], settings: Json, announced: str = ""
    ) -> Evidence:
        """What ``protocol`` saw. Raises Raised, Unavailable, Outside, Lost and
        BadEvidence."""
        image = _Image()
        handed = {name: [_given(one, image), one.needs] for name, one in given.items()}
        request = {"do": "perform", "name": protocol, "given": handed, "settings": settings}
        room = 16 * sum(8 * one.values.size for one in given.values()) + SPARE
        whole = image.whole()
        try:
            answer, notes = self._asked(request, whole, room, [announced or protocol])
        except Lost as lost:
            lost.elements = sum(one.values.size for one in given.values())
            lost.asked = _described(protocol, given, settings)
            raise
        self.arena.release(len(whole) + len(notes))
        if "unavailable" in answer:
            raise Unavailable(str(_only(answer, "unavailable")["unavailable"]))
        if "outside" in answer and self.claimed.domain != FULL:
            raise Outside(str(_only(answer, "outside")["outside"]))
        if "raised" in answer:
            raised = _only(answer, "raised", "kind")
            asked = _described(protocol, given, settings)
            raise Raised(str(raised["raised"]), str(raised["kind"]), asked)
        return evidence(_only(answer, "evidence")["evidence"], notes)

    def _asked(
        self, request: Json, image: bytes, room: int, calls: list[str]
    ) -> tuple[Json, bytes]:
        """The answer and the observer's notes."""
        start = HEADER + len(image)
        if start + room > SIZE:
            raise Unavailable("such large operands do not fit into the arena")
        self.arena.map[HEADER:start] = image
        if self.stand_in:
            request = request | {"stand_in": self.stand_in}
        answer = self.exchange(request | {"handed": len(image), "notes": [start, room]}, calls)
        used = answer.get("used")
        if not (type(used) is int and 0 <= used <= room):
            raise BadEvidence("the observer's notes are longer than there is room for them")
        return answer, self.arena.map[start : start + used]

    def _changes(self, image: bytes) -> Callable[[int, int], bool]:
        """Whether what was handed in between two places is not as it was."""
        now = self.arena.map[HEADER : HEADER + len(image)]
        if now == image:  # as nearly always
            return lambda start, end: False
        return lambda start, end: now[start:end] != image[start:end]

    @abc.abstractmethod
    def exchange(self, request: Json, calls: Sequence[str]) -> Json:
        """The answer to a request which makes ``calls``, one after the other. Raises Lost."""

    @contextlib.contextmanager
    def standing_in(self, asked: Sequence[Json]) -> Iterator[None]:
        """All calls inside that one of ``asked`` is about are answered by torch's own loss."""
        self.stand_in = asked
        try:
            yield
        finally:
            self.stand_in = ()

    @contextlib.contextmanager
    def within(self, calls: int) -> Iterator[None]:
        """All requests inside take no longer than so many calls may."""
        yield

    @abc.abstractmethod
    def close(self) -> None:
        """End it; whatever it is doing."""


def _described(protocol: str, given: dict[str, Given], settings: Json) -> str:
    """What is asked for, in a line: `` (in transforms.autocast: x float32[3], …, dtype='…')``."""
    parts = [f"{name} {one.dtype}{list(one.shape)}" for name, one in given.items()]
    parts += [f"{name}={value!r}" for name, value in settings.items()]
    text = f"{protocol}: {', '.join(parts)}"
    return f" (in {text if len(text) <= ASKED else text[:ASKED] + '…'})"


def _only(answer: Json, *names: str) -> Json:
    """The answer, which has these and nothing else of its own. Raises BadEvidence."""
    if answer.keys() - {"turn", "used"} != {*names}:
        raise BadEvidence("the observer's answer has other parts than were asked for")
    return answer


def _batches(cases: Sequence[Case]) -> Iterator[list[Case]]:
    """Parts of ``cases``, none of which hands in much more than :data:`BATCH` bytes."""
    batch: list[Case] = []
    size = 0
    for case in cases:
        own = _room(case)
        if batch and size + own > BATCH:
            yield batch
            batch, size = [], 0
        batch.append(case)
        size += own
    if batch:
        yield batch


def _room(case: Case) -> int:
    """Bytes that its result and gradients take, and about as many as its operands do."""
    elements = math.prod(case.shape) + case.input.size + case.target.size
    return 8 * elements + 3 * ALIGNED


def _call(case: Case, image: _Image) -> tuple[list[Any], list[Range]]:
    """As the observer is told of it, and where its operands lie."""
    ranges: list[Range] = []

    def handed(name: str, operand: Operand) -> list[Any]:
        data = raw(operand)
        start = image.add(data)
        ranges.append((name, start, start + data.size))
        return _placed(operand, start, data.size)

    x = handed("input", case.input)
    y = None if case.same else handed("target", case.target)
    gs = [
        handed("grad_output", grad_output(case, dtype))
        for dtype in (result_dtypes(case) if case.differentiated else ())
    ]
    parameters = {name: repr(value) for name, value in case.parameters}
    return [x, y, gs, case.needs, case.reduction, case.mode, parameters], ranges


def _placed(operand: Operand, start: int, size: int) -> list[Any]:
    """See ``observer.tensors.Placed``."""
    spot = place(operand.layout, operand.shape)
    own = operand.layout == "contiguous"
    count = size // WIDTHS[operand.dtype]
    form = [operand.shape, spot.strides, spot.offset, own]
    return [HEADER + start, count, operand.dtype, *form]


def _given(given: Given, image: _Image) -> list[Any]:
    """One element more than it has, since no buffer is empty."""
    data, width = encoded(given.values, given.dtype), WIDTHS[given.dtype]
    size = data.size // width + 1
    return [HEADER + image.add(data, width), size, given.dtype, *_contiguous(given.shape)]


@functools.lru_cache(maxsize=1024)
def _contiguous(shape: tuple[int, ...]) -> list[Any]:
    spot = place("contiguous", shape)
    return [shape, spot.strides, spot.offset, True]
