"""Random inputs and targets of the kind that a case asks for."""

import numpy as np

from gradaudit import keras_compat
from gradaudit.rules import Case


def random_input(
    case: Case, rng: np.random.Generator, shape: tuple[int, ...], dtype: str
) -> np.ndarray:
    """Return values of the kind `case.inputs`, of a shape and dtype; indices are int32."""
    if case.inputs == "index":
        return rng.integers(0, 4, shape).astype(np.int32)
    if case.inputs == "probability":
        return _probabilities(rng, shape).astype(dtype)
    real = rng.standard_normal(shape) + (100.0 if case.inputs == "offset" else 0.0)
    return (np.round(real) if case.ties else real).astype(dtype)


def random_targets(case: Case, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return targets of the kind `case.targets` for predictions of a shape."""
    if case.targets == "real":
        return rng.standard_normal(shape)
    if case.targets == "binary":
        return rng.integers(0, 2, shape).astype(np.float64)
    if case.targets == "probability":
        return _probabilities(rng, shape)
    axis = keras_compat.loss_options(case.build()).get("axis", -1)
    classes = rng.integers(0, shape[axis], np.delete(shape, axis))
    if case.targets == "integer":
        return classes
    return np.moveaxis(np.eye(shape[axis])[classes], -1, axis)


def _probabilities(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    positive = rng.uniform(0.1, 0.9, shape)
    return positive / positive.sum(axis=-1, keepdims=True) if shape[-1] > 1 else positive
