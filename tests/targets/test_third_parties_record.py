"""The record of published packages: what is not as recorded fails."""

from __future__ import annotations

from typing import Any

import pytest

from tests.third_parties.__main__ import HERE, RECORDED, is_stale, told


def verdict(*clauses: str, causes: tuple[tuple[str, ...], ...] = ()) -> dict[str, Any]:
    row = {"status": "fail", "level": "must", "dtype": "float32"}
    found = {"message": "is wrong", "case": None}
    return {
        "clauses": [{"id": clause, "counterexample": found, **row} for clause in clauses],
        "causes": [{"text": "It is.", "likely": "", "clauses": [*some]} for some in causes],
    }


@pytest.mark.parametrize("profile", ["quick", "default"])
def test_what_is_recorded_is_not_stale(profile: str) -> None:
    for name, clauses in RECORDED.items():
        assert not is_stale(name, verdict(*clauses), profile)


@pytest.mark.parametrize("profile", ["quick", "default"])
def test_another_broken_clause_or_none_is_stale(profile: str) -> None:
    assert is_stale("deepxde", verdict("value.sum"), profile)
    assert is_stale("keras", verdict(*RECORDED["keras"], "value.sum"), profile)
    assert is_stale("keras", verdict(), profile)


def test_a_quick_run_may_miss_what_another_profile_finds() -> None:
    assert not is_stale("keras", verdict("errors.devices"), "quick")
    assert is_stale("keras", verdict("errors.devices"), "default")


def test_one_reason_is_told_once() -> None:
    seen = verdict("layout.value", "transforms.fake", causes=(("layout.value", "transforms.fake"),))
    (text,) = told(seen)
    assert text == "`layout.value`: is wrong; for the same reason `transforms.fake`"


def test_each_has_an_adapter() -> None:
    assert {path.name for path in HERE.glob("*_target.py")} == {f"{n}_target.py" for n in RECORDED}
