"""Observers of a fork server: apart from each other, told of when they end, and had without it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.cases.arena import Arena
from conformance.cases.plans import plain
from conformance.judging.observer import Lost
from conformance.running.hosting import Forked, ForkServer, Hosting
from conformance.running.observers import Process

ENDS = """
import os
import torch.nn.functional as F
from targets import Target

calls = []

def ends(x, y, reduction="mean"):
    calls.append(0)
    if len(calls) == 2:
        os._exit(7)
    return F.mse_loss(x, y, reduction=reduction)

loss = Target("ends", ends)
"""
CASE = plain("float32", "mean")


@contextlib.contextmanager
def server_of(hosting: Hosting) -> Iterator[ForkServer]:
    server = ForkServer(hosting)
    try:
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def observer_of(hosting: Hosting, server: ForkServer) -> Iterator[Process]:
    observer = Process(hosting, Arena.new(), None, server.channel.fileno())
    observer.open()
    try:
        yield observer
    finally:
        observer.close()


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture
def hosting(tmp_path: Path) -> Hosting:
    (tmp_path / "mine.py").write_text(ENDS)
    return Hosting(f"{tmp_path / 'mine.py'}:loss", limit=5.0)


def test_each_is_a_process_of_its_own_with_a_target_of_its_own(hosting: Hosting) -> None:
    with (
        server_of(hosting) as server,
        observer_of(hosting, server) as one,
        observer_of(hosting, server) as other,
    ):
        pids = [observer._running.process.pid for observer in (one, other)]
        assert len({*pids, os.getpid()}) == 3
        assert parent(pids[0]) == parent(pids[1]) != os.getpid()
        for observer in (one, other):  # the first call of either
            assert observer.observe([CASE])[0].raised is None


def test_how_one_ended_is_told_and_the_next_begins_anew(hosting: Hosting) -> None:
    with server_of(hosting) as server, observer_of(hosting, server) as observer:
        for _ in range(2):
            observer.observe([CASE])
            with pytest.raises(Lost, match="ended with status 7"):
                observer.observe([CASE])


def test_without_the_server_a_process_is_started(hosting: Hosting) -> None:
    with server_of(hosting) as server, observer_of(hosting, server) as observer:
        os.kill(server._process.pid, signal.SIGKILL)
        server._process.wait()
        with pytest.raises(Lost, match="SIGKILL"):
            observer.observe([CASE])
        observer.observe([CASE])
        assert not isinstance(observer._running.process, Forked)
