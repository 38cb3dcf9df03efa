"""Reads a model's variables, and what replicas computed, as NumPy arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from keras import tree

from gradaudit.records import Arrays


def values(
    variables: list[Any], keys: Mapping[int, str], strategy: tf.distribute.Strategy, replica: int
) -> Arrays:
    """Return the values that variables have in one of the local replicas.

    They are no copies where they are in the memory of the host: a variable that is assigned to
    while its value is held gets memory of its own.

    keys: those of `rules.variable_keys`.
    """
    return {
        keys[id(v)]: np.asarray(strategy.experimental_local_results(v.value)[replica].read_value())
        for v in variables
    }


def reads(variables: list[Any], keys: Mapping[int, str]) -> dict[str, tf.Tensor]:
    """Return tensors of the present values of variables, within a graph or eagerly."""
    return {keys[id(v)]: tf.identity(v.value) for v in variables}


def to_numpy(structure: Any) -> Any:
    """Return tensors as NumPy arrays; None stays None, and so do ragged and sparse tensors.

    They are no copies where the tensors are in the memory of the host.
    """
    return tree.map_structure(
        lambda part: np.asarray(part) if isinstance(part, tf.Tensor) else part, structure
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
