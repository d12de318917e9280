"""Broken implementations, each with one realistic defect: the suite must reject every one.

``LENIENT`` break a clause of level ``should`` alone: they conform, and the clause is reported.
``CUDA_MUTANTS`` are wrong on a GPU alone, and only judged there.
"""

from .autograd import AUTOGRAD_MUTANTS
from .broadcasting import BROADCASTING_MUTANTS
from .calls import CALL_MUTANTS
from .cheats import CHEAT_MUTANTS
from .combined import COMBINED_MUTANTS
from .cuda import CUDA_MUTANTS
from .determinism import DETERMINISM_MUTANTS
from .domains import DOMAIN_LENIENT, DOMAIN_MUTANTS
from .dtypes import DTYPE_MUTANTS
from .errors import ERROR_MUTANTS
from .examined import EXAMINED_MUTANTS
from .field import FIELD_MUTANTS
from .functions import FUNCTION_MUTANTS
from .indexing import INDEXING_MUTANTS
from .kernels import KERNEL_MUTANTS
from .lenient import LENIENT as _LENIENT
from .metamorphic import METAMORPHIC_MUTANTS
from .module import MODULE_MUTANTS
from .museum import MUSEUM_MUTANTS
from .mutant import Mutant
from .numerics import NUMERIC_MUTANTS
from .overlooked import OVERLOOKED_MUTANTS
from .reductions import REDUCTION_MUTANTS
from .resources import RESOURCE_MUTANTS
from .seldom import SELDOM_MUTANTS
from .state import STATE_MUTANTS
from .strangers import STRANGER_MUTANTS
from .thresholds import THRESHOLD_MUTANTS
from .transforms import TRANSFORM_MUTANTS
from .values import VALUE_MUTANTS

MUTANTS: tuple[Mutant, ...] = (
    *REDUCTION_MUTANTS,
    *KERNEL_MUTANTS,
    *INDEXING_MUTANTS,
    *FUNCTION_MUTANTS,
    *NUMERIC_MUTANTS,
    *VALUE_MUTANTS,
    *DTYPE_MUTANTS,
    *BROADCASTING_MUTANTS,
    *STATE_MUTANTS,
    *CHEAT_MUTANTS,
    *MUSEUM_MUTANTS,
    *CALL_MUTANTS,
    *AUTOGRAD_MUTANTS,
    *TRANSFORM_MUTANTS,
    *DETERMINISM_MUTANTS,
    *METAMORPHIC_MUTANTS,
    *MODULE_MUTANTS,
    *RESOURCE_MUTANTS,
    *ERROR_MUTANTS,
    *SELDOM_MUTANTS,
    *COMBINED_MUTANTS,
    *OVERLOOKED_MUTANTS,
    *STRANGER_MUTANTS,
    *EXAMINED_MUTANTS,
    *THRESHOLD_MUTANTS,
    *DOMAIN_MUTANTS,
    *FIELD_MUTANTS,
)

LENIENT: tuple[Mutant, ...] = (*_LENIENT, DOMAIN_LENIENT)

__all__ = ["CUDA_MUTANTS", "LENIENT", "MUTANTS", "Mutant"]
