"""Broken implementations, each with one realistic defect: the suite must reject every one."""

from .broadcasting import BROADCASTING_MUTANTS
from .dtypes import DTYPE_MUTANTS
from .functions import FUNCTION_MUTANTS
from .kernels import KERNEL_MUTANTS
from .mutant import Mutant
from .numerics import NUMERIC_MUTANTS
from .reductions import REDUCTION_MUTANTS
from .state import STATE_MUTANTS

MUTANTS: tuple[Mutant, ...] = (
    *REDUCTION_MUTANTS,
    *KERNEL_MUTANTS,
    *FUNCTION_MUTANTS,
    *STATE_MUTANTS,
    *DTYPE_MUTANTS,
    *NUMERIC_MUTANTS,
    *BROADCASTING_MUTANTS,
)

__all__ = ["MUTANTS", "Mutant"]
