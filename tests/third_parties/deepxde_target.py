"""DeepXDE on its PyTorch backend."""

import os

os.environ["DDE_BACKEND"] = "pytorch"

from deepxde.losses import mean_squared_error

from targets import DROP_IN, Target

TARGET = Target(
    "deepxde",
    lambda input, target, reduction="mean": mean_squared_error(target, input),
    claims=DROP_IN - {"broadcast", "mixed_dtype", "empty"},
    reductions=("mean",),
    dtypes=("float64", "float32"),
)
