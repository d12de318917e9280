"""Clauses that need several calls, or calls that must fail: small experiments of their own.

Each is a function of a :class:`~conformance.observer.protocols.bench.Bench` that yields a message
for every deviation it meets, in the file of its clause's family. Adding one is one function with
the decorator's clause id.
"""

from conformance.observer.protocols import (
    autograd,
    broadcasting,
    cuda,
    determinism,
    dtypes,
    errors,
    large,
    layout,
    metamorphic,
    modes,
    module,
    purity,
    resources,
    transforms,
    values,
)
from conformance.observer.protocols.bench import EXPERIMENTS, Bench, Unavailable, run_experiment

__all__ = [
    "EXPERIMENTS",
    "Bench",
    "Unavailable",
    "autograd",
    "broadcasting",
    "cuda",
    "determinism",
    "dtypes",
    "errors",
    "large",
    "layout",
    "metamorphic",
    "modes",
    "module",
    "purity",
    "resources",
    "run_experiment",
    "transforms",
    "values",
]
