"""Keras on the torch backend: the loss class as it is by default, which computes in float32."""

import os

os.environ["KERAS_BACKEND"] = "torch"

import keras

from targets import DROP_IN, Target

LOSS = keras.losses.MeanSquaredError()  # its "sum_over_batch_size" is the mean over everything

TARGET = Target(
    "keras",
    lambda input, target, reduction="mean": LOSS(target, input),
    claims=DROP_IN - {"broadcast", "mixed_dtype", "empty", "functorch", "export"},
    reductions=("mean",),
    dtypes=("float32",),
)
