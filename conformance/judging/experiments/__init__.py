"""Clauses that need several calls, or calls that must fail: small experiments of their own.

Each is a function of a :class:`~conformance.judging.experiments.bench.Bench` that asks the observer
for what it needs and yields a message for every deviation it meets, in the file of its clause's
family. Adding one is one function with the decorator's clause id, and a protocol in
``observer/protocols`` where none does what it asks for.
"""

import importlib
import pkgutil

from conformance.judging.experiments.bench import EXPERIMENTS, Bench, run_experiment

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["EXPERIMENTS", "Bench", "run_experiment"]
