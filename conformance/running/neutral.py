"""The observer under names that tell nothing: what a target sees of the process that it runs in.

A loss that finds out that it is judged could behave while it is. So an observer does not import the
suite: it is started from a scratch folder with the sources that it needs, in which every word that
names the suite is replaced by another (:data:`WORDS`), in names of modules as in identifiers; each
line stays where it is. ``targets`` is there too, for files that import it, and nothing else is.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from conformance.running.neighbours import HOME

# In this order. None of the words on the right stands in the sources otherwise.
WORDS = {
    "conformance.observer.protocols": "trainloop.recipes",
    "conformance.observer": "trainloop",
    "conformance.cases.arena": "trainloop.staging",
    "conformance.cases.domain": "trainloop.extent",
    "conformance": "trainloop",
    "observer": "runner",
    "protocol": "recipe",
    "arena": "staging",
    "clause": "part",
    "judg": "read",
}
SOURCES = (
    "conformance/observer/**/*.py",
    "conformance/cases/arena.py",
    "conformance/cases/domain.py",
)
OWN = ("LOSS_CONFORMANCE_", "HYPOTHESIS_", "PYTEST_", "TOX_")  # whose variables tell of the suite
CACHE, NEUTRAL_CACHE = "LOSS_CONFORMANCE_CACHE", "BUILT_KERNELS"  # see targets/building.py


def neutral(text: str) -> str:
    """``text`` with other words for those that name the suite."""
    for word, other in WORDS.items():
        for case in (str.lower, str.capitalize, str.upper):
            text = text.replace(case(word), case(other))
    return text


@functools.cache
def sources() -> dict[str, str]:
    """What an observer is made of: by its path, the text of each file."""
    paths = [path for glob in SOURCES for path in sorted(HOME.glob(glob))]
    return {_place(path): neutral(path.read_text(encoding="utf-8")) for path in paths}


def _place(path: Path) -> str:
    own = path.relative_to(HOME)
    return neutral(".".join(own.with_suffix("").parts)).replace(".", os.sep) + own.suffix


def home() -> tempfile.TemporaryDirectory[str]:
    """A folder for an observer's interpreter to import from."""
    folder = tempfile.TemporaryDirectory()
    for place, text in sources().items():
        path = Path(folder.name, place)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    Path(folder.name, "targets").symlink_to(HOME / "targets")
    return folder


def environment(own: Mapping[str, str], path: str) -> dict[str, str]:
    """That of an observer which imports from ``path``: ``own``, without a word of the suite."""
    # A shell leaves in _ which command it started.
    kept = {k: v for k, v in own.items() if k != "_" and not k.startswith(OWN)}
    if CACHE in own:
        kept[NEUTRAL_CACHE] = own[CACHE]
    paths = own.get("PYTHONPATH", "").split(os.pathsep)
    others = [p for p in paths if p and Path(p).resolve() != HOME.resolve()]
    return kept | {"PYTHONPATH": os.pathsep.join([path, *others])}
