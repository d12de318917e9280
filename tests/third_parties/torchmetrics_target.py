"""torchmetrics: its functional mean squared error, of tensors of one shape."""

from torchmetrics.functional.regression import mean_squared_error

from targets import DROP_IN, Target

TARGET = Target(
    "torchmetrics",
    lambda input, target, reduction="mean": mean_squared_error(input, target),
    claims=DROP_IN - {"broadcast", "mixed_dtype", "empty"},
    reductions=("mean",),
    dtypes=("float64", "float32"),
)
