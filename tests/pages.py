"""Verdicts and pages for the tests of the HTML report, and its screenshots for the docs.

``python -m tests screenshot`` writes ``docs/images/report.png`` and ``report-dark.png``.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from conformance import judge
from conformance.report.html import page
from targets import DROP_IN, Target

if TYPE_CHECKING:
    from playwright.sync_api import Browser

Json = dict[str, Any]
CHROMIUM = "chromium"  # the system's: apt-get install chromium
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
IMAGES = Path(__file__).parent.parent / "docs" / "images"
SHOWN = ("builtin", "tutorial-module", "tutorial-function")


def tail_loss(input: torch.Tensor, target: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """Loses all past the last whole row of 4; wrong in none's value and gradient."""
    loss = torch.nn.functional.mse_loss(input, target, reduction="none")
    if reduction == "none" and loss.numel() > 4:
        kept = torch.arange(loss.numel()).view_as(loss) < loss.numel() // 4 * 4
        return torch.where(kept, loss, torch.zeros((), dtype=loss.dtype))
    return torch.nn.functional.mse_loss(input, target, reduction=reduction)


def raising_loss(input: object, target: object, reduction: str = "mean") -> torch.Tensor:
    raise RuntimeError("CUDA error: an illegal <memory> access was encountered & lost")


LOSSES = {loss.__name__: loss for loss in (tail_loss, raising_loss)}


@functools.cache
def verdict(name: str, profile: str = "quick") -> Json:
    """The verdict on a registered target, or one of :data:`LOSSES`, as it is read from a file."""
    known = LOSSES.get(name)
    target = Target(name.replace("_", "-"), known, DROP_IN) if known else name
    found: Json = json.loads(json.dumps(judge(target, profile=profile).to_json()))
    return found


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium, headless. Raises FileNotFoundError where there is none."""
    from playwright.sync_api import sync_playwright

    path = shutil.which(CHROMIUM)
    if path is None:
        raise FileNotFoundError(f"no {CHROMIUM} on the path: apt-get install {CHROMIUM}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*FLAGS])
        try:
            yield browser
        finally:
            browser.close()


def screenshots(arguments: list[str]) -> int:
    """Take the pictures for the docs. No arguments."""
    if arguments:
        raise SystemExit("usage: python -m tests screenshot")
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        path = Path(folder, "report.html")
        path.write_text(page([verdict(name, "default") for name in SHOWN]), encoding="utf-8")
        for name, scheme in (("report.png", "light"), ("report-dark.png", "dark")):
            view = browser.new_page(viewport={"width": 1120, "height": 1300}, color_scheme=scheme)
            view.goto(path.as_uri())
            view.screenshot(path=IMAGES / name)
            print(os.path.relpath(IMAGES / name))
    return 0
