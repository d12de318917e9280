"""Implementations that are right and compute differently: the suite must pass every one."""

from tests.right.bank import RIGHT

__all__ = ["RIGHT"]
