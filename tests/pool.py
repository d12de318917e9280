"""Trials in processes of their own: some of what is judged leaves the world changed."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def pool(module: str, jobs: int) -> concurrent.futures.ProcessPoolExecutor:
    """A process for each trial, forked from one that has imported ``module``."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.warm", module])
    return concurrent.futures.ProcessPoolExecutor(jobs, context, max_tasks_per_child=1)


def gpu_pool(jobs: int, tasks: int) -> concurrent.futures.ProcessPoolExecutor:
    """A process for so many trials: CUDA takes seconds to start, and does not stand a fork."""
    context = multiprocessing.get_context("spawn")
    return concurrent.futures.ProcessPoolExecutor(jobs, context, max_tasks_per_child=tasks)


def in_processes(
    function: Callable[[T], R], tasks: Sequence[T], jobs: int, line: Callable[[R], str]
) -> Iterator[R]:
    """``function`` of each task, as they end. ``line``: what is said of one."""
    return ended(pool(function.__module__, jobs), function, tasks, line)


def ended(
    processes: concurrent.futures.ProcessPoolExecutor,
    function: Callable[[T], R],
    tasks: Sequence[T],
    line: Callable[[R], str],
) -> Iterator[R]:
    """``function`` of each task by ``processes``, as they end."""
    with processes:
        futures = [processes.submit(function, task) for task in tasks]
        for number, future in enumerate(concurrent.futures.as_completed(futures), 1):
            done = future.result()
            print(f"[{number}/{len(tasks)}] {line(done)}", file=sys.stderr, flush=True)
            yield done
