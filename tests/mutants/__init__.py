"""Broken implementations, each with one realistic defect: the suite must reject every one.

``LENIENT`` break a clause of level ``should`` alone: they conform, and the clause is reported.
``CUDA_MUTANTS`` are wrong on a GPU alone, and only judged there.
"""

from .blocks import BLOCK_MUTANTS
from .broadcasting import BROADCASTING_MUTANTS
from .buffers import BUFFER_MUTANTS
from .caches import CACHE_MUTANTS
from .calls import CALL_MUTANTS
from .compiled import COMPILED_MUTANTS
from .composed import COMPOSED_MUTANTS
from .constants import CONSTANT_MUTANTS
from .cuda import CUDA_MUTANTS
from .determinism import DETERMINISM_MUTANTS
from .domains import DOMAIN_LENIENT, DOMAIN_MUTANTS
from .dtypes import DTYPE_MUTANTS
from .errors import ERROR_MUTANTS
from .fakes import FAKE_MUTANTS
from .folding import FOLDING_MUTANTS
from .forms import FORM_MUTANTS
from .functional import FUNCTIONAL_MUTANTS
from .grad_output import GRAD_OUTPUT_MUTANTS
from .gradients import GRADIENT_MUTANTS
from .guesses import GUESS_MUTANTS
from .indexing import INDEXING_MUTANTS
from .integers import INTEGER_MUTANTS
from .kernels import KERNEL_MUTANTS
from .leaves import LEAF_MUTANTS
from .lenient import LENIENT as _LENIENT
from .metamorphic import METAMORPHIC_MUTANTS
from .modes import MODE_MUTANTS
from .module import MODULE_MUTANTS
from .module_state import MODULE_STATE_MUTANTS
from .mutant import Mutant
from .numerics import NUMERIC_MUTANTS
from .overwrites import OVERWRITE_MUTANTS
from .patches import PATCH_MUTANTS
from .reductions import REDUCTION_MUTANTS
from .resources import RESOURCE_MUTANTS
from .retained import RETAINED_MUTANTS
from .samples import SAMPLE_MUTANTS
from .saved import SAVED_MUTANTS
from .second import SECOND_MUTANTS
from .second_kernels import SECOND_KERNEL_MUTANTS
from .settings import SETTING_MUTANTS
from .tangent_kernels import TANGENT_KERNEL_MUTANTS
from .tangents import TANGENT_MUTANTS
from .threads import THREAD_MUTANTS
from .twice import TWICE_MUTANTS
from .values import VALUE_MUTANTS
from .vmap import VMAP_MUTANTS

MUTANTS: tuple[Mutant, ...] = (
    *REDUCTION_MUTANTS,
    *KERNEL_MUTANTS,
    *BLOCK_MUTANTS,
    *GUESS_MUTANTS,
    *PATCH_MUTANTS,
    *INDEXING_MUTANTS,
    *GRADIENT_MUTANTS,
    *GRAD_OUTPUT_MUTANTS,
    *NUMERIC_MUTANTS,
    *VALUE_MUTANTS,
    *DTYPE_MUTANTS,
    *INTEGER_MUTANTS,
    *BROADCASTING_MUTANTS,
    *FOLDING_MUTANTS,
    *CACHE_MUTANTS,
    *BUFFER_MUTANTS,
    *OVERWRITE_MUTANTS,
    *SETTING_MUTANTS,
    *CALL_MUTANTS,
    *SAVED_MUTANTS,
    *TWICE_MUTANTS,
    *LEAF_MUTANTS,
    *CONSTANT_MUTANTS,
    *SECOND_MUTANTS,
    *SECOND_KERNEL_MUTANTS,
    *TANGENT_MUTANTS,
    *TANGENT_KERNEL_MUTANTS,
    *FUNCTIONAL_MUTANTS,
    *COMPOSED_MUTANTS,
    *VMAP_MUTANTS,
    *SAMPLE_MUTANTS,
    *MODE_MUTANTS,
    *COMPILED_MUTANTS,
    *FAKE_MUTANTS,
    *DETERMINISM_MUTANTS,
    *THREAD_MUTANTS,
    *METAMORPHIC_MUTANTS,
    *MODULE_MUTANTS,
    *MODULE_STATE_MUTANTS,
    *RESOURCE_MUTANTS,
    *RETAINED_MUTANTS,
    *ERROR_MUTANTS,
    *DOMAIN_MUTANTS,
    *FORM_MUTANTS,
)

LENIENT: tuple[Mutant, ...] = (*_LENIENT, DOMAIN_LENIENT)

__all__ = ["CUDA_MUTANTS", "LENIENT", "MUTANTS", "Mutant"]
