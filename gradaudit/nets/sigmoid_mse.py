"""One hidden sigmoid layer and a linear output under the half squared error."""

from typing import Any

import numpy as np

from gradaudit.nets.data import iris_table


def samples() -> tuple[np.ndarray, np.ndarray]:
    """Return x (150, 3), the first three measurements in cm, and y (150, 1), the petal width."""
    features = iris_table().features
    return features[:, :3], features[:, 3:]


def build(bias: bool) -> Any:
    """Return the net 3 → 4 sigmoid → 1 linear."""
    import keras

    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, activation="sigmoid", use_bias=bias, name="hidden"),
            keras.layers.Dense(1, use_bias=bias, name="output"),
        ],
        name="sigmoid_mse",
    )


def make_loss() -> Any:
    """Return E = Σ (d − y)²/2 over the batch."""
    from gradaudit.rules.losses.half_squared_error import HalfSquaredError

    return HalfSquaredError()
