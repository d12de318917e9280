"""The gate: what it accepts, what it refuses and why, and what has changed since."""

from __future__ import annotations

import datetime
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conformance.cli import main
from conformance.verdict.configuration import ConfigurationError, parse_text
from conformance.verdict.gate import Policy, compare, parse_policy, rule, uncovered
from conformance.verdict.verdict import digest, revision
from targets import resolve
from tests.pages import verdict
from tests.sampling import VERDICTS

pytestmark = VERDICTS
Json = dict[str, Any]
Edit = Callable[[Json], None]
NOW = datetime.datetime(2030, 1, 31, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def conforming() -> Json:
    """A verdict of profile default, in all but name: the gate reads it and judges nothing."""
    return verdict("builtin") | {"profile": "default", "created": "2030-01-30T12:00:00+00:00"}


def saved(path: Path, verdict: Json, edit: Edit | None = None, *, honest: bool = True) -> Path:
    """The file of ``verdict`` after ``edit``; not honest: without a new digest."""
    verdict = json.loads(json.dumps(verdict))
    verdict["digest"] = digest(verdict)
    if edit is not None:
        edit(verdict)
    if honest:
        verdict["digest"] = digest(verdict)
    path.write_text(json.dumps(verdict))
    return path


def reasons(path: Path, policy: Policy | None = None) -> str:
    (ruling,) = rule([path], policy or Policy(), NOW)
    return "; ".join(ruling.reasons)


def first(verdict: Json, **changes: Any) -> None:
    next(r for r in verdict["clauses"] if r["level"] == "must").update(changes)


def waived(verdict: Json, **changes: Any) -> None:
    told = {"reason": "known", "link": "", "expires": "2030-12-31"} | changes
    first(verdict, status="waived", waiver=told)


def test_the_right_one_is_accepted(conforming: Json, tmp_path: Path) -> None:
    policy = Policy(
        targets=("builtin",), devices=("cpu",), dtypes=("float32", "bfloat16"), max_age_days=2,
        waivers_need_link=True, same_source=True,
    )  # fmt: skip
    path = saved(tmp_path / "v.json", conforming)
    rulings = rule([path], policy, NOW)
    assert [r.reasons for r in rulings] == [()]
    assert uncovered(rulings, policy) == []


@pytest.mark.parametrize(
    ("edit", "honest", "reason"),
    [
        (lambda v: first(v, status="pass?"), False, "its digest does not match: it was edited"),
        (lambda v: v.update(seed=7), False, "its digest does not match"),
        (lambda v: v.update(complete=False), True, "it is incomplete"),
        (lambda v: first(v, status="fail"), True, "the target does not conform"),
        (lambda v: v.update(conforms=False), True, "the target does not conform"),
        (lambda v: first(v, status="unavailable"), True, "without evidence for value."),
        (lambda v: v.update(clauses=[]), True, "without evidence for anything"),
        (lambda v: v.update(profile="quick"), True, "profile quick, less than default"),
        (lambda v: v.update(selected="value.*"), True, "the clauses value.* only"),
        (lambda v: waived(v, expires="2030-01-01"), True, "has expired since: value.tensor"),
    ],
)
def test_the_bare_gate_refuses(
    conforming: Json, tmp_path: Path, edit: Edit, honest: bool, reason: str
) -> None:
    assert reason in reasons(saved(tmp_path / "v.json", conforming, edit, honest=honest))


@pytest.mark.parametrize(
    ("policy", "edit", "reason"),
    [
        (Policy(profile="release"), None, "profile default, less than release"),
        (Policy(max_age_days=0.25), None, "it is 0 days old, more than 0.25"),
        (Policy(max_age_days=2), lambda v: v.update(created=""), "does not say when"),
        (Policy(domain="full"), lambda v: v.update(domain="2 dimensions"), "only: 2 dimensions"),
        (Policy(max_age_days=2), lambda v: v.update(created="2031-01-01T00:00:00+00:00"), "future"),
        (Policy(commit="deadbeef"), lambda v: v.update(commit="0123456"), "commit 0123456, not"),
        (Policy(commit="HEAD"), lambda v: v.update(commit=""), "commit (none), not from"),
        (Policy(waivers_need_link=True), waived, "a waiver without a link: value.tensor"),
        (Policy(same_source=True), lambda v: v.update(fingerprint="0"), "builtin has changed"),
        (Policy(same_source=True), lambda v: v.update(source="gone.py:x"), "no such file: gone.py"),
        (
            Policy(dtypes=("float16",)),
            lambda v: v.update(clauses=[r for r in v["clauses"] if r["dtype"] != "float16"]),
            "no evidence in float16",
        ),
    ],
)
def test_a_policy_refuses(
    conforming: Json, tmp_path: Path, policy: Policy, edit: Edit | None, reason: str
) -> None:
    path = saved(tmp_path / "v.json", conforming, edit)
    assert reasons(path, Policy(profile="quick")) == ""
    assert reason in reasons(path, policy)


def test_a_linked_waiver_is_accepted(conforming: Json, tmp_path: Path) -> None:
    path = saved(tmp_path / "v.json", conforming, lambda v: waived(v, link="issue 1"))
    assert reasons(path, Policy(waivers_need_link=True)) == ""


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.999])
def test_a_file_that_is_cut_off_is_refused(conforming: Json, tmp_path: Path, keep: float) -> None:
    path = saved(tmp_path / "v.json", conforming)
    text = path.read_text()
    path.write_text(text[: int(len(text) * keep)])
    assert "not whole JSON" in reasons(path)


