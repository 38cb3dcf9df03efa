"""Keys of variables, and which optimizer updates which variable."""

from collections.abc import Iterable
from typing import Any

import keras

from gradaudit import keras_compat


def keyed(variables: Iterable[Any]) -> dict[str, Any]:
    """Return Keras variables by path, in their order; the second of a path has the key `path#2`.

    An optimizer may give several of its variables one name, as Adafactor does for row and column.
    """
    found: dict[str, Any] = {}
    for variable in variables:
        key, count = variable.path, 1
        while key in found:
            count += 1
            key = f"{variable.path}#{count}"
        found[key] = variable
    return found


def single_optimizers(optimizer: Any) -> list[Any]:
    """Return the optimizers that update weights: one, or those within a MultiOptimizer."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return single_optimizers(optimizer.inner_optimizer)
    if isinstance(optimizer, keras.optimizers.MultiOptimizer):
        return list(optimizer.optimizers)
    return [] if optimizer is None else [optimizer]


def moved_by(optimizer: Any, variable: Any) -> Any:
    """Return which of the `single_optimizers` updates a variable."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return moved_by(optimizer.inner_optimizer, variable)
    if isinstance(optimizer, keras.optimizers.MultiOptimizer):
        return keras_compat.optimizer_of(optimizer, variable)
    return optimizer
