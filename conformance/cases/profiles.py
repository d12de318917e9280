"""How much a run looks at: the profiles."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """How much runs. ``examples``: of Hypothesis in each fuzz shard; each makes several cases."""

    name: str
    fuzz_shards: int
    examples: int
    sizes: tuple[int, ...]
    pairs_step: int  # 1: every pair of axis values; 11: one in 11, of all dtypes and reductions
    climb: bool  # drive the worst share up with hypothesis.target()


_LARGE = (4096, 4097, 65535, 65536, 65537)
_LARGER = (131073, 262147, 3 * 2**18, 2**20 + 3, 2**22 + 1)
PROFILES = {
    p.name: p
    for p in (
        Profile("quick", 1, 24, (4097, 65537), pairs_step=11, climb=False),
        Profile("default", 16, 40, (*_LARGE, *_LARGER), pairs_step=1, climb=True),
        Profile(
            "release", 128, 100, (*_LARGE, *_LARGER, 2**20 - 1, 2**24 + 1), pairs_step=1, climb=True
        ),
    )
}
PROFILE_ORDER = tuple(PROFILES)  # each runs all that the one before it does
