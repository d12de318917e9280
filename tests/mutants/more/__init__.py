"""More broken implementations, of other ideas: each says which families of clauses it may break.

What is wrong everywhere may show in any family; in :mod:`state`, some leave global settings
changed, so a run of several in one process has to restore them in between.
"""

from tests.mutants.more import broadcasting, dtypes, functions, kernels, numerics, reductions, state
from tests.mutants.mutant import FAMILIES, Mutant

MUTANTS: tuple[Mutant, ...] = (
    *reductions.MUTANTS,
    *kernels.MUTANTS,
    *functions.MUTANTS,
    *state.MUTANTS,
    *dtypes.MUTANTS,
    *numerics.MUTANTS,
    *broadcasting.MUTANTS,
)

__all__ = ["FAMILIES", "MUTANTS", "Mutant"]
