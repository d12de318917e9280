"""GPyTorch: its metric of a predictive distribution, of which it uses the mean only.

The stand-in for a distribution is not for torch.compile, so that is not claimed.
"""

from types import SimpleNamespace

from gpytorch.metrics import mean_squared_error

from targets import DROP_IN, Target


def loss(input, target, reduction="mean"):  # type: ignore[no-untyped-def]
    """It takes the mean over the last dimension: with one dimension, over everything."""
    return mean_squared_error(SimpleNamespace(mean=input.reshape(-1)), target.reshape(-1))


TARGET = Target(
    "gpytorch",
    loss,
    claims=DROP_IN - {"broadcast", "mixed_dtype", "empty", "compile", "export"},
    reductions=("mean",),
    dtypes=("float64", "float32"),
)
