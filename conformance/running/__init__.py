"""Carries a run: processes, shards, limits."""
