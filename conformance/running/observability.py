"""Cases in Hypothesis's format of observations, which Tyche and other tools read.

The format: one JSON object a line; see "Observability" in Hypothesis's documentation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from conformance.cases.case import Case
from conformance.cases.features import features
from conformance.judging.checks import Judgement
from conformance.judging.measures import layout_family, path


@dataclass
class CaseLog:
    """Writes down every case of a target. ``run_start``: a Unix time, the same for all of a run."""

    target: str
    device: str
    run_start: float
    lines: list[dict[str, Any]] = field(default_factory=list)

    def see(
        self, case: Case, judgement: Judgement, shard: str, seconds: float, ran: bool = True
    ) -> None:
        """Add a case. ``seconds``: what the target and its judgement took."""
        found = [f"{d.aspect}: {d.message}" for d in judgement.deviations]
        status = "failed" if found else "passed"
        self.lines.append(
            {
                "type": "test_case",
                "run_start": self.run_start,
                "property": f"{self.target} on {self.device}",
                "status": status if ran else "gave_up",
                "status_reason": "; ".join(found) if ran else "left out: it ended its process",
                "representation": str(case),
                "arguments": case.to_json(),
                "how_generated": f"loss-conformance, shard {shard}",
                "features": _features(case, judgement),
                "coverage": None,
                "timing": {"execute:test": seconds},
                "metadata": {"shard": shard, "clause features": [f.name for f in features(case)]},
            }
        )


def _features(case: Case, judgement: Judgement) -> dict[str, Any]:
    """What Tyche draws: ``share`` is the worst error as a share of what is permitted."""
    errors = [*judgement.shares.values(), *(d.error for d in judgement.deviations if d.where)]
    return {
        "dtype": case.dtype,
        "reduction": case.reduction,
        "layout": layout_family(case),
        "regime": case.input.fill.regime,
        "n": math.prod(case.shape),
        "path": path(case),
        "share": max(errors, default=0.0),
    }
