"""``reference`` and ``targets`` are generic names: make sure that they are this project's own."""

from __future__ import annotations

import importlib.util
from pathlib import Path

HOME = Path(__file__).parent.parent.parent


def check_neighbours() -> None:
    """Raises ImportError that says which file stands in the way, where one does."""
    for name in ("reference", "targets"):
        found = importlib.util.find_spec(name)
        origin = found.origin if found else None
        if origin is None or Path(origin).parent.parent.resolve() != HOME.resolve():
            raise ImportError(
                f"loss-conformance needs its own package {name!r}, but that name resolves to "
                f"{origin or 'nothing'}: rename that module, or run from another folder"
            )
