"""``loss-conformance campaign``: from its options to a ledger, its page and its exports."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from conformance.judging.cause import CAUSES
from conformance.report.campaign import CampaignRow, page
from conformance.report.campaign_exports import jsonl, junit, write_parquet
from conformance.report.campaign_progress import CampaignProgress, watching
from conformance.running.campaign.circumstances import environment, suite
from conformance.running.campaign.controller import Controller
from conformance.running.campaign.engine import Engine
from conformance.running.campaign.kernels import Kernel, read_sources, written
from conformance.running.campaign.ledger import Circumstances, Entry, Ledger
from conformance.running.campaign.stages import COMPILING, SCREEN, STAGES
from conformance.running.campaign.task import Limits, Setting
from conformance.running.hosting import Hosting
from conformance.running.options import UsageError
from reference.losses import LOSSES

ENGINES = ("local", "ray")
TEXTS, SCRATCH = "kernels", "scratch"  # folders in that of a campaign


@dataclass(frozen=True)
class Options:
    """Of one run. ``seed``: None for a secret one. ``jobs``: of the local engine, or at most as
    many at once of the other. ``address``: of a cluster that runs; empty for one of its own."""

    sources: Sequence[Path]
    out: Path
    hosting: Hosting
    loss: str = "mse"
    until: str = SCREEN.name
    seed: int | None = None
    jobs: int = 1
    engine: str = "local"
    address: str = ""
    retry: bool = False
    only_new: bool = False
    limit: int | None = None
    limits: Limits = field(default_factory=Limits)


def campaign(options: Options) -> CampaignProgress:
    """Judge what is left to judge, and write down what there is: also where that is interrupted.

    Raises UsageError.
    """
    _check(options)
    kernels = read_sources(options.sources, options.out / TEXTS)
    with Ledger(options.out) as ledger:
        secret = ledger.secret(options.seed)
        device, python = options.hosting.device, options.hosting.python
        spec = LOSSES[options.loss].title
        own = Circumstances(spec, suite(), secret.commitment, environment(python, device))
        written(kernels, options.out / TEXTS)
        ledger.register(kernels)
        if options.retry:
            ledger.forget(own, [kernel.digest for kernel in kernels])
        if options.only_new:
            others = ledger.judged_elsewhere(own)
            kernels = [kernel for kernel in kernels if kernel.digest not in others]
        commitment = secret.opened() if options.seed is None else None
        hosting = {**vars(options.hosting), "target": "", "loss": options.loss}
        setting = Setting(spec, secret.seed, commitment, hosting, options.limits)
        if options.seed is None:
            print(f"committed to a secret seed, SHA-256 {secret.commitment}", flush=True)
        controller = Controller(ledger, own, kernels, options.until, options.limit)
        try:
            with watching(controller.progress):
                controller.run(lambda: _engine(options, setting))
        finally:
            progress = controller.progress()
            _write(options.out, own, rows(ledger, own))
    return progress


def rows(ledger: Ledger, own: Circumstances) -> list[CampaignRow]:
    """Each kernel of the ledger with the last stage that it came to; those of none are left out."""
    last: dict[str, Entry] = {}
    begun: dict[str, float] = {}
    for entry in ledger.entries(own):
        if entry.stage == COMPILING:
            continue
        known = last.get(entry.kernel)
        if known is None or _order(entry) >= _order(known):
            last[entry.kernel] = entry
        begun.setdefault(entry.kernel, entry.ended)
    judged = [(kernel, last[kernel.digest]) for kernel in ledger.kernels() if kernel.digest in last]
    return [_row(kernel, entry, begun[entry.kernel]) for kernel, entry in judged]


def _row(kernel: Kernel, entry: Entry, begun: float) -> CampaignRow:
    return CampaignRow(
        kernel.name,
        entry.kernel,
        kernel.target,
        kernel.text,
        entry.stage,
        entry.outcome,
        entry.compiling,
        entry.seconds,
        begun,
        entry.ended,
    )


def _write(out: Path, own: Circumstances, found: Sequence[CampaignRow]) -> None:
    """The page, and the results for machines. Raises UsageError."""
    try:
        _replace(out / "index.html", page(found, own.spec, own.seed, CAUSES))
        _replace(out / "results.jsonl", jsonl(found))
        _replace(out / "junit.xml", junit(found, own.spec))
        fresh = out / "results.parquet.new"
        if write_parquet(fresh, found):
            fresh.replace(out / "results.parquet")
    except OSError as error:
        raise UsageError(f"cannot write {error.filename or out}: {error.strerror}") from None


def _replace(path: Path, text: str) -> None:
    """Whoever reads it sees the old one or the new one."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


def _order(entry: Entry) -> int:
    return [*STAGES].index(entry.stage)


def _engine(options: Options, setting: Setting) -> Engine:
    if options.engine == "ray":
        try:
            from conformance.running.campaign.rays import Ray
        except ImportError:
            raise UsageError('--engine ray: pip install "loss-conformance[ray]"') from None
        return Ray(setting, options.address, options.jobs)
    from conformance.running.campaign.local import Local

    return Local(setting, options.jobs, options.out / SCRATCH)


def _check(options: Options) -> None:
    for what, value, known in (
        ("--loss", options.loss, LOSSES),
        ("--until", options.until, STAGES),
        ("--engine", options.engine, ENGINES),
    ):
        if value not in known:
            raise UsageError(f"{what} {value}: use {', '.join(known)}")


def tell(progress: CampaignProgress, out: Path) -> None:
    """In the end, for people."""
    print(f"{progress.conforming:,} of {progress.kernels:,} kernels conform", end="")
    print(f", {progress.broken:,} are broken, {progress.unclear:,} unclear", end="")
    judged = progress.conforming + progress.broken + progress.unclear
    print(f", {progress.kernels - judged:,} not judged yet" if judged < progress.kernels else "")
    if progress.done:
        print(f"{progress.done:,} judged in {progress.seconds:,.0f} s: ", end="")
        print(f"{progress.an_hour:,.0f} an hour")
    print(out / "index.html")
    sys.stdout.flush()
