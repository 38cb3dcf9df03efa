"""Keys of variables, and which optimizer updates which variable."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import keras

from gradaudit import keras_compat


def state_variables(model: keras.Model) -> list[Any]:
    """Return the weights and seeds of a model: its variables but those of its metrics."""
    metrics = {id(v) for v in model.metrics_variables}
    return [v for v in model.variables if id(v) not in metrics]


def slot_variables(model: keras.Model) -> list[Any]:
    """Return the variables of a model's optimizer, its slots and counters."""
    optimizer = getattr(model, "optimizer", None)  # a model that was never compiled has none
    return [] if optimizer is None else optimizer.variables


def variable_keys(model: keras.Model) -> dict[int, str]:
    """Return the key of each variable of a model and its optimizer, by the variable's id.

    A variable is known by itself: subclassed and nested models may give several one path. Records
    and reports have these keys, and in the model of a `StepSpec` they are the paths.
    """
    owners = {
        id(v): id(layer)
        for layer in keras_compat.all_layers(model)
        for v in keras_compat.state_of(layer)
    }
    found = keyed([*state_variables(model), *slot_variables(model)], owners)
    return {id(v): key for key, v in found.items()}


def keyed(
    variables: Iterable[Any], owners: Mapping[int, int] = MappingProxyType({})
) -> dict[str, Any]:
    """Return Keras variables by their keys, in their order.

    The key is the path, if no other variable has it. Of several layers with variables of one path,
    the second has the keys `layer#2/kernel` and `layer#2/bias`. Of one layer, or of an optimizer,
    the second variable of a path has the key `path#2`: an optimizer may give several of its
    variables one name, as Adafactor does for row and column. No key is another variable's path.

    owners: the id of the layer of each variable, by the variable's id.
    """
    variables = list(variables)
    paths = {v.path for v in variables}
    first: dict[str, int | None] = {}
    layers: dict[str, dict[int | None, str]] = {}
    for v in variables:
        layer, owner = v.path.rpartition("/")[0], owners.get(id(v))
        if first.setdefault(v.path, owner) != owner and layer:
            named = layers.setdefault(layer, {})
            named.setdefault(owner, f"{layer}#{len(named) + 2}")
    found: dict[str, Any] = {}
    for v in variables:
        layer, slash, name = v.path.rpartition("/")
        layer = layers.get(layer, {}).get(owners.get(id(v)), layer)
        key, count = f"{layer}{slash}{name}", 1
        while key in found or (key != v.path and key in paths):
            count += 1
            key = f"{layer}{slash}{name}#{count}"
        found[key] = v
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
