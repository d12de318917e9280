"""``python -m tests power``, ``causes`` and ``comparison``: campaigns over the whole bank."""

import sys

from tests import causes, comparison, power

CAMPAIGNS = {"power": power.main, "causes": causes.main, "comparison": comparison.main}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in CAMPAIGNS:
        sys.exit(f"usage: python -m tests {{{','.join(CAMPAIGNS)}}} [options]; --help for each")
    sys.exit(CAMPAIGNS[sys.argv[1]](sys.argv[2:]))
