"""Losses of published packages, each with an honest adapter: ``tox -e third-parties``."""
