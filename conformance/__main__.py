"""``python -m conformance`` is ``loss-conformance``."""

from __future__ import annotations

import sys

from conformance.running.neighbours import check_neighbours


def main() -> int:
    """The command line, once it is certain that it runs with its own packages."""
    try:
        check_neighbours()
    except ImportError as error:
        print(f"loss-conformance: {error}", file=sys.stderr)
        return 2
    from conformance.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
