"""The single-layer softmax net on the Iris flowers."""

from typing import Any

import numpy as np

from gradaudit.nets.data import iris_table, one_hot

WORKED_KERNEL = tuple((first, np.nan, np.nan) for first in (0.15, 0.29, 0.10, 0.71))
"""The kernel of a published worked example, of which only the first class's column is printed."""


def samples() -> tuple[np.ndarray, np.ndarray]:
    """Return x (150, 4) in cm and y (150, 3), one-hot."""
    table = iris_table()
    return table.features, one_hot(table.target_classes(), 3)


def worked_sample() -> tuple[np.ndarray, np.ndarray]:
    """Return the row x (1, 4) of the published worked example and its target class 0, y (1, 3)."""
    return np.array([[0.81, 0.57, 0.28, 0.84]]), np.array([[1.0, 0.0, 0.0]])


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
