"""Scaling by 1 / √s: what every normalization does with its variance or mean square."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradaudit.numerics.arithmetic import Array

Vjp = Callable[[Array], Array]


def inverse_root(s: Array) -> tuple[Array, Vjp]:
    """Return r = 1 / √s and its VJP: ds = −½ r³ dr."""
    r = s**-0.5
    return r, lambda dr: -0.5 * dr * (r * r * r)


def squares(x: Array, axes: Sequence[int], total: int) -> tuple[Array, Vjp]:
    """Return s = Σ x² / total over axes that stay with length 1, and its VJP: dx = 2 x ds / total.

    total: 1 for the sum, the number of terms for the mean.
    """
    s = np.square(x).sum(axis=axes, keepdims=True)
    s, divided = (s / total, lambda ds: ds / total) if total > 1 else (s, lambda ds: ds)
    return s, lambda ds: 2 * divided(ds) * x


def scaled(
    x: Array, r: Array, gamma: Array | None
) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array | None]]]:
    """Return y = z gamma, z = x r, and its VJP: dz = gamma dy; (dz r, Σ x dz, Σ z dy).

    r and gamma broadcast against x.
    """
    z = x * r

    def vjp(dy: Array) -> tuple[Array, Array, Any]:
        dz = dy if gamma is None else dy * gamma
        dgamma = None if gamma is None else sum_to(z * dy, gamma.shape)
        return dz * r, sum_to(x * dz, r.shape), dgamma

    return z if gamma is None else z * gamma, vjp


def sum_to(array: Array, shape: Sequence[int]) -> Array:
    """Return the sum over the axes along which an array of `shape` was broadcast to this one."""
    shape = (1,) * (array.ndim - len(shape)) + tuple(shape)
    axes = tuple(i for i, n in enumerate(shape) if n == 1 and array.shape[i] > 1)
    return array.sum(axis=axes, keepdims=True) if axes else array