@pytest.mark.parametrize("text", ["[]", "{}", '"x"', "3", '{"digest": 1, "clauses": 2}', "\xff"])
def test_what_is_no_verdict_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "v.json"
    path.write_bytes(text.encode("latin-1"))
    assert reasons(path)


def test_the_commit_must_be_the_present_one(
    conforming: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.chdir(tmp_path)
    git("init")
    (tmp_path / "mine.py").write_text("1")
    git("add", "mine.py")
    git("commit", "-m", "one")
    made = revision()
    assert len(made) == 40
    path = saved(tmp_path / "v.json", conforming, lambda v: v.update(commit=made))
    assert reasons(path, Policy(commit="HEAD")) == ""
    assert reasons(path, Policy(commit=made[:12])) == ""
    (tmp_path / "mine.py").write_text("2")
    assert revision() == f"{made}+changes"
    changed = saved(tmp_path / "w.json", conforming, lambda v: v.update(commit=revision()))
    assert "+changes, not from" in reasons(changed, Policy(commit="HEAD"))
    git("commit", "-am", "two")
    assert f"commit {made}, not from" in reasons(path, Policy(commit="HEAD"))


def test_every_required_target_needs_a_verdict_on_every_device(
    conforming: Json, tmp_path: Path
) -> None:
    good = saved(tmp_path / "v.json", conforming)
    bad = saved(tmp_path / "w.json", conforming, lambda v: v.update(target="mine", conforms=False))
    policy = Policy(targets=("builtin", "mine"), devices=("cpu", "cuda"))
    assert uncovered(rule([good, bad], policy, NOW), policy) == [
        "no accepted verdict of target builtin on cuda",
        "no accepted verdict of target mine on cpu",
        "no accepted verdict of target mine on cuda",
    ]
    elsewhere = saved(tmp_path / "x.json", conforming, lambda v: v.update(device="cuda:1"))
    policy = Policy(devices=("cpu", "cuda"))
    assert uncovered(rule([good, elsewhere], policy, NOW), policy) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("target = ['x']", "unknown key 'target', did you mean 'targets'"),
        ("targets = 'x'", "targets must be a list of names"),
        ("devices = ['tpu']", "unknown devices 'tpu'"),
        ("profile = 'slow'", "unknown profile 'slow'"),
        ("max_age_days = '3'", "max_age_days is '3', not a positive number"),
        ("max_age_days = -1", "not a positive number"),
        ("domain = 'most'", "unknown domain 'most'"),
        ("same_source = 'yes'", "same_source is 'yes', not true or false"),
        ("commit = 3", "commit is 3, not a text"),
    ],
)
def test_a_wrong_policy_is_explained(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_policy(parse_text(f"[gate]\n{text}\n", Path("conformance.toml")))
    assert message in str(caught.value)


def test_what_has_changed_is_told(conforming: Json) -> None:
    def with_statuses(**statuses: str) -> Json:
        rows = [{"id": k, "dtype": "float32", "status": v} for k, v in statuses.items()]
        return conforming | {"clauses": rows}

    before = with_statuses(a="fail", b="fail", c="pass", d="pass", e="unclaimed")
    after = with_statuses(a="fail", b="pass", c="crash", d="unclaimed", e="unclaimed")
    assert str(compare(before, after)) == (
        "new (1): c float32; fixed (1): b float32; still failing (1): a float32; "
        "no longer claimed (1): d float32"
    )
    assert str(compare(after, after)).startswith("still failing (2)")
    assert str(compare(before, before | {"clauses": []})).startswith("no longer claimed (4)")


def test_the_command(
    conforming: Json, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    good = str(saved(tmp_path / "v.json", conforming))
    assert main(["gate", good]) == 0
    assert main(["gate", good, "--baseline", good]) == 0
    assert "nothing has changed" in capsys.readouterr().out
    (tmp_path / "conformance.toml").write_text("[gate]\ntargets = ['builtin', 'mine']\n")
    assert main(["gate", good]) == 1
    assert "REFUSED: no accepted verdict of target mine" in capsys.readouterr().out
    (tmp_path / "conformance.toml").write_text("[gates]\n")
    assert main(["gate", good]) == 2
    assert "did you mean 'gate'" in capsys.readouterr().err
    assert main(["gate", good, "--policy", "none.toml"]) == 2


def test_the_fingerprint_covers_every_source(tmp_path: Path) -> None:
    from targets import Target, fingerprint

    kernel = tmp_path / "k.cu"
    kernel.write_text("1")
    target = Target("mine", resolve("builtin").loss, sources=(str(kernel),))
    before = fingerprint(target)
    kernel.write_text("2")
    assert fingerprint(target) != before
