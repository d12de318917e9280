"""neuraloperator: its MSELoss over all dimensions; by default it sums over the first."""

from neuralop.losses.data_losses import MSELoss

from targets import DROP_IN, Target

LOSS = MSELoss()

TARGET = Target(
    "neuraloperator",
    lambda input, target, reduction="mean": LOSS(input, target, dim=list(range(input.ndim))),
    claims=DROP_IN - {"broadcast", "mixed_dtype", "empty"},
    reductions=("mean",),
    dtypes=("float64", "float32"),
)
