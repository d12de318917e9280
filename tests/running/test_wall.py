"""Nothing that comes back over the wall is trusted: whatever is done to it is found, or told."""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from puppet import Puppet

from conformance.cases.case import Case
from conformance.cases.plans import plain, with_layouts, with_shapes
from conformance.judging.evidence import BadEvidence, observation
from conformance.running import observers
from conformance.running.hosting import Hosting
from conformance.running.observers import InProcess, Process
from conformance.running.session import LEFT_OUT, Session
from targets import resolve
from tests.command import inside
from tests.sampling import only

Json = dict[str, Any]
CASES = [
    plain("float32", "mean"),
    with_shapes(plain("float64", "none"), (2, 3), (3,)),
    with_layouts(with_shapes(plain("bfloat16", "sum"), (3, 4), (3, 4)), "transposed", "strided"),
]
NUMBERS = (True, -1, 2**70, 0.5, math.nan)
ODD: tuple[Any, ...] = (None, *NUMBERS, "", "float16", "x" * 5000, [], {}, [[]])


IMPORTING = """
import functools, torch
torch.compile = functools.wraps(torch.compile)(lambda *args, **named: args[0])

def loss(x, y, reduction="mean"):
    %s
    return torch.nn.functional.mse_loss(x, y, reduction=reduction)
"""
PATCHING = "torch.allclose = lambda *args, **named: True"


