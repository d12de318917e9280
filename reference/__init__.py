"""The specification of the mean squared error and its oracle. NumPy only: never imports torch."""
