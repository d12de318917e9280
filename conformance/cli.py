"""The command line: ``loss-conformance check TARGET``. Never imports torch to check."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import io
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from conformance.cases.claimed import UnknownLoss
from conformance.cases.profiles import PROFILES
from conformance.clauses import BY_ID, CLAUSES, FORBIDDEN, selects
from conformance.report.exports import announce, export, withdraw, write_observations
from conformance.report.repro import write_scripts
from conformance.running import sandbox
from conformance.running.choosing import only_file
from conformance.running.hosting import Hosting, Refused
from conformance.running.options import UsageError, check_profile
from conformance.running.starter import Tried, place_of, starter
from conformance.running.supervisor import Run, WorkerLost
from conformance.verdict.commitment import Secret
from conformance.verdict.configuration import ConfigurationError, find, parse_text, read
from conformance.verdict.gate import compare, parse_policy, rule, uncovered
from conformance.verdict.signature import (
    Signer,
    SigningError,
    Verifier,
    make_pair,
    public_of,
    source_digests,
    write_signed,
)
from conformance.verdict.verdict import (
    DamagedVerdict,
    broken_rows,
    read_verdict,
    suite_version,
    unfinished,
    write_verdict,
)
from conformance.verdict.waivers import (
    DAYS,
    Waiver,
    check_targets,
    entry,
    parse,
    parse_date,
    today,
    written,
)
from targets.target import near

OK, BROKEN, USAGE, INCOMPLETE = 0, 1, 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status (see the README)."""
    options = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # tidy up, as for an interrupt
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # one that has no σ
    try:
        return int(options.command(options))
    except (UsageError, DamagedVerdict, ConfigurationError, SigningError) as error:
        return _complain(str(error), USAGE)
    except Refused as error:
        return _complain(str(error), error.status)
    except WorkerLost as lost:
        return _complain(f"the verdict is lost: a worker {lost}", INCOMPLETE)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return USAGE
    except KeyboardInterrupt:
        return _complain("interrupted", INCOMPLETE)


