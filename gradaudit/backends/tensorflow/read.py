"""Reads a model's variables, and what replicas computed, as NumPy arrays."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from gradaudit.records import Arrays
from gradaudit.rules import keyed


def state_variables(model: keras.Model) -> list[Any]:
    """Return the weights and seeds of a model: its variables but those of its metrics."""
    metrics = {id(v) for v in model.metrics_variables}
    return [v for v in model.variables if id(v) not in metrics]


def slot_variables(model: keras.Model) -> list[Any]:
    """Return the variables of a model's optimizer, its slots and counters."""
    optimizer = getattr(model, "optimizer", None)  # a model that was never compiled has none
    return [] if optimizer is None else optimizer.variables


def values(variables: list[Any], strategy: tf.distribute.Strategy, replica: int) -> Arrays:
    """Return the values that variables have in one of the local replicas."""
    return {
        key: np.array(strategy.experimental_local_results(v.value)[replica].numpy())
        for key, v in keyed(variables).items()
    }


def reads(variables: list[Any]) -> dict[str, tf.Tensor]:
    """Return tensors of the present values of variables, within a graph or eagerly."""
    return {key: tf.identity(v.value) for key, v in keyed(variables).items()}


def to_numpy(structure: Any) -> Any:
    """Return tensors as NumPy arrays; None stays None, and so do ragged and sparse tensors."""
    return tree.map_structure(
        lambda part: np.array(part) if isinstance(part, tf.Tensor) else part, structure
    )


def per_replica(seen: Any, strategy: tf.distribute.Strategy) -> list[Any]:
    """Return a structure of what replicas computed as one structure for each local replica."""

    def of(replica: int) -> Any:
        def pick(part: Any) -> Any:
            local = strategy.experimental_local_results(part)
            return local[replica] if len(local) > 1 else local[0]

        return tree.map_structure(pick, seen)

    return [of(i) for i in range(len(strategy.experimental_local_results(seen["replica"])))]


def of_each(gathered: dict[str, tf.Tensor], paths: list[str]) -> list[dict[str, Any]]:
    """Return the gradients of each replica, from those of all replicas along the first axis."""
    arrays = {path: to_numpy(gathered[path]) for path in paths if path in gathered}
    count = len(next(iter(arrays.values()), ()))
    return [
        {path: arrays[path][i] if path in arrays else None for path in paths} for i in range(count)
    ]


def relative_distance(
    found: list[tuple[Arrays, Arrays]], trained: list[tuple[Arrays, Arrays]]
) -> float:
    """Return the largest relative difference of a variable; 0 where all are equal to the bit."""
    largest = 0.0
    for mine, theirs in zip(found, trained, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            for path, value in one.items():
                if not np.array_equal(value, other[path], equal_nan=True):
                    with np.errstate(all="ignore"):
                        size = np.linalg.norm(np.asarray(other[path], np.float64))
                        distance = np.linalg.norm(np.subtract(value, other[path], dtype=np.float64))
                        largest = max(largest, float(distance / size) if size else np.inf)
    return largest
