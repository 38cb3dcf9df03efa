"""Rules that are wrong at special points alone: an infinite slope, NaN, a tie."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from gradaudit.keras_compat import numpy_operations as operations
from gradaudit.rules import Rule
from gradaudit.testing.check import rule_of


def _with(target: Any, function: Callable) -> Rule:
    """Return the rule of a target with another function, on its first case."""
    right = rule_of(target)
    return dataclasses.replace(right, function=function, cases=right.cases[:1])


def _root(call, x):  # noqa: ANN001, ANN202
    y = np.sqrt(x)
    return y, lambda dy: (dy * 0.5 / y, {})


def _relu_of_nan(call, z):  # noqa: ANN001, ANN202
    return np.where(z > 0, z, 0.0), lambda dy: np.where(z > 0, dy, 0.0)


def _relu_with_slope_of_nan(call, z):  # noqa: ANN001, ANN202
    return np.maximum(z, 0.0), lambda dy: np.where(z > 0, dy, 0.0)


def _celu_as_keras(call, z):  # noqa: ANN001, ANN202
    y, vjp = rule_of(keras.activations.celu).function(call, z)
    return y, lambda dy: vjp(np.where(z == 0, 2.0 * dy, dy))


def _all_to_each(call, x):  # noqa: ANN001, ANN202
    largest = x.max(axis=-1, keepdims=True)
    return largest[..., 0], lambda dy: (np.where(x >= largest, dy[..., None], 0.0), {})


SINGULAR: tuple[tuple[str, Rule, tuple[str, ...]], ...] = (
    (
        "0 times the infinite slope of a root",
        _with(operations.Sqrt, _root),
        ("zero_cotangent_makes_zero",),
    ),
    ("relu of NaN is 0", _with(keras.activations.relu, _relu_of_nan), ("nan_makes_nan",)),
    (
        "slope of relu at NaN is 0",
        _with(keras.activations.relu, _relu_with_slope_of_nan),
        ("nan_makes_nan",),
    ),
    (
        "slope 2 of celu at 0",
        _with(keras.activations.celu, _celu_as_keras),
        ("tie_gives_a_subgradient",),
    ),
    (
        "all of dy to each of equal largest",
        _with(operations.Max, _all_to_each),
        ("tie_gives_a_subgradient",),
    ),
)
"""Name, wrong rule and the checks that must refuse it: see `Planted`."""
