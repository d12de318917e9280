"""What is judged: one file per implementation, and the registry that third parties plug into.

>>> from targets import Target, register, resolve
"""

from targets.domain import Domain, DomainError, Result
from targets.registry import available, fingerprint, prepare, register, resolve
from targets.target import CLAIMS, DROP_IN, Target, TargetError, TargetUnavailable, UnknownTarget

__all__ = [
    "CLAIMS",
    "DROP_IN",
    "Domain",
    "DomainError",
    "Result",
    "Target",
    "TargetError",
    "TargetUnavailable",
    "UnknownTarget",
    "available",
    "fingerprint",
    "prepare",
    "register",
    "resolve",
]
