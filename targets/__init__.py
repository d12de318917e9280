"""What is judged: one file per implementation, and the registry that third parties plug into.

>>> from targets import Target, register, resolve
"""

from targets.registry import available, fingerprint, register, resolve
from targets.target import CLAIMS, DROP_IN, Target, TargetError, UnknownTarget

__all__ = [
    "CLAIMS",
    "DROP_IN",
    "Target",
    "TargetError",
    "UnknownTarget",
    "available",
    "fingerprint",
    "register",
    "resolve",
]
