"""Kernels for the tests of campaigns, and a campaign over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conformance.report.campaign_progress import CampaignProgress
from conformance.running.campaign.command import Options, campaign
from conformance.running.hosting import Hosting

RIGHT = """
import torch

def loss(input, target, reduction="mean"):
    return torch.nn.functional.mse_loss(input, target, reduction=reduction)
"""


def wrong(factor: float) -> str:
    return RIGHT.rstrip() + f" * {factor}\n"


def kernel(body: str, start: str = "") -> str:
    """One whose loss is these lines."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return f'import os, time, torch\n{start}\ndef loss(input, target, reduction="mean"):\n{lines}\n'


def folder(path: Path, texts: dict[str, str]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (path / f"{name}.py").write_text(text)
    return path


def run(source: Path, out: Path, limit: float = 20.0, **options: Any) -> CampaignProgress:
    """A campaign with one worker, unless told."""
    return campaign(Options([source], out, Hosting("", limit=limit), **options))
