"""Who hands out the work, with an engine that a test plays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from conformance.running.campaign.controller import Controller
from conformance.running.campaign.engine import Died, Event, Judged
from conformance.running.campaign.kernels import Kernel
from conformance.running.campaign.ledger import Circumstances, Ledger
from conformance.running.campaign.task import Answer, Task
from conformance.verdict.outcome import Outcome

OWN = Circumstances("mse 1.0", "0.1", "abc", "python 3.11")
CONFORMS = Answer(Outcome("conforms", "conforms"), None, 0.5, 2.0, True, "here:1")
BROKEN = Answer(Outcome("broken", "value", "value.none"), None, 0.5, 2.0, True, "here:1")
KERNELS = [Kernel(name, name, f"/{name}.py") for name in ("right", "wrong", "killer", "other")]


def play(task: Task) -> Event:
    if task.kernel.name == "killer":
        return Died(task, "was killed")
    return Judged(task, BROKEN if task.kernel.name == "wrong" else CONFORMS)


@dataclass
class Played:
    """Room for two tasks; ``after``: an interrupt comes in the place of so many answers."""

    after: int = 1_000
    seen: list[tuple[str, str]] = field(default_factory=list)
    closed: bool = False
    _tasks: list[Task] = field(default_factory=list)

    @property
    def room(self) -> int:
        return 2 - len(self._tasks)

    def submit(self, task: Task) -> None:
        self._tasks.append(task)
        self.seen.append((task.kernel.name, task.stage))

    def wait(self, seconds: float) -> list[Event]:
        self.after -= 1
        if self.after < 0:
            raise KeyboardInterrupt
        return [play(self._tasks.pop(0))]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path) as found:
        yield found


@pytest.fixture
def controller(ledger: Ledger) -> Callable[..., Controller]:
    return lambda **options: Controller(ledger, OWN, KERNELS, **options)


def run(controller: Controller, engine: Played | None = None) -> Played:
    engine = engine or Played()
    controller.run(lambda: engine)
    assert engine.closed or not engine.seen
    return engine


def outcomes(ledger: Ledger) -> dict[tuple[str, str], str]:
    names = {kernel.digest: kernel.name for kernel in KERNELS}
    return {
        (names[e.kernel], e.stage): e.outcome.reason
        for e in ledger.entries(OWN)
        if e.stage != "compile"
    }


def test_what_screening_does_not_break_has_its_verdict_of_quick(
    ledger: Ledger, controller: Callable[..., Controller]
) -> None:
    seen = run(controller()).seen
    assert seen[:2] == [("right", "screen"), ("wrong", "screen")]
    assert outcomes(ledger) == {
        ("right", "screen"): "conforms",
        ("right", "quick"): "conforms",
        ("wrong", "screen"): "value",
        ("killer", "screen"): "worker",
        ("other", "screen"): "conforms",
        ("other", "quick"): "conforms",
    }


def test_what_conforms_goes_on_to_default_once_all_are_screened(
    controller: Callable[..., Controller],
) -> None:
    seen = run(controller(until="default")).seen
    assert seen[-2:] == [("killer", "screen")] * 2 or ("right", "default") in seen
    assert {name for name, stage in seen if stage == "default"} == {"right", "other"}
    assert seen.index(("right", "default")) > seen.index(("other", "screen"))


def test_who_kills_three_workers_is_a_finding_and_delays_nothing(
    controller: Callable[..., Controller],
) -> None:
    one = controller()
    seen = run(one).seen
    assert seen.count(("killer", "screen")) == 3
    assert seen[-1] == ("killer", "screen")
    now = one.progress()
    assert (now.kernels, now.conforming, now.broken, now.lost, now.left) == (4, 2, 2, 3, 0)


def test_nothing_is_done_twice(controller: Callable[..., Controller]) -> None:
    run(controller())
    assert run(controller()).seen == []
    assert {stage for _, stage in run(controller(until="default")).seen} == {"default"}


def test_after_an_interrupt_the_rest_is_done_and_nothing_else(
    ledger: Ledger, controller: Callable[..., Controller]
) -> None:
    stopped = Played(after=2)
    with pytest.raises(KeyboardInterrupt):
        controller().run(lambda: stopped)
    assert stopped.closed
    before = outcomes(ledger)
    again = run(controller()).seen
    assert not {name for name, _ in before} & {name for name, _ in again}
    assert {name for name, _ in outcomes(ledger)} == {kernel.name for kernel in KERNELS}


def test_a_limit_is_kept(controller: Callable[..., Controller]) -> None:
    assert len(run(controller(limit=1)).seen) == 1
    one = controller(limit=2)
    run(one)
    assert one.done == 2
