"""Trials in processes of their own: some of what is judged leaves the world changed."""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
Pool = concurrent.futures.ProcessPoolExecutor
TRIES = 5  # what races may crash now and then


def pool(module: str, jobs: int) -> Pool:
    """A process for each trial, forked from one that has imported ``module``."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.warm", module])
    return Pool(jobs, context, max_tasks_per_child=1)


def gpu_pool(jobs: int, tasks: int) -> Pool:
    """A process for so many trials: CUDA takes seconds to start, and does not stand a fork."""
    context = multiprocessing.get_context("spawn")
    return Pool(jobs, context, max_tasks_per_child=tasks)


def in_processes(
    function: Callable[[T], R], tasks: Sequence[T], jobs: int, line: Callable[[R], str]
) -> Iterator[R]:
    """``function`` of each task, as they end. ``line``: what is said of one."""
    return ended(lambda: pool(function.__module__, jobs), function, tasks, line)


def ended(
    make: Callable[[], Pool],
    function: Callable[[T], R],
    tasks: Sequence[T],
    line: Callable[[R], str],
) -> Iterator[R]:
    """``function`` of each task by a pool of processes, as they end.

    A process that dies takes its pool with it: what had not ended is tried again by another one.
    Raises RuntimeError where that goes on.
    """
    left = dict(enumerate(tasks))
    for _ in range(TRIES):
        with make() as processes:
            futures = {processes.submit(function, task): k for k, task in left.items()}
            for future in concurrent.futures.as_completed(futures):
                try:
                    done = future.result()
                except concurrent.futures.process.BrokenProcessPool:
                    continue
                del left[futures[future]]
                count = f"[{len(tasks) - len(left)}/{len(tasks)}]"
                print(f"{count} {line(done)}", file=sys.stderr, flush=True)
                yield done
        if not left:
            return
    raise RuntimeError(f"{TRIES} times a process died, with these left: {[*left.values()]}")