def _complain(message: str, status: int) -> int:
    print(f"loss-conformance: {message}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="loss-conformance",
        description="Is this a drop-in replacement for torch's loss?",
        epilog="exit status: 0 conforms, 1 does not, 2 wrong usage, 3 incomplete or unavailable",
    )
    parser.add_argument(
        "--version", action="version", version=f"loss-conformance {suite_version()}"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    check = commands.add_parser("check", help="judge targets")
    check.add_argument(
        "targets",
        nargs="*",
        metavar="TARGET",
        help="a registered name, package.module:attribute or path/file.py:attribute; "
        "the one Python file of this folder unless told",
    )
    _run_options(check)
    check.add_argument("--profile", default="default", help=f"one of {', '.join(PROFILES)}")
    check.add_argument(
        "--seed",
        default="0",
        metavar="N|random|secret",
        help="0 unless told; secret: of each target another, which is told when its run has ended",
    )
    check.add_argument(
        "--clause",
        action="append",
        metavar="GLOB",
        help="only these clauses; may be given again, or several with commas between them",
    )
    check.add_argument("--jobs", type=_positive, default=min(os.cpu_count() or 1, 8), metavar="N")
    check.add_argument("--report", type=Path, metavar="DIR", help="write DIR/TARGET/verdict.json")
    check.add_argument(
        "--observe",
        action="store_true",
        help="also write DIR/TARGET/observations.jsonl: every case, for Tyche",
    )
    check.add_argument(
        "--waivers",
        type=Path,
        metavar="FILE",
        help="known deviations; conformance.toml or pyproject.toml of this folder unless told",
    )
    check.add_argument(
        "--forbid",
        action="append",
        default=[],
        metavar="PATTERN",
        help="an operator or kernel that it must not run, as aten::mse_loss*; may be given again",
    )
    check.add_argument(
        "--sign",
        type=Path,
        metavar="KEY",
        help="sign each verdict, as DIR/TARGET/verdict.dsse.json: see loss-conformance key",
    )
    check.set_defaults(command=_check)

    smoke = commands.add_parser("smoke", help="try a target's adapter before judging it")
    smoke.add_argument("target", metavar="TARGET")
    _run_options(smoke)
    smoke.set_defaults(command=_smoke)

    init = commands.add_parser("init", help="write a Target for a loss, with claims set by trying")
    init.add_argument("target", metavar="TARGET", help="a function or an nn.Module")
    _run_options(init)
    init.set_defaults(command=_init)

    listing = commands.add_parser("targets", help="list the registered targets")
    listing.set_defaults(command=_targets)
    losses = commands.add_parser("losses", help="list the losses that can be judged")
    losses.set_defaults(command=_losses)
    clauses = commands.add_parser("clauses", help="list the clauses of the spec")
    clauses.set_defaults(command=_clauses)

    replay = commands.add_parser("replay", help="run the counterexamples of a verdict again")
    replay.add_argument("file", type=Path, metavar="FILE", help="a verdict.json")
    replay.add_argument("--target", help="instead of the verdict's own")
    _run_options(replay)
    replay.set_defaults(command=_replay)

    report = commands.add_parser("report", help="one HTML page from verdicts, side by side")
    report.add_argument("files", nargs="+", type=Path, metavar="VERDICT.json")
    report.add_argument("--out", type=Path, default=Path("report.html"), metavar="FILE")
    report.set_defaults(command=_report)

    waive = commands.add_parser("waive", help="write a waiver of a clause that a verdict breaks")
    waive.add_argument("file", type=Path, metavar="VERDICT.json")
    waive.add_argument("clause", metavar="CLAUSE")
    waive.add_argument("--reason", required=True, help="why the deviation is accepted")
    waive.add_argument("--link", default="", help="where it is followed up")
    waive.add_argument(
        "--expires", metavar="DATE", help=f"as 2030-01-31; in {DAYS} days unless told"
    )
    waive.add_argument("--waivers", type=Path, default=Path("conformance.toml"), metavar="FILE")
    waive.set_defaults(command=_waive)

    campaign = commands.add_parser("campaign", help="judge many kernels, with a ledger")
    _campaign_options(campaign)
    campaign.set_defaults(command=_campaign)

    gate = commands.add_parser("gate", help="accept only whole, complete, conforming verdicts")
    gate.add_argument("files", nargs="+", type=Path, metavar="VERDICT.json")
    gate.add_argument(
        "--policy",
        type=Path,
        metavar="FILE",
        help="its table [gate]; conformance.toml or pyproject.toml of this folder unless told",
    )
    gate.add_argument(
        "--baseline",
        nargs="+",
        default=[],
        type=Path,
        metavar="VERDICT.json",
        help="earlier verdicts, to say what is new and what is fixed",
    )
    gate.add_argument(
        "--trust",
        nargs="+",
        default=[],
        type=Path,
        metavar="PUBKEY",
        help="only verdicts that one of these keys has signed, beside those of the policy",
    )
    gate.set_defaults(command=_gate)

    key = commands.add_parser("key", help="make a pair of keys to sign verdicts with")
    key.add_argument("file", nargs="?", type=Path, default=Path("signing.key"), metavar="FILE")
    key.set_defaults(command=_key)
    return parser


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default=None, help="cpu, cuda or cuda:N; cpu unless told")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=20.0,
        metavar="SECONDS",
        help="for each call, and three times that for an observer's first, which may compile; 20",
    )
    parser.add_argument(
        "--loss",
        metavar="NAME",
        help="of which it is a target: mse unless told by it or here; see loss-conformance losses",
    )
    parser.add_argument(
        "--python",
        metavar="PATH",
        help="the interpreter that the target runs in: it needs torch, and nothing of the suite",
    )
    parser.add_argument(
        "--sandbox",
        choices=sandbox.LEVELS,
        default="none",
        help="bwrap: the target runs in bubblewrap; auto: where that can be had; none unless told",
    )


