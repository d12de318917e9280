"""A process that judges kernels: ``python -m conformance.running.campaign.worker``.

It takes the setting of its run, then tasks, as lines of JSON, and answers each with one. (A command
line could be read by a target.)
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
from typing import Any

from conformance.observer.host import end_with_parent
from conformance.running.campaign.judging import Workplace
from conformance.running.campaign.task import Setting, Task


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the controller hears it
    end_with_parent()
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def reply(answer: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # nobody asks any more
            replies.write(json.dumps(answer) + "\n")
            replies.flush()

    first = sys.stdin.readline()
    if not first:
        return 0
    workplace = Workplace(Setting.from_json(json.loads(first)))
    with (
        contextlib.closing(workplace),
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch,
    ):
        os.chdir(scratch)  # what a kernel writes beside itself
        for line in sys.stdin:
            reply(workplace.judge(Task.from_json(json.loads(line))).to_json())
    return 0


if __name__ == "__main__":
    sys.exit(main())
