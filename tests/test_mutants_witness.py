"""Every mutant is wrong somewhere, and the remainder that they share is right everywhere.

The probes compare with the builtin, coarsely: they prove the material, not the suite.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from targets import Target
from tests.mutants import MUTANTS, Mutant
from tests.mutants.broadcasting import folding
from tests.mutants.kernels import losing
from tests.mutants.mutant import (
    Witness,
    by_rule,
    by_squares,
    by_sum,
    by_value,
    elementwise,
    mutant,
    right,
    right_rule,
    viewed,
)
from tests.mutants.witnesses import in_peace
from tests.right import RIGHT
from tests.sampling import every

TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 3e-6,
    torch.float16: 8e-3,
    torch.bfloat16: 6e-2,
}
REMAINDER = (
    mutant("right", right, "value"),
    mutant("rule", by_rule(right_rule), "value"),
    mutant("elementwise", elementwise(lambda x, y: (x - y).square(), "right"), "value"),
    mutant("value", by_value(right), "value"),
    mutant("squares", by_squares(lambda s: s), "value"),
    mutant("sum", by_sum(Tensor.sum), "value"),
    mutant("losing", losing(lambda n: n, "right"), "value"),
    mutant("viewed", viewed(lambda x: x), "value"),
    mutant("folding", folding(), "value"),
)


def settings() -> tuple[Any, ...]:
    state = torch.get_rng_state().sum().item()
    return torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), state


def same(own: Tensor | None, expected: Tensor | None) -> bool:
    if own is None or expected is None:
        return own is expected
    if own.dtype != expected.dtype or own.shape != expected.shape:
        return False
    rtol = TOLERANCE[own.dtype]
    return torch.allclose(own, expected, rtol, torch.finfo(own.dtype).tiny, equal_nan=True)


def agrees(loss: Callable[..., Tensor], x: Tensor, y: Tensor, reduction: str, g: float) -> bool:
    """Value, gradients, operands and settings after one call, as the builtin leaves them."""
    results: list[list[Tensor | None]] = []
    before = settings()
    for function in (loss, F.mse_loss):
        # Clones of the whole storage: views stay views, and what lies behind them is seen.
        bases = [b.detach().clone() for b in (base(x), base(y))]
        a, b = (
            n.as_strided(o.shape, o.stride(), o.storage_offset())
            for n, o in zip(bases, (x, y), strict=True)
        )
        operands = [t.requires_grad_() if t.is_floating_point() else t for t in (a, b)]
        needing = [t for t in operands if t.requires_grad]
        value = function(*operands, reduction=reduction)
        kept = value.detach().clone()
        out = torch.full(value.shape, g, dtype=value.dtype)
        if out.dim():  # one number for each row, and stride 0 along it
            rows = torch.linspace(-1, 1.5, out.shape[0]).to(out.dtype) * g
            out = rows.reshape(-1, *(1,) * (out.dim() - 1)).expand(out.shape)
        sent = out.clone()
        gradients = torch.autograd.grad(value, needing, out, allow_unused=True)
        function(*(t.detach() * 2 for t in operands), reduction=reduction)
        results.append([kept, value.detach(), sent, out, *bases, *gradients])
    if settings() != before:
        return False
    own, builtin = results
    intact = torch.equal(own[2].nan_to_num(), own[3].nan_to_num())  # type: ignore[union-attr]
    return intact and all(itertools.starmap(same_or_integer, zip(own, builtin, strict=True)))


def same_or_integer(own: Tensor | None, expected: Tensor | None) -> bool:
    if expected is not None and not expected.is_floating_point():
        return own is not None and torch.equal(own, expected)
    return same(own, expected)


def base(x: Tensor) -> Tensor:
    return x.detach().as_strided((x.untyped_storage().nbytes() // x.itemsize,), (1,), 0)


def probes(target: Any) -> Iterator[tuple[Tensor, Tensor, float]]:
    generator = torch.Generator().manual_seed(3)
    for name in target.dtypes:
        dtype = getattr(torch, name)

        def draw(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.randn(shape, generator=generator).to(dtype)

        inf, nan = torch.inf, torch.nan
        special = torch.tensor([inf, nan, 1, -2, 0, nan, 3, 8, -inf] * 2 + [nan], dtype=dtype)
        yield draw(3, 4), draw(3, 4), 1.0
        yield draw(3, 4) * 50, draw(3, 4) * 150, -3.0
        yield draw(37), draw(37), 2.0
        yield draw(2, 3), draw(2, 3), 0.0
        yield special, draw(19), 0.0
        yield special, draw(19), 1.0
        yield draw(5, 4).t(), draw(4, 5), 1.0
        yield draw(20)[::2], draw(20)[1::2], 1.0
        yield draw(20)[3:10], draw(20)[5:12], 1.0
        yield draw(1, 4).expand(3, 4), draw(3, 4), 1.0
        yield draw(2, 5, 4).permute(2, 0, 1), draw(4, 2, 5), 1.0
        yield draw(3, 1), draw(4), 1.0
        yield draw(4, 4), draw(4), 1.0
        yield draw(1, 4), draw(3, 4), 1.0
        yield draw(0), draw(0), 1.0
        yield draw(), draw(3), 1.0
        tiny = torch.full((6,), torch.finfo(dtype).tiny / 4).to(dtype)
        yield tiny, tiny * 0, 2.0**20 if dtype != torch.float16 else 64.0
        yield draw(6) * 1e-7 if dtype != torch.float16 else draw(6) / 4096, draw(6) * 0, 1.0
        yield draw(6) + 1000, draw(6) + 1000, 1.0
        big = torch.finfo(dtype).max / 4
        yield torch.full((3,), big, dtype=dtype), torch.zeros(3, dtype=dtype), 1.0
        yield draw(70_001), draw(70_001), 1.0
        yield draw(5000).sort().values, draw(5000), 1.0
        yield draw(4), torch.arange(4), 1.0
        yield draw(4), draw(4).double(), 1.0
        if dtype == torch.float16:
            yield draw(4), draw(4).bfloat16(), 1.0
    yield torch.full((2**20,), 1.1), torch.zeros(2**20), 1.0


def refuses(loss: Callable[..., Tensor]) -> bool:
    """Shapes that do not broadcast raise, and integers raise or are right."""
    for x, y in [
        (torch.ones(2, 3), torch.ones(6)),
        (torch.ones(3), torch.ones(4)),
        (torch.ones(2, 3), torch.ones(2)),
    ]:
        try:
            loss(x, y, reduction="mean")
        except RuntimeError:
            continue
        return False
    try:
        return float(loss(torch.tensor([1, 2]), torch.tensor([0, 0]), reduction="mean")) == 2.5
    except RuntimeError:
        return True


def survives(target: Any) -> bool:
    for x, y, g in probes(target):
        for reduction in target.reductions:
            try:
                if not agrees(target.loss, x, y, reduction, g):
                    return False
            except RuntimeError:
                return False
    x, y = torch.ones(3), torch.zeros(3)  # one shape and address, other contents
    for call in range(14):
        x.fill_(call)
        if float(target.loss(x, y, reduction=target.reductions[-1]).sum()) != float(
            F.mse_loss(x, y, reduction=target.reductions[-1]).sum()
        ):
            return False
    only = torch.ones(3, requires_grad=True)
    if not same(target.loss(x, only).detach(), F.mse_loss(x, only).detach()):
        return False
    return refuses(target.loss)


def shown_wrong(witness: Witness | None, target: Target) -> bool:
    return witness(target) if witness else not survives(target)


OWN = [m for m in MUTANTS if m.witness]
INDUCTOR = [m for m in MUTANTS if m.target.name == "strided-operator"]  # a minute each


@pytest.mark.parametrize("mutant", REMAINDER, ids=lambda m: m.target.name)
def test_the_shared_remainder_is_right(mutant: Mutant) -> None:
    with in_peace():
        assert survives(mutant.target)


@every(6, "mutant", MUTANTS, slow=INDUCTOR, ids=lambda m: m.target.name)
def test_every_mutant_is_wrong_somewhere(mutant: Mutant) -> None:
    with in_peace():
        assert shown_wrong(mutant.witness, mutant.target)


@every(6, "mutant", OWN, slow=INDUCTOR, ids=lambda m: m.target.name)
def test_a_witness_has_nothing_against_a_right_loss(mutant: Mutant) -> None:
    with in_peace():
        assert not shown_wrong(mutant.witness, REMAINDER[0].target)


def test_names_are_unique() -> None:
    names = [m.target.name for m in MUTANTS] + [t.name for t in RIGHT]
    assert len(names) == len(set(names))
