"""Layers that normalise in the dtype of their inputs, which Keras does not cast to the layer's."""

import keras
import numpy as np
import pytest
from keras import layers

import gradaudit
from suite import by_default

X = np.random.default_rng(0).standard_normal((6, 4)) + 10.0
Y = np.ones((6, 1))
LAYERS = {
    "layer": layers.LayerNormalization,
    "group": lambda dtype: layers.GroupNormalization(2, dtype=dtype),
    "batch": layers.BatchNormalization,
    "rms": layers.RMSNormalization,
}


@pytest.mark.parametrize("name", by_default(LAYERS, [*LAYERS][:1]))
@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        ("float32", "float64"),
        ("float16", "float32"),
        ("float32", "mixed_float16"),
        ("float64", "float64"),
    ],
)
def test_an_input_of_another_dtype_is_normalised_as_keras_does(name, given, dtype):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,), dtype=given),
            LAYERS[name](dtype=dtype),
            layers.Dense(3, "tanh", dtype=dtype),
            layers.Dense(1, dtype=dtype),
        ]
    )
    model.compile("sgd", "mse")
    run = gradaudit.check(model, X, Y)
    assert run.verdict == "pass", run.run["failures"]
