"""Implementations that are right and compute differently: the suite must pass every one.

Each makes the claims that it honestly can, as large as they are true.
"""

from targets import Target

from .domains import RIGHT_DOMAINS
from .forms import RIGHT_FORMS
from .formulas import RIGHT_FORMULAS
from .functions import RIGHT_FUNCTIONS
from .fused import RIGHT_FUSED
from .modules import RIGHT_MODULES
from .operators import RIGHT_OPERATORS
from .sums import RIGHT_SUMS

RIGHT: tuple[Target, ...] = (
    *RIGHT_FORMULAS,
    *RIGHT_SUMS,
    *RIGHT_FUNCTIONS,
    *RIGHT_FUSED,
    *RIGHT_MODULES,
    *RIGHT_OPERATORS,
    *RIGHT_DOMAINS,
    *RIGHT_FORMS,
)

__all__ = ["RIGHT"]
