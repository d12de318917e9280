"""An observer whose answers a test writes: behind the wall, a process that does nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from conformance.cases.arena import Arena
from conformance.observer.description import described, environment
from conformance.observer.desk import Desk
from conformance.running.hosting import Hosting, Started
from targets import resolve

Json = dict[str, Any]
Forge = Callable[[bytes], list[bytes]]  # of a right answer: what is written instead, in pieces
IDLE = "import time; time.sleep(600)"


class Puppet:
    """Starts processes whose answers to requests (but the first) a function makes of right ones."""

    def __init__(self, spec: str) -> None:
        self.target = resolve(spec)
        self.forge: Forge = lambda line: [line]
        self.started = 0

    def start(self, hosting: Hosting, arena: Arena, server: int | None = None) -> Started:
        theirs, requests = os.pipe()
        answers, back = os.pipe()
        for descriptor in (requests, answers):
            os.set_blocking(descriptor, False)
        process = subprocess.Popen([sys.executable, "-S", "-c", IDLE], start_new_session=True)
        desk = Desk(self.target, "cpu", Arena(arena.descriptor))
        threading.Thread(target=self._play, args=(theirs, back, desk), daemon=True).start()
        self.started += 1
        return Started(process, requests, answers, None)

    def _play(self, requests: int, answers: int, desk: Desk) -> None:
        with os.fdopen(requests) as lines, os.fdopen(answers, "wb", 0) as out:
            for number, line in enumerate(lines):
                request = json.loads(line)
                if number:
                    answer, forge = desk.answer(request), self.forge
                else:
                    answer = {"claimed": described(self.target), "environment": environment()}
                    forge = lambda line: [line]  # noqa: E731
                answer |= {"turn": request["turn"]}
                try:
                    for piece in forge(json.dumps(answer).encode() + b"\n"):
                        out.write(piece)
                except OSError:
                    return  # the judge has closed the channel
