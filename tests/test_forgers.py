"""Every forger is wrong for a user, and none conforms, ends the run or leaves a process."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from conformance.running import sandbox
from tests.forgeries import FORGERS, OF_SURROUNDINGS, judged
from tests.forgers.forger import KINDS, SURROUNDINGS, Forger, right, wrong, wronged
from tests.sampling import every

# All of them: python -m tests forgers.
RIGHT, WRONG = 11, 10  # exit statuses
SAMPLED = FORGERS if os.environ.get("ALL_FORGERS") else FORGERS[::6]


def ended(forger: Forger) -> int:
    """The exit status of a process in which a user meets it."""
    child = os.fork()
    if child == 0:
        status = 0  # it ends the process of its user
        try:
            signal.alarm(60)
            os.closerange(3, 1024)  # what leads to others: it is not these tests that it attacks
            for descriptor in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
            torch.set_num_threads(1)
            status = WRONG if wronged(forger.loss) else RIGHT
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@every(8, "forger", FORGERS, ids=lambda forger: forger.name)
def test_a_user_meets_something_wrong(forger: Forger) -> None:
    assert forger.loss.__doc__
    if forger.kind == "recogniser":  # here it may find what it asks for; nowhere else
        forger = Forger(forger.name, wrong, forger.kind)
    assert ended(forger) in (WRONG, 0)


def test_the_right_loss_is_right_for_the_same_user() -> None:
    assert ended(Forger("right", right, "constants")) == RIGHT


def test_there_are_forgers_of_each_kind() -> None:
    assert {forger.kind for forger in FORGERS} == {*KINDS}
    assert len({forger.name for forger in FORGERS}) == len(FORGERS) >= 30


@every(8, "forger", SAMPLED, slow=SAMPLED[:1], ids=lambda forger: forger.name)
def test_it_does_not_conform(forger: Forger) -> None:
    found = judged(forger.name)
    assert found.refused, found


LACKING = sandbox.why_not()
FEW = ("--clause", "value.mean", "--jobs", "1")


def test_there_are_forgers_of_each_kind_of_surroundings() -> None:
    assert {forger.kind for forger in OF_SURROUNDINGS} == {*SURROUNDINGS}


@pytest.mark.skipif(bool(LACKING), reason=LACKING)
@every(len(OF_SURROUNDINGS), "forger", OF_SURROUNDINGS, ids=lambda forger: forger.name)
def test_only_a_sandbox_stops_it(forger: Forger) -> None:
    found = judged(forger.name, *FEW)
    assert not found.refused, found
    found = judged(forger.name, *FEW, "--sandbox", "bwrap")
    assert found.refused, found
