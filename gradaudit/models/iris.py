"""The single-layer softmax net on the Iris flowers."""

from typing import Any

import numpy as np

from gradaudit.models.data import iris_table, one_hot


def samples() -> tuple[np.ndarray, np.ndarray]:
    """Return x (150, 4) in cm and y (150, 3), one-hot."""
    table = iris_table()
    return table.features, one_hot(table.target_classes(), 3)


def build(bias: bool) -> Any:
    """Return the net 4 → 3 softmax."""
    import keras

    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, activation="softmax", use_bias=bias, name="output"),
        ],
        name="iris",
    )


def make_loss() -> Any:
    """Return the categorical cross-entropy."""
    import keras

    return keras.losses.CategoricalCrossentropy()
