"""Whether verdicts may release something: a policy, and why a verdict does not meet it."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from conformance.cases.profiles import PROFILE_ORDER
from conformance.clauses import ONE_GPU
from conformance.verdict.configuration import (
    Configuration,
    ConfigurationError,
    check_keys,
    check_known,
)
from conformance.verdict.provenance import used
from conformance.verdict.signature import Unsigned, Verifier, check_signed
from conformance.verdict.verdict import (
    BROKEN_STATUSES,
    ISOLATION,
    DamagedVerdict,
    broken_rows,
    parse_verdict,
    read_bytes,
    revision,
)
from targets.target import DEVICES, DTYPES

Json = dict[str, Any]


@dataclass(frozen=True)
class Policy:
    """What a release asks of its verdicts, beyond being whole, complete and conforming.

    ``targets``, ``devices``: each of these targets on each of these devices must have an accepted
    verdict. ``dtypes``: every verdict must have evidence in these. ``profile``: at least.
    ``trust``: files of public keys, one of which must have signed each verdict.
    ``waivers_need_link``; ``max_age_days``: of a verdict; ``commit``: which it must have been made
    from, ``HEAD`` for the present one; ``same_source``: the target's source must still be what was
    judged; ``domain``: ``full`` where a verdict on a part of all inputs is not enough;
    ``isolation``: of the target, at least; ``forbid``: patterns of operators and kernels that it
    must not have run. Empty, zero and false ask for nothing.
    """

    targets: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    profile: str = "default"
    waivers_need_link: bool = False
    max_age_days: float = 0
    commit: str = ""
    same_source: bool = False
    domain: str = ""
    trust: tuple[str, ...] = ()
    isolation: str = ""
    forbid: tuple[str, ...] = ()


_KNOWN = {
    "devices": DEVICES,
    "dtypes": DTYPES,
    "profile": PROFILE_ORDER,
    "domain": ("full",),
    "isolation": ISOLATION,
}


def parse_policy(configuration: Configuration) -> Policy:
    """The table ``[gate]``. Raises ConfigurationError: one line, with what is valid."""
    where = f"{configuration.path}: [gate]"
    given = dict(configuration.gate)
    check_keys(given, [f.name for f in fields(Policy)], where)
    for field in fields(Policy):
        if field.name in given:
            given[field.name] = _checked(field.name, field.default, given[field.name], where)
    return Policy(**given)


def _checked(key: str, default: Any, value: Any, where: str) -> Any:
    """``value`` as the type of ``default``. Raises ConfigurationError."""
    if isinstance(default, tuple):
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise ConfigurationError(f"{where}: {key} must be a list of names")
        value = tuple(value)
    right = isinstance(value, type(default)) and not isinstance(value, bool)
    if isinstance(default, bool):
        right = isinstance(value, bool)
    elif isinstance(default, int):
        right = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    if not right:
        kinds = {bool: "true or false", str: "a text", int: "a positive number"}
        raise ConfigurationError(f"{where}: {key} is {value!r}, not {kinds[type(default)]}")
    for word in value if isinstance(value, tuple) else [value]:
        if key in _KNOWN:
            check_known(word, _KNOWN[key], f"{where}: unknown {key}")
    return value


@dataclass(frozen=True)
class Ruling:
    """What the gate says of one file. ``verdict``: None where the file holds none."""

    file: Path
    verdict: Json | None
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        if not self.reasons:
            return f"{self.file}: accepted"
        return f"{self.file}: REFUSED: {'; '.join(self.reasons)}"


def rule(
    files: Iterable[Path],
    policy: Policy,
    now: datetime.datetime,
    trusted: Sequence[Verifier] = (),
) -> list[Ruling]:
    """What the gate says of each file. ``trusted``: keys of which one must have signed it."""
    return [_ruling(file, policy, now, trusted) for file in files]


def _ruling(
    file: Path, policy: Policy, now: datetime.datetime, trusted: Sequence[Verifier]
) -> Ruling:
    try:
        data = read_bytes(file)
        verdict = parse_verdict(data, file)
    except DamagedVerdict as error:
        return Ruling(file, None, (str(error).removeprefix(f"{file}: "),))
    reasons = [*_refusals(verdict, policy, now)]
    if trusted:
        try:
            check_signed(file, data, verdict, trusted)
        except Unsigned as why:
            reasons.insert(0, str(why))
    return Ruling(file, verdict, tuple(reasons))


def _refusals(verdict: Json, policy: Policy, now: datetime.datetime) -> Iterator[str]:
    if not verdict["complete"]:
        yield "it is incomplete"
        return
    yield from _conclusion(verdict)
    if PROFILE_ORDER.index(verdict["profile"]) < PROFILE_ORDER.index(policy.profile):
        yield f"it is of profile {verdict['profile']}, less than {policy.profile}"
    if verdict["selected"] != "*":
        yield f"it covers the clauses {verdict['selected']} only"
    domain = verdict.get("domain", "full")
    if policy.domain and domain != policy.domain:
        yield f"it speaks of a part of all inputs only: {domain}"
    isolation = verdict.get("isolation", ISOLATION[0])
    if policy.isolation and ISOLATION.index(isolation) < ISOLATION.index(policy.isolation):
        yield f"its target was judged with isolation {isolation}, less than {policy.isolation}"
    if policy.forbid and "made_of" not in verdict:
        yield "it does not say what its target is made of"
    elif policy.forbid and (found := used(verdict["made_of"], policy.forbid)):
        yield f"its target runs what is forbidden: {', '.join(found)}"
    waived = [r for r in verdict["clauses"] if r["status"] == "waived"]
    if policy.waivers_need_link and (bare := [r for r in waived if not r["waiver"]["link"]]):
        yield f"a waiver without a link: {', '.join(sorted({r['id'] for r in bare}))}"
    today = now.date().isoformat()
    if late := sorted({r["id"] for r in waived if r["waiver"]["expires"] < today}):
        yield f"a waiver that has expired since: {', '.join(late)}"
    passed = {r["dtype"] for r in verdict["clauses"] if r["status"] == "pass"}
    if lacking := [d for d in policy.dtypes if d not in passed]:
        yield f"no evidence in {', '.join(lacking)}"
    yield from _staleness(verdict, policy, now)


def _conclusion(verdict: Json) -> Iterator[str]:
    """Whether it conforms, by its rows as well as in its own words."""
    musts = [r for r in verdict["clauses"] if r["level"] == "must"]
    broken = sorted({r["id"] for r in broken_rows(verdict)})
    without = sorted(
        {
            r["id"]
            for r in verdict["clauses"]
            if r["status"] == "unavailable" and r.get("message") != ONE_GPU
        }
    )
    if broken:
        yield f"the target does not conform: {', '.join(broken)}"
    elif not verdict["conforms"]:
        yield "the target does not conform"
    elif without or not any(r["status"] == "pass" for r in musts):
        yield f"it claims to be complete, without evidence for {', '.join(without) or 'anything'}"


def _staleness(verdict: Json, policy: Policy, now: datetime.datetime) -> Iterator[str]:
    if policy.max_age_days:
        try:
            age = now - datetime.datetime.fromisoformat(verdict.get("created", ""))
        except (ValueError, TypeError):
            yield "it does not say when it was made"
        else:
            if age > datetime.timedelta(days=policy.max_age_days):
                yield f"it is {age.days} days old, more than {policy.max_age_days:g}"
            elif age < -datetime.timedelta(hours=1):
                yield f"it was made in the future, at {verdict['created']}"
    if policy.commit:
        wanted = revision().removesuffix("+changes") if policy.commit == "HEAD" else policy.commit
        made = verdict.get("commit", "")
        if not wanted:
            yield "there is no commit here to compare with"
        elif not _is_commit(made, wanted):
            yield f"it was made from commit {made or '(none)'}, not from {wanted}"
    if policy.same_source and (reason := _changed(verdict)):
        yield reason


def _is_commit(made: str, wanted: str) -> bool:
    """Whether a verdict was made from the commit ``wanted``, which may be an abbreviation."""
    return len(wanted) >= 7 and "+" not in made and made.startswith(wanted)


def _changed(verdict: Json) -> str:
    """Why the source that was judged is not the present one; empty where it is."""
    from targets import TargetError, fingerprint, resolve

    spec = verdict.get("source") or verdict["target"]
    try:
        now = fingerprint(resolve(spec))
    except TargetError as error:
        return f"its source cannot be compared: {error}"
    return "" if now == verdict["fingerprint"] else f"the source of {spec} has changed since"


def uncovered(rulings: Sequence[Ruling], policy: Policy) -> list[str]:
    """What the policy requires and no accepted verdict shows, a line each."""
    accepted = [r.verdict for r in rulings if r.verdict and not r.reasons]
    have = {(v["target"], v["device"].partition(":")[0]) for v in accepted}
    judged = {v["target"] for v in accepted}
    names = policy.targets or sorted({r.verdict["target"] for r in rulings if r.verdict})
    missing = []
    for name in names:
        if policy.devices:
            lacking = [d for d in policy.devices if (name, d) not in have]
            missing += [f"no accepted verdict of target {name} on {d}" for d in lacking]
        elif name not in judged and policy.targets:
            missing.append(f"no accepted verdict of target {name}")
    return missing


@dataclass(frozen=True)
class Comparison:
    """The broken rows of a verdict beside those of an earlier one, each ``clause dtype``.

    ``withdrawn``: what the earlier one had evidence for and this one does not claim any more.
    """

    new: tuple[str, ...]
    fixed: tuple[str, ...]
    still: tuple[str, ...]
    withdrawn: tuple[str, ...]

    def __str__(self) -> str:
        parts = [
            f"{name} ({len(rows)}): {', '.join(rows)}"
            for name, rows in (
                ("new", self.new),
                ("fixed", self.fixed),
                ("still failing", self.still),
                ("no longer claimed", self.withdrawn),
            )
            if rows
        ]
        return "; ".join(parts) or "nothing has changed"


def compare(earlier: Json, later: Json) -> Comparison:
    """What has changed between two verdicts of one target on one device."""
    before, after = _rows(earlier), _rows(later)
    broken_before = {k for k, status in before.items() if status in BROKEN_STATUSES}
    broken_after = {k for k, status in after.items() if status in BROKEN_STATUSES}
    passing = {k for k, status in after.items() if status == "pass"}
    unclaimed = {k for k in before if after.get(k, "unclaimed") == "unclaimed"}
    told = {k for k, status in before.items() if status in ("pass", "waived", *BROKEN_STATUSES)}
    return Comparison(
        new=tuple(sorted(broken_after - broken_before)),
        fixed=tuple(sorted(broken_before & passing)),
        still=tuple(sorted(broken_after & broken_before)),
        withdrawn=tuple(sorted(told & unclaimed)),
    )


def _rows(verdict: Json) -> dict[str, str]:
    return {f"{r['id']} {r['dtype']}": r["status"] for r in verdict["clauses"]}
