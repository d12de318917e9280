"""What a target can see of the process that it runs in does not say that it is judged."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance.running.neutral import WORDS, environment, sources

HOME = Path(__file__).parents[2]
TELLING = re.compile(
    r"conformance|hypothesis|pytest|arena|reference|observer|protocol|judg|clause", re.IGNORECASE
)
# It records whatever a recogniser asks, and is right: it is judged to the end.
WATCHER = """
import importlib.util, inspect, json, multiprocessing, os, pickle, sys, traceback

import torch
{imports}

RECORD = {record!r}


def text(path):
    with open(path) as file:
        return file.read().replace("\\0", " ")


def frames():
    frame = sys._getframe()
    while frame is not None:
        code = frame.f_code
        yield [code.co_qualname, code.co_filename, frame.f_globals["__name__"], *frame.f_locals]
        frame = frame.f_back


def seen():
    numbers = os.listdir("/proc/self/fd")
    links = [f"/proc/self/fd/{{n}}" for n in numbers]
    main = sys.modules["__main__"]
    return {{
        "modules": [*sys.modules],
        "found": [n for n in ("conformance", "reference") if importlib.util.find_spec(n)],
        "frames": [*frames()],
        "stack": [[*map(str, info[1:5])] for info in inspect.stack()],
        "trace": traceback.format_stack(),
        "arguments": [sys.argv, sys.orig_argv, text("/proc/self/cmdline"), text("/proc/self/comm")],
        "parent": text(f"/proc/{{os.getppid()}}/cmdline"),
        "environment": [dict(os.environ), text("/proc/self/environ")],
        "descriptors": [os.readlink(link) for link in links if os.path.exists(link)],
        "importers": [*map(str, sys.meta_path), *sys.path],
        "main": [repr(main), *vars(main)],
        "own": [__name__, pickle.loads(pickle.dumps(loss)).__module__],
    }}


def loss(input, target, reduction="mean"):
    if not os.path.exists(RECORD):
        with open(RECORD, "w") as file:
            json.dump(seen(), file)
    return torch.nn.functional.mse_loss(input, target, reduction=reduction)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Whose own name tells nothing, as pytest's would."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def record(folder: Path, imports: str = "", *options: str) -> dict[str, Any]:
    """What the watcher saw while it was judged."""
    path = folder / "record.json"
    (folder / "mine.py").write_text(WATCHER.format(record=str(path), imports=imports))
    command = [sys.executable, "-m", "conformance", "check", "mine.py:loss", "--jobs", "1"]
    done = subprocess.run(
        [*command, "--profile", "quick", "--clause", "value.mean,autograd.retain", *options],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if k != "PWD"}
        | {"PYTHONPATH": str(HOME), "LOSS_CONFORMANCE_CACHE": str(folder), "TOX_ENV_NAME": "tests"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen: dict[str, Any] = json.loads(path.read_text())
    return seen


def own(name: str) -> bool:
    """No module of torch, NumPy or the standard library, some of which have such names too."""
    return name.partition(".")[0] not in {"torch", "numpy", *sys.stdlib_module_names}


def test_nothing_that_a_target_sees_names_the_suite(folder: Path) -> None:
    seen = record(folder)
    seen["modules"] = [name for name in seen["modules"] if own(name)]
    where = Path(sys.prefix).parent  # of this interpreter, wherever that is
    texts = {key: json.dumps(value).replace(str(where), "") for key, value in seen.items()}
    telling = {k: sorted({*TELLING.findall(text)}) for k, text in texts.items()}
    assert not {k: words for k, words in telling.items() if words}
    assert not seen["found"]
    assert not [name for name in seen["modules"] if name.partition(".")[0] == "targets"]
    assert len(seen["frames"]) > 5, "the stack was read"


def test_who_imports_targets_has_it(folder: Path) -> None:
    assert "targets" in record(folder, "from targets import Target")["modules"]


def test_a_line_of_the_sources_is_the_line_of_the_suite() -> None:
    """So that a traceback leads there; and no word was there before that stands for another."""
    texts = {**sources()}
    originals = [
        *(HOME / "conformance/observer").rglob("*.py"),
        HOME / "conformance/cases/arena.py",
        HOME / "conformance/cases/domain.py",
    ]
    assert len(texts) == len(originals)
    lines = sorted(text.count("\n") for text in texts.values())
    assert lines == sorted(path.read_text().count("\n") for path in originals)
    whole = "\n".join(path.read_text() for path in originals).lower()
    known = {other.rpartition(".")[2] for other in WORDS.values()} - {"part", "read"}
    assert not [word for word in known if re.search(rf"\b{word}s?\b", whole)]
    assert not TELLING.search(re.sub("references?", "", "\n".join(texts.values())))


def test_an_environment_keeps_what_is_not_the_suites() -> None:
    own = {"PYTHONPATH": f"{HOME}:/mine", "_": "x", "PYTEST_VERSION": "9", "CUDA_HOME": "/cuda"}
    assert environment(own, "/new") == {"PYTHONPATH": "/new:/mine", "CUDA_HOME": "/cuda"}
