"""The 3-layer tanh net of a published worked example, with its initial weights."""

from typing import Any

import numpy as np

from gradaudit.nets.data import iris_table, one_hot

KERNELS = (
    ((0.1, 0.3, 0.8), (-0.3, -0.2, 0.5), (-0.3, 0.1, 0.4)),
    ((0.4, 0.5, -0.3), (-0.1, -0.4, -0.5), (0.8, 0.2, 0.9)),
    ((0.3, -0.5), (0.1, 0.2), (-0.1, -0.4)),
)
"""The published kernels, in Keras's layout (inputs, outputs). The biases are 0."""

_FEATURES = (1, 2, 3)  # sepal width, petal length, petal width


def samples() -> tuple[np.ndarray, np.ndarray]:
    """Return x (100, 3), standardised, and y (100, 2), one-hot: versicolor or virginica."""
    table = iris_table()
    classes = table.target_classes()
    chosen = classes > 0
    x = table.features[chosen][:, _FEATURES]
    return (x - x.mean(axis=0)) / x.std(axis=0), one_hot(classes[chosen] - 1, 2)


def worked_sample() -> tuple[np.ndarray, np.ndarray]:
    """Return the published row x (1, 3) and its target class 0, y (1, 2).

    The source does not print x; its first pre-activations and kernel give (2, 5, 3) exactly.
    """
    return np.array([[2.0, 5.0, 3.0]]), np.array([[1.0, 0.0]])


def build(bias: bool) -> Any:
    """Return the net 3 → 3 tanh → 3 tanh → 2 softmax with the published kernels."""
    import keras

    activations = ("tanh", "tanh", "softmax")
    dense = [
        keras.layers.Dense(
            len(kernel[0]),
            activation=activation,
            use_bias=bias,
            kernel_initializer=keras.initializers.Constant(np.array(kernel)),
            name=f"layer_{number}",
        )
        for number, (kernel, activation) in enumerate(
            zip(KERNELS, activations, strict=True), start=1
        )
    ]
    return keras.Sequential([keras.Input((3,)), *dense], name="deep_tanh")


def make_loss() -> Any:
    """Return the categorical cross-entropy."""
    import keras

    return keras.losses.CategoricalCrossentropy()
