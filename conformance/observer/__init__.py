"""Beside the target: makes tensors, calls, writes down what it saw."""
