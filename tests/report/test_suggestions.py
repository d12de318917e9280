"""What a target might claim instead: only where what is broken is that it raises."""

from __future__ import annotations

from typing import Any

import pytest

from conformance.report.suggestions import suggestions

Json = dict[str, Any]
DTYPES = ("float64", "float32", "float16")


def row(clause: str, dtype: str, message: str = "") -> Json:
    """A row that passes, or one that fails with this message."""
    own = {"id": clause, "level": "must", "dtype": dtype, "status": "fail" if message else "pass"}
    return own | ({"counterexample": {"message": message}} if message else {})


def verdict(**broken: str) -> Json:
    """Plain values in three dtypes; ``broken``: messages by clause and dtype, as a_b__dtype."""
    rows = [row(f"value.{r}", d) for d in DTYPES for r in ("none", "sum", "mean")]
    for key, message in broken.items():
        clause, _, dtype = key.replace("_", ".", 1).partition("__")
        rows = [r for r in rows if (r["id"], r["dtype"]) != (clause, dtype)]
        rows.append(row(clause, dtype, message))
    return {"clauses": rows}


def everywhere(dtype: str, message: str) -> dict[str, str]:
    return {f"value_{r}__{dtype}": message for r in ("none", "sum", "mean")}


def test_what_conforms_is_told_nothing() -> None:
    assert suggestions(verdict()) == []


def test_a_dtype_that_raises_may_be_left_out() -> None:
    found = suggestions(verdict(**everywhere("float16", "raised TypeError: no halves")))
    assert found == ['dtypes=("float64", "float32"): it raises for float16']


@pytest.mark.parametrize("message", ["result is 1.0, permitted: 2.0", "the call ended its process"])
def test_a_dtype_that_is_wrong_may_not(message: str) -> None:
    assert suggestions(verdict(**everywhere("float16", message))) == []
    mixed = everywhere("float16", "raised TypeError: no") | {"value_sum__float16": message}
    assert suggestions(verdict(**mixed)) == []


def test_a_reduction_that_raises_may_be_left_out() -> None:
    raising = {f"value_none__{d}": "raised ValueError: none" for d in DTYPES}
    assert suggestions(verdict(**raising)) == ['reductions=("sum", "mean"): it raises for none']


def test_a_claim_of_which_all_that_is_broken_raises_may_be_left_out() -> None:
    raising = {"broadcasting_value__float32": "raised ValueError: shapes differ\nand more"}
    (found,) = suggestions(verdict(**raising))
    assert found == 'claims=DROP_IN - {"broadcast"}: broadcast: raised ValueError: shapes differ'
    wrong = raising | {"broadcasting_gradient__float32": "gradient of input is 1.0, permitted: 2.0"}
    assert suggestions(verdict(**wrong)) == []


def test_what_may_follow_from_another_is_not_suggested_with_it() -> None:
    forward = {"autograd_forward__float32": "raised NotImplementedError: no jvp"}
    assert 'DROP_IN - {"forward_ad"}' in suggestions(verdict(**forward))[0]
    both = forward | {"broadcasting_value__float32": "raised ValueError: shapes differ"}
    assert [text.partition(":")[0] for text in suggestions(verdict(**both))] == [
        'claims=DROP_IN - {"broadcast"}'
    ]


def test_where_nothing_works_less_is_no_help() -> None:
    broken = {k: m for d in DTYPES for k, m in everywhere(d, "raised ValueError: no").items()}
    assert suggestions(verdict(**broken)) == []
