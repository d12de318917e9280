"""neuralforecast: its point loss without weights and mask."""

from neuralforecast.losses.pytorch import MSE

from targets import DROP_IN, Target

LOSS = MSE()

TARGET = Target(
    "neuralforecast",
    lambda input, target, reduction="mean": LOSS(y=target, y_hat=input),
    claims=DROP_IN - {"broadcast", "mixed_dtype", "empty"},
    reductions=("mean",),
    dtypes=("float64", "float32"),
)
