"""Dtypes."""

import keras
from keras import layers

from matrix.cell import Cell, classifier, compiled, dense, fitted

POLICIES = ("float32", "float64", "mixed_float16", "mixed_bfloat16", "float16", "bfloat16")
MODES = {"graph": {}, "XLA": {"jit_compile": True}, "eager": {"run_eagerly": True}}


def under(policy, **options):
    def make():
        if policy == "float64":
            keras.config.set_floatx("float64")
        keras.config.set_dtype_policy(policy)
        return classifier(dense(5), layers.Dropout(0.3, seed=6), dense(4, "relu"), **options)

    return make


def with_layers(*dtypes, **options):
    def make():
        middle = [dense(5, dtype=dtype) for dtype in dtypes]
        return classifier(*middle, **options)

    return make


def float64_functional():
    inputs = keras.Input((4,), dtype="float64")
    x = dense(5, dtype="float64")(inputs)
    return compiled(keras.Model(inputs, dense(3, "softmax", dtype="float64")(x)))


CELLS = (
    *(
        Cell(f"{policy}, {mode}", under(policy, **options), fitted())
        for policy in POLICIES
        for mode, options in MODES.items()
    ),
    Cell("mixed_float16 without loss scaling", under("mixed_float16", auto_scale_loss=False),
         fitted()),
    Cell("one layer in float64", with_layers("float32", "float64"), fitted()),
    Cell("one layer in mixed_bfloat16", with_layers("mixed_bfloat16", "float32"), fitted()),
    Cell("one layer in mixed_float16, XLA",
         with_layers("float32", "mixed_float16", jit_compile=True), fitted()),
    Cell("every layer in float64 while floatx is float32", float64_functional, fitted()),
)  # fmt: skip
