"""``python -m tests campaign``: the bank as a campaign, which is the project's benchmark of them.

It says how many kernels an hour were judged, at what cost in CPU time, and where the campaign and
the truth differ. Exit status 0 where no right one is broken and no forger conforms.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from conformance.running.campaign.command import Options, campaign, tell
from conformance.running.hosting import Hosting
from tests.corpus import TABLE, TRUTH, samples, write


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests campaign", description=__doc__)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="each N-th kernel alone")
    parser.add_argument(
        "--kinds", nargs="+", help="mutant, lenient, right, forger; all unless told"
    )
    parser.add_argument("--until", default="screen")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--engine", default="local")
    parser.add_argument("--timeout", type=float, default=20.0)
    parser.add_argument("--out", type=Path, help="a folder that is kept")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.out or Path(scratch)
        chosen = [s for s in samples() if not options.kinds or s.kind in options.kinds]
        write(folder, chosen[:: options.every])
        progress = campaign(
            Options(
                [folder / TABLE],
                folder / "campaign",
                Hosting("", limit=options.timeout),
                until=options.until,
                jobs=options.jobs,
                engine=options.engine,
            )
        )
        tell(progress, folder / "campaign")
        return compared(folder)


def compared(folder: Path) -> int:
    """Say where a campaign over a corpus differs from the truth; the exit status."""
    rows = [json.loads(line) for line in (folder / TRUTH).read_text().splitlines()]
    lines = (folder / "campaign" / "results.jsonl").read_text().splitlines()
    found = {row["name"]: row for row in map(json.loads, lines)}
    counts = Counter(
        (row["kind"], str(found.get(row["name"], {}).get("outcome", "not judged"))) for row in rows
    )
    for (kind, outcome), count in sorted(counts.items()):
        print(f"{kind:8} {outcome:10} {count}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    print(f"{cpu:,.0f} s of CPU, {cpu / max(len(found), 1):.2f} s a kernel")
    wrong = 0
    for row in rows:
        told = found.get(row["name"])
        if told is not None and told["correct"] != row["correct"]:
            must = row["kind"] in ("lenient", "right", "forger")
            wrong += must and told["correct"] is not None
            print(f"{row['name']}: {told['outcome']}, {told['clause'] or told['reason']}", end="")
            print(f": {told['message']}" if told["message"] else "")
    return 1 if wrong else 0