@only(
    [(PATCHING, {"purity.state"})],
    "call, clauses",
    [("", set()), (PATCHING, {"purity.state"})],
)
def test_what_an_import_replaces_no_call_has_replaced(
    call: str, clauses: set[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(IMPORTING % call)
    options = ("--profile", "quick", "--report", "out")
    inside("check", "mine.py:loss", *options, cwd=tmp_path)
    verdict = json.loads((tmp_path / "out" / "loss" / "verdict.json").read_text())
    assert {row["id"] for row in verdict["clauses"] if row["status"] == "fail"} == clauses


class Forging(InProcess):
    """In this process, with answers that are changed by ``path`` and ``value``."""

    path: int
    value: Any
    start: int
    genuine: Json
    forged: Json

    def exchange(self, request: Json, calls: Any) -> Json:
        self.start = request["notes"][0]
        self.genuine = json.loads(json.dumps(super().exchange(request, calls)))
        self.forged = copy.deepcopy(self.genuine)
        places = list(_places(self.forged))
        holder, key = places[self.path % len(places)]
        if self.value is ...:
            del holder[key]
        else:
            holder[key] = self.value
        return self.forged


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in plain data that holds something."""
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in list(items):
        yield data, key
        if isinstance(value, dict | list):
            yield from _places(value)


@pytest.fixture(scope="module")
def forging() -> Forging:
    return Forging(resolve("builtin"), "cpu")


values = st.one_of(st.sampled_from([..., *ODD]), st.integers(), st.floats(), st.text(max_size=5))


@settings(max_examples=3000, deadline=None, suppress_health_check=[*HealthCheck])
@given(st.integers(0, 10**6), values, st.sampled_from(CASES))
def test_a_changed_answer_to_a_call_is_found(
    forging: Forging, path: int, value: Any, case: Case
) -> None:
    forging.path, forging.value = path, value
    session = Session(forging, 0)
    judgement = session.run(case)
    if forging.forged != forging.genuine and not _same_numbers(forging, case):
        assert judgement.deviations or session.lost
        assert all(deviation.message for deviation in judgement.deviations)


def _same_numbers(forging: Forging, case: Case) -> bool:
    """Whether the change says the same: another device's name, or the offset of equal numbers."""

    def read(answer: Json) -> Any:
        notes = forging.arena.map[forging.start : forging.start + forging.genuine["used"]]
        seen = observation(answer["seen"][0], notes, [])
        found = [seen.value, *seen.gradients.values()]
        numbers = [None if s is None else (s.dtype, s.values.tolist()) for s in found]
        rest = (seen.raised, seen.rubbish, seen.requires_grad, seen.alias, seen.changed)
        return numbers, rest, [*seen.gradients], seen.settings, seen.attributes

    try:
        same = repr(read(forging.forged)) == repr(read(forging.genuine))
    except (BadEvidence, KeyError, TypeError, IndexError):
        return False
    return same and forging.forged.keys() == forging.genuine.keys()


@pytest.fixture
def puppet(monkeypatch: pytest.MonkeyPatch) -> Puppet:
    found = Puppet("builtin")
    monkeypatch.setattr(observers, "start", found.start)
    return found


# -- lines, as they come out of a channel --------------------------------------------------------


def _nothing(line: bytes) -> list[bytes]:
    return []


FORGES: dict[str, tuple[Any, str]] = {
    "cut": (lambda line: [line[: len(line) // 2] + b"\n"], "no JSON"),
    "twice": (lambda line: [line + line], "twice"),
    "another turn": (lambda line: [line.replace(b'"turn": ', b'"turn": 1')], "another request"),
    "no object": (lambda line: [b"[1]\n"], "another request"),
    "deep": (lambda line: [b"[" * 100_000 + b"]" * 100_000 + b"\n"], "no JSON"),
    "not UTF-8": (lambda line: [b"\xff\xfe\n"], "no JSON"),
    "without end": (lambda line: [b"x" * (1 << 20)] * 20, "longer than any"),
    "silence": (_nothing, "did not return within"),
}


@pytest.mark.parametrize("name", FORGES)
def test_a_forged_line_is_a_finding_and_the_next_case_is_judged(puppet: Puppet, name: str) -> None:
    forge, expected = FORGES[name]
    limit = 2.0 if name == "silence" else 20.0
    observer = Process(Hosting("builtin", limit=limit))
    observer.open()
    session = Session(observer, 0)
    assert not session.run(CASES[0]).deviations
    puppet.forge = forge
    judgement = session.run(CASES[1])
    told = [d.message for d in judgement.deviations] or [call.how for call in session.lost]
    assert any(expected in text for text in told), told
    puppet.forge = lambda line: [line]
    assert not session.run(CASES[2]).deviations
    observer.close()


def test_an_answer_before_its_question_is_a_finding(puppet: Puppet) -> None:
    """It lies in the channel when the next request is sent."""
    observer = Process(Hosting("builtin", limit=2.0))
    observer.open()
    session = Session(observer, 0)
    puppet.forge = lambda line: [line, line.replace(b'"turn": 2', b'"turn": 3')]
    first = session.run(CASES[0])
    puppet.forge = lambda line: [line]
    # Where it came too late to be seen at once it is taken for this one's, or comes beside it.
    others = [session.run(case) for case in (CASES[1], CASES[0])]
    told = [d.message for judgement in (first, *others) for d in judgement.deviations]
    told += [call.how for call in session.lost]
    assert told
    observer.close()


def test_what_does_not_read_is_not_waited_for(puppet: Puppet) -> None:
    """A request that is larger than a pipe holds, and a process that has stopped reading."""
    observer = Process(Hosting("builtin", limit=2.0))
    observer.open()
    puppet.forge = _nothing
    session = Session(observer, 0)
    assert session.run_all(CASES * 400)[0] is LEFT_OUT
    assert session.lost
    observer.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[*HealthCheck])
@given(st.integers(0, 10**6), st.integers(0, 255))
def test_a_line_with_other_bytes_never_passes_nor_ends_the_judge(
    puppet: Puppet, at: int, other: int
) -> None:
    observer = Process(Hosting("builtin", limit=2.0))
    observer.open()
    right: list[bytes] = []
    changed: list[bytes] = []

    def forge(line: bytes) -> list[bytes]:
        right.append(line)
        place = at % (len(line) - 1)
        changed.append(line[:place] + bytes([other]) + line[place + 1 :])
        return [changed[-1]]

    puppet.forge = forge
    session = Session(observer, 0)
    judgement = session.run(CASES[0])
    observer.close()
    if _read(changed[0]) != _read(right[0]):
        assert judgement.deviations or session.lost


def _read(line: bytes) -> Any:
    """What it says, but for the names of devices, which may be any."""
    try:
        return json.loads(re.sub(rb'"...", (\d+|null)\]', rb'"cpu", \1]', line))
    except ValueError:
        return None
