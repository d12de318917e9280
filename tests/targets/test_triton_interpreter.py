"""The helper for Triton's interpreter: threads wait, and no kernel reads bfloat16."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import torch

from targets import interpreter


def most_at_once(launch: Callable[[], None], inside: list[int], threads: int = 4) -> int:
    """How many of several threads are inside of a launch at once."""
    ready = threading.Barrier(threads)

    def run() -> None:
        ready.wait()
        launch()

    every = [threading.Thread(target=run) for _ in range(threads)]
    for thread in every:
        thread.start()
    for thread in every:
        thread.join()
    return max(inside)


def kernel(inside: list[int], running: list[int]) -> None:
    running.append(0)
    inside.append(len(running))
    time.sleep(0.01)
    running.pop()


def test_one_thread_at_a_time_launches() -> None:
    inside, running, x = list[int](), list[int](), torch.ones(1)

    def launch() -> None:
        with interpreter.launching(x):
            kernel(inside, running)

    assert most_at_once(launch, inside) == 1
    assert most_at_once(lambda: kernel(inside, running), inside) > 1, "without it they would meet"


def test_a_launch_within_a_launch_does_not_wait_for_itself() -> None:
    x = torch.ones(1)
    with interpreter.launching(x), interpreter.launching(x):
        pass


def test_a_launch_of_somebody_elses_waits_in_the_interpreter_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inside, running = list[int](), list[int]()
    monkeypatch.setattr(interpreter, "INTERPRETED", True)
    locked = interpreter.one_at_a_time(kernel)
    assert most_at_once(lambda: locked(inside, running), inside) == 1
    monkeypatch.setattr(interpreter, "INTERPRETED", False)
    assert interpreter.one_at_a_time(kernel) is kernel


@pytest.mark.parametrize("interpreted", [True, False])
def test_what_the_interpreter_gets_wrong_is_read_wider(
    monkeypatch: pytest.MonkeyPatch, interpreted: bool
) -> None:
    monkeypatch.setattr(interpreter, "INTERPRETED", interpreted)
    wide = interpreter.readable(torch.ones(2, dtype=torch.bfloat16))
    assert wide.dtype is (torch.float32 if interpreted else torch.bfloat16)
    half = torch.ones(2, dtype=torch.float16)
    assert interpreter.readable(half) is half
