"""The values of tensors in a graph that is run in NumPy."""

from dataclasses import replace
from typing import Any

import keras
import numpy as np

from gradaudit.errors import GapCode
from gradaudit.numerics import Decision, Rounded, numbers
from gradaudit.numerics.ties import Convention
from gradaudit.rules.tape import zeros_like
from gradaudit.tracing.graph import Op
from gradaudit.tracing.tf_ops.complex_numbers import Complex
from gradaudit.tracing.tf_ops.tensor_list import TensorList

Value = Any
"""The value of a tensor: an Array of floats, a Complex, a NumPy array of any other dtype, a
Decision, a TensorList, or a Keras variable for its handle."""


def is_discrete(value: Value) -> bool:
    """Return whether a value has no gradient: integers, booleans, strings."""
    return isinstance(value, np.ndarray) and value.dtype.kind != "f"


def kind_of(number: np.floating) -> str:
    """Return what a number is that is not finite."""
    return "NaN" if np.isnan(number) else "infinite"


def bare(value: Value) -> np.ndarray:
    """Return the numbers of a value without their rounding errors."""
    if isinstance(value, Complex):
        return bare(value.re) + 1j * bare(value.im)
    return numbers(value)


def decided(each: Op, value: Value) -> Value:
    """Return an input of an op; the outcome of a comparison as bare booleans.

    Raises:
        UnsupportedModelError: the outcome depends on rounding.
    """
    if not isinstance(value, Decision):
        return value
    if value.doubtful.any():
        raise each.unsupported("depends on a comparison that rounding decides", GapCode.VALUES)
    return value.value


def by_convention(value: Value, ties: Convention | None) -> Value:
    """Return a value from which what is computed takes another subgradient at exact ties."""
    if isinstance(value, Rounded):
        precision = replace(value.precision, ties=ties)
        return Rounded(value.value, value.variance, value.kink, precision)
    if isinstance(value, Decision):
        return Decision(value.value, value.doubtful, replace(value.precision, ties=ties))
    return value


def zeros(value: Value) -> Value:
    """Return zeros for an output that received no cotangent; None where no gradient passes."""
    if isinstance(value, TensorList):
        return value.unset()
    if is_discrete(value) or isinstance(value, keras.Variable):
        return None
    return zeros_like(value)
