"""Protocols: what takes several calls, or calls that must fail, as the observer performs it.

Each is a function with the decorator :func:`~conformance.observer.protocols.kit.protocol`, in the
file of its family. It is handed tensors and settings by name, calls, and returns what it saw by
name. It knows no right answer: what is asked, and what is expected, stands in
``judging/experiments``.
"""