def _campaign_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        nargs="+",
        type=Path,
        metavar="SOURCE",
        help="a folder of kernels, each a Python file; a list of files (.txt); a table with name "
        "and source (.jsonl, .parquet)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="ledger and page")
    parser.add_argument(
        "--until",
        default="screen",
        metavar="STAGE",
        help="screen (unless told), quick or default: how far those go that nothing has broken",
    )
    parser.add_argument(
        "--seed", default="secret", metavar="N|secret", help="for all kernels; secret unless told"
    )
    parser.add_argument("--engine", default="local", help="local, unless told, or ray")
    parser.add_argument(
        "--address", default="", help="of a Ray cluster that runs; one of its own unless told"
    )
    parser.add_argument("--jobs", type=_positive, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument(
        "--limit", type=_positive, metavar="N", help="stop after so many kernels of this run"
    )
    parser.add_argument(
        "--retry", action="store_true", help="judge those again of which nothing was found out"
    )
    parser.add_argument(
        "--only-new",
        action="store_true",
        help="leave out what another version, seed or machine has judged",
    )
    for name, default, what in (
        ("compile-timeout", 300.0, "SECONDS for the import of a kernel, which may compile; 300"),
        ("memory", 4.0, "GIB that a kernel may hold; 4"),
        ("disk", 1.0, "GIB that it may write; 1"),
    ):
        metavar, _, words = what.partition(" ")
        parser.add_argument(
            f"--{name}", type=_seconds, default=default, metavar=metavar, help=words
        )
    parser.add_argument(
        "--processes", type=_positive, default=128, metavar="N", help="that it may start; 128"
    )
    _run_options(parser)


def _hosting(setting: dict[str, Any], options: argparse.Namespace) -> Hosting:
    """How the observers of a target are started."""
    python = options.python or ""
    if python and not os.access(python, os.X_OK):
        raise UsageError(f"--python {python}: no such interpreter")
    loss = options.loss or ""
    if loss:
        from reference.losses import LOSSES

        if loss not in LOSSES:
            raise UsageError(str(UnknownLoss(loss)))
    return Hosting(
        setting["target"],
        setting["device"],
        options.timeout,
        python,
        loss=loss,
        bwrap=_bwrap(options.sandbox),
        hidden=(str(options.sign),) if getattr(options, "sign", None) else (),
    )


@functools.cache
def _bwrap(level: str) -> str:
    """The program of the sandbox; empty for none. Raises Refused where it must be and cannot."""
    lacking = sandbox.why_not() if level != "none" else ""
    if level == "bwrap" and lacking:
        raise Refused(f"--sandbox bwrap: {lacking}", INCOMPLETE)
    if lacking:
        print(f"loss-conformance: without a sandbox: {lacking}", file=sys.stderr)
    return "" if lacking or level == "none" else "bwrap"


def _positive(text: str) -> int:
    value = int(text) if text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return value


def _check(options: argparse.Namespace) -> int:
    profile = check_profile(options.profile).name
    seed = None if options.seed == "secret" else _seed(options.seed)
    clauses = ",".join(options.clause or ["*"])
    _check_globs(clauses)
    if options.observe and not options.report:
        raise UsageError("--observe writes into a report: name its folder with --report DIR")
    if options.sign and not options.report:
        raise UsageError("--sign signs what is in a report: name its folder with --report DIR")
    signer = Signer.read(options.sign) if options.sign else None
    if signer and not _bwrap(options.sandbox):
        _complain("--sign without a sandbox: the target can read the key", OK)
    waivers = parse(read(options.waivers) if options.waivers else find())
    options.targets = options.targets or [_only_file()]
    check_targets(waivers, options.targets, _registered)
    statuses = []
    verdicts: list[dict[str, Any]] = []
    told: set[str] = set()
    if options.report:
        with _writing(options.report):
            (options.report / "report.html").unlink(missing_ok=True)  # of an earlier run
    for target in options.targets:
        setting = {
            "target": target,
            "device": options.device or "cpu",
            "profile": profile,
            **_seeded(seed),
            "clause": clauses,
            "observe": time.time() if options.observe else None,
            "forbid": options.forbid,
        }
        try:
            before = source_digests(target) if signer else {}
            verdict = _check_one(setting, waivers, options)
            verdicts.append(verdict)
            statuses.append(_status(verdict))
            if verdict["interrupted"]:
                _complain("interrupted: the verdict has what was found until then", INCOMPLETE)
                statuses.append(INCOMPLETE)
                break
            if signer and not _sign(signer, verdict, target, before, options.report):
                statuses.append(INCOMPLETE)
        except Refused as error:
            if str(error) not in told:  # once, where several lack the same
                _complain(str(error), error.status)
            told.add(str(error))
            statuses.append(error.status)
    if options.report and verdicts:
        _write_page(options.report / "report.html", verdicts)
    for status in (USAGE, BROKEN, INCOMPLETE):  # what is wrong comes before what is missing
        if status in statuses:
            return status
    return OK


def _only_file() -> str:
    """The target where none is named. Raises UsageError where it cannot be told which it is."""
    chosen = only_file(Path.cwd())
    print(f"loss-conformance: no target is named: judging {chosen}", file=sys.stderr)
    return chosen


def _registered() -> list[str]:
    from targets import available

    registry = available()
    return [*registry.targets, *registry.broken]


def _check_one(
    setting: dict[str, Any], waivers: Sequence[Waiver], options: argparse.Namespace
) -> dict[str, Any]:
    from conformance.report.terminal import show, watching

    run = Run(setting, options.jobs, _hosting(setting, options), waivers=waivers)

    def started(name: str, source: str, spec: str) -> None:
        if "commitment" in setting:
            print(f"{name}: committed to a secret seed, SHA-256 {setting['commitment']['sha256']}")
            sys.stdout.flush()
        _write_started(options.report, name, source, spec, setting)

    with watching(run.progress):
        verdict = run.verdict(started)
    for line in (*run.gave_up, *run.remarks):
        print(f"loss-conformance: {setting['target']}: {line}", file=sys.stderr)
    folder = options.report / verdict["target"] if options.report else None
    try:
        show(verdict, {c.id: c.sentence for c in (*CLAUSES, FORBIDDEN)}, folder)
    finally:  # though nobody may read on
        if folder:
            _write(folder, verdict)
            with _writing(folder):
                export(folder, verdict)
                write_scripts(folder / "repro", verdict)
                if options.observe:
                    write_observations(folder, run.observed)
    announce(verdict, os.environ)
    return verdict


def _sign(
    signer: Signer, verdict: dict[str, Any], target: str, before: dict[str, str], report: Path
) -> bool:
    """Whether it could be signed: not where its source is not what it was ``before`` the run."""
    if source_digests(target) != before:
        _complain(f"{target}: its file changed while it was judged: not signed", INCOMPLETE)
        return False
    path = report / verdict["target"] / "verdict.json"
    with _writing(path):
        write_signed(path, verdict, signer, before)
    return True


def _status(verdict: dict[str, Any]) -> int:
    if verdict["conforms"]:
        return OK
    return BROKEN if broken_rows(verdict) else INCOMPLETE


def _write_started(
    reports: Path | None, name: str, source: str, spec: str, setting: dict[str, Any]
) -> None:
    """A verdict that says it is incomplete, until the run has ended; nothing of an earlier run."""
    if reports:
        seed, commitment = setting["seed"], setting.get("commitment")
        if commitment:  # the target can read it
            seed, commitment = None, {"sha256": commitment["sha256"]}
        body = unfinished(
            name,
            source,
            setting["device"],
            setting["profile"],
            seed,
            setting["clause"],
            commitment,
            spec,
        )
        _write(reports / name, body.to_json())
        with _writing(reports / name):
            withdraw(reports / name)


def _write(folder: Path, verdict: dict[str, Any]) -> None:
    path = folder / "verdict.json"
    with _writing(path):
        write_verdict(path, verdict)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns an OSError into one that says what cannot be written."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None


def _seed(text: str) -> int:
    if text == "random":
        return secrets.randbits(31)
    if not text.isdigit():
        raise UsageError(f"--seed {text!r}: use a whole number, 'random' or 'secret'")
    return int(text)


def _seeded(seed: int | None) -> dict[str, Any]:
    """The seed of one target; drawn where it is None, with what it is committed to by."""
    if seed is not None:
        return {"seed": seed}
    secret = Secret.draw()
    return {"seed": secret.seed, "commitment": secret.opened()}


def _check_globs(globs: str) -> None:
    for glob in globs.split(","):
        if not any(selects(glob, clause) for clause in BY_ID):
            raise UsageError(
                f"no clause matches {glob!r}{near(glob, BY_ID)}: see loss-conformance clauses"
            )


def _campaign(options: argparse.Namespace) -> int:
    """0: all conform; 1: something is broken; 3: nothing is, and something is unclear or left."""
    from conformance.running.campaign.command import Options, campaign, tell
    from conformance.running.campaign.task import GIB, Limits

    device = options.device or "cpu"
    progress = campaign(
        Options(
            options.sources,
            options.out,
            _hosting({"target": "", "device": device}, options),
            loss=options.loss or "mse",
            until=options.until,
            seed=None if options.seed == "secret" else _seed(options.seed),
            jobs=options.jobs,
            engine=options.engine,
            address=options.address,
            retry=options.retry,
            only_new=options.only_new,
            limit=options.limit,
            limits=Limits(
                options.compile_timeout,
                int(options.memory * GIB),
                int(options.disk * GIB),
                options.processes,
            ),
        )
    )
    tell(progress, options.out)
    if progress.broken:
        return BROKEN
    return OK if progress.conforming == progress.kernels else INCOMPLETE


def _trial(options: argparse.Namespace) -> Run:
    """A run that tries a target, and judges nothing."""
    setting = {
        "target": options.target,
        "device": options.device or "cpu",
        "profile": "quick",
        "seed": 0,
        "clause": "*",
    }
    return Run(setting, 1, _hosting(setting, options))


def _smoke(options: argparse.Namespace) -> int:
    problems = _trial(options).smoke()
    for problem in problems:
        print(f"{options.target}: {problem}")
    if problems:
        return BROKEN
    print(f"{options.target}: the adapter works; judge it with: check {options.target}")
    return OK


def _init(options: argparse.Namespace) -> int:
    found = _trial(options).tried()
    tried = Tried.from_json(found["tried"])
    path, module, attribute = place_of(found["source"])
    if not (tried.dtypes and tried.reductions):
        why = next(iter(tried.dropped.values()), "it claims nothing")
        return _complain(f"{options.target}: no plain call works: {why}", BROKEN)
    text = starter(found["name"], module, attribute, tried)
    with _writing(path):
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            raise UsageError(f"{path} is there already: remove it first") from None
    print(f"wrote {path}; judge it with: loss-conformance check {path}")
    for what, why in tried.dropped.items():
        print(f"  not claimed: {what}: {why}")
    for what, why in tried.wrong.items():
        print(f"  claimed, though: {what}: {why}")
    return OK


def _targets(options: argparse.Namespace) -> int:
    from targets import TargetUnavailable, available

    registry = available()
    for name, target in sorted(registry.targets.items()):
        only = "" if "cpu" in target.devices else " (cuda only)"
        print(f"{name:20} {target.summary}{only}")
    for name, error in sorted(registry.broken.items()):
        kind = "unavailable" if isinstance(error, TargetUnavailable) else "BROKEN"
        print(f"{name:20} {kind}: {error}")
    return OK


def _losses(options: argparse.Namespace) -> int:
    from reference.losses import LOSSES

    for loss in LOSSES.values():
        taken = ", ".join(f"{p.name}={p.default:g}" for p in loss.parameters)
        print(
            f"{loss.title:16} torch.nn.functional.{loss.function}{f' ({taken})' if taken else ''}"
        )
    return OK


def _clauses(options: argparse.Namespace) -> int:
    for clause in CLAUSES:
        print(f"{clause.id:26} {clause.level:7} {clause.sentence}")
    return OK


def _replay(options: argparse.Namespace) -> int:
    """0: nothing deviates any more; 1: something does; 3: there was nothing that could be told."""
    data = read_verdict(options.file)
    setting = {
        "target": options.target or data.get("source") or data["target"],
        "device": options.device or data["device"],
        "profile": data["profile"],
        "seed": data["seed"],
        "clause": "*",
    }
    options.loss = options.loss or data["spec"].partition(" ")[0]
    rows = [row for row in data["clauses"] if "counterexample" in row]
    if not rows:
        why = "no counterexample to replay" if data["clauses"] else "the run did not end"
        return _complain(f"{options.file}: {why}", INCOMPLETE)
    status, run = OK, Run(setting, 1, _hosting(setting, options))
    for row, found in zip(rows, run.replay(rows), strict=True):
        text = "; ".join(found["messages"]) or "as permitted now"
        if found["messages"]:
            status = BROKEN
        elif "unable" in found:
            text = f"cannot be told: {found['unable']}"
            status = status or INCOMPLETE
        print(f"{row['id']} {row['dtype']}: {text}", flush=True)
    return status


def _report(options: argparse.Namespace) -> int:
    _write_page(options.out, [read_verdict(path) for path in options.files])
    print(options.out)
    return OK


def _write_page(path: Path, verdicts: list[dict[str, Any]]) -> None:
    from conformance.report.html import page

    text = page(verdicts)
    with _writing(path):
        path.write_text(text, encoding="utf-8")


def _waive(options: argparse.Namespace) -> int:
    verdict = read_verdict(options.file)
    later = today() + datetime.timedelta(days=DAYS)
    expires = parse_date(options.expires, "--expires") if options.expires else later
    waiver = entry(verdict, options.clause, options.reason, options.link, expires)
    path = options.waivers
    with _writing(path):
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        new = old + written(waiver, path)
        parse(parse_text(new, path))  # nothing is written that could not be read again
        path.write_text(new, encoding="utf-8")
    print(f"{path}: {options.clause} of {waiver['target']} is waived until {expires}")
    return OK


def _gate(options: argparse.Namespace) -> int:
    policy = parse_policy(read(options.policy) if options.policy else find())
    trusted = [Verifier.read(path) for path in (*options.trust, *map(Path, policy.trust))]
    rulings = rule(options.files, policy, datetime.datetime.now(datetime.UTC), trusted)
    earlier = [read_verdict(path) for path in options.baseline]
    for ruling in rulings:
        print(ruling)
        for before in earlier:
            later = ruling.verdict
            if later and all(later[key] == before[key] for key in ("target", "device")):
                print(f"  since {before.get('created') or 'then'}: {compare(before, later)}")
    missing = uncovered(rulings, policy)
    for line in missing:
        print(f"REFUSED: {line}")
    return BROKEN if missing or any(r.reasons for r in rulings) else OK


def _key(options: argparse.Namespace) -> int:
    name = make_pair(options.file)
    print(f"{options.file}: signs verdicts (check --sign); keep it to yourself")
    print(f"{public_of(options.file)}: who has it can trust them (gate --trust); id {name[:16]}")
    return OK
