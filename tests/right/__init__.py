"""Implementations that are right and compute differently: the suite must pass every one."""

from .bank import RIGHT

__all__ = ["RIGHT"]
