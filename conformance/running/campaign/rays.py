"""The engine of many machines: tasks of Ray, each of which takes a core, or a GPU.

Ray's workers are trusted as any worker is: they never import a target, and start its observer over
the wall. On each machine of the cluster the suite is installed.
"""

from __future__ import annotations

import functools
import json
import logging
import os
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from conformance.running.campaign.engine import Died, Event, Judged
from conformance.running.campaign.judging import Workplace
from conformance.running.campaign.task import Answer, Setting, Task
from conformance.running.neighbours import HOME
from conformance.running.options import UsageError

AHEAD = 2  # tasks for each core or GPU: the next one waits there


class Ray:
    """The cluster at ``address``, or one of this machine with ``jobs`` cores where that is empty.

    What joins the cluster is given work; what leaves it loses the kernels that it had in hand.
    """

    def __init__(self, setting: Setting, address: str, jobs: int) -> None:
        paths = [str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])]
        own: dict[str, Any] = {
            "num_cpus": jobs,
            "include_dashboard": False,
            "runtime_env": {"env_vars": {"PYTHONPATH": os.pathsep.join(paths)}},
        }
        try:
            ray.init(
                **({"address": address} if address else own),
                logging_level=logging.ERROR,
                log_to_driver=False,
                ignore_reinit_error=True,
            )
        except (RayError, ConnectionError, ValueError) as error:
            raise UsageError(f"no Ray cluster at {address or 'this machine'}: {error}") from None
        device = setting.hosting["device"].partition(":")[0]
        self._resource = "GPU" if device == "cuda" else "CPU"
        takes = {"num_gpus": 1} if self._resource == "GPU" else {"num_cpus": 1}
        # Whether it is tried again is the ledger's to say.
        self._judge = ray.remote(**takes, max_retries=0)(judge)
        self._setting = json.dumps(setting.to_json())
        self._tasks: dict[Any, Task] = {}

    @property
    def room(self) -> int:
        places = int(ray.cluster_resources().get(self._resource, 0))
        return AHEAD * places - len(self._tasks)

    def submit(self, task: Task) -> None:
        self._tasks[self._judge.remote(self._setting, task.to_json())] = task

    def wait(self, seconds: float) -> list[Event]:
        done, _ = ray.wait([*self._tasks], num_returns=1, timeout=seconds)
        return [self._event(reference) for reference in done]

    def close(self) -> None:
        for reference in self._tasks:
            ray.cancel(reference, force=True)
        ray.shutdown()

    def _event(self, reference: Any) -> Event:
        task = self._tasks.pop(reference)
        try:
            return Judged(task, Answer.from_json(ray.get(reference)))
        except RayTaskError:  # the suite's own mistake, and no kernel's doing
            raise
        except RayError as error:
            return Died(task, f"was lost: {type(error).__name__}")


def judge(setting: str, task: dict[str, Any]) -> dict[str, Any]:
    """As a task of Ray."""
    return _workplace(setting).judge(Task.from_json(task)).to_json()


@functools.cache
def _workplace(setting: str) -> Workplace:
    """Of this process, for all of its tasks: torch is imported once for them."""
    return Workplace(Setting.from_json(json.loads(setting)))
