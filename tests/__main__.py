"""``python -m tests``: campaigns over the whole bank, and the screenshots of the docs."""

import sys

import tests.warm  # noqa: F401  first: the bank computes as it is imported
from tests import (
    attribution,
    campaigns,
    causes,
    comparison,
    corpus,
    cost,
    forgeries,
    pages,
    power,
    scripts,
)

CAMPAIGNS = {
    "power": power.main,
    "comparison": comparison.main,
    "scripts": scripts.main,
    "attribution": attribution.main,
    "causes": causes.main,
    "cost": cost.main,
    "forgers": forgeries.main,
    "corpus": corpus.main,
    "campaign": campaigns.main,
    "screenshot": pages.screenshots,
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in CAMPAIGNS:
        sys.exit(f"usage: python -m tests {{{','.join(CAMPAIGNS)}}} [options]; --help for each")
    sys.exit(CAMPAIGNS[sys.argv[1]](sys.argv[2:]))
