"""Normalization by mean and variance, as in the Batch, Layer and Group layers of Keras."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradaudit.numerics import chained, exact
from gradaudit.numerics.arithmetic import Array
from gradaudit.rules.primitives.broadcasting import unbroadcast
from gradaudit.rules.primitives.scaling import inverse_root


def moments(
    x: Array, axes: Sequence[int], kept: np.ndarray | None = None, total: Any = None
) -> tuple[Array, Array, Callable[[Array, Array], Array]]:
    """Return the mean m = Σ x / total, the variance Σ (x − m)² / total, and the VJP from both to x.

    axes: summed over, and kept with length 1. kept: where x counts, of x's shape, and total: what
    the sums are divided by then; by default everywhere, and the number of terms.

    VJP: dx = (2 (x − m) dvariance + dm) / total. Over all terms Σ (x − m) = 0, so that the variance
    has no cotangent for m; it has one if total is not the number of terms kept.
    """
    if total is None:
        total = math.prod(x.shape[axis] for axis in axes)

    def only(array: Array) -> Array:
        return array if kept is None else np.where(kept, array, 0.0)

    mean = only(x).sum(axis=axes, keepdims=True) / total
    deviation = only(x - mean)
    # Σ (x − m)² is stationary in m, so that m's rounding error does not reach it.
    variance = np.square(only(x - exact(mean))).sum(axis=axes, keepdims=True) / total

    def vjp(dmean: Array, dvariance: Array) -> Array:
        ddeviation = 2 * (dvariance / total) * deviation
        if kept is not None:
            dmean = dmean - ddeviation.sum(axis=axes, keepdims=True)
        return only(ddeviation + dmean / total)

    return mean, variance, vjp


def standardize(
    x: Array, mean: Array, variance: Array, gamma: Array | None, beta: Array | None, epsilon: float
) -> tuple[Array, Callable[[Array], tuple[Array, Array, Array, dict[str, Array]]]]:
    """Return y = (x − m) s + beta, s = gamma r, r = 1 / √(variance + epsilon), and its VJP.

    All of x's rank. Keras takes x s + (beta − m s), which cancels where m is large. The VJP returns
    dx = s dy; dm = −s Σ dy; dvariance from dr = Σ gamma ds; {dgamma = Σ r ds; dbeta = Σ dy}, with
    ds = Σ x dy − m Σ dy.
    """
    r, r_vjp = inverse_root(variance + epsilon)
    s = r if gamma is None else r * gamma
    exact_s = exact(s)
    shift = -mean * exact_s
    offset = shift if beta is None else shift + beta

    def vjp(dy: Array) -> tuple[Array, Array, Array, dict[str, Array]]:
        doffset = unbroadcast(dy, offset.shape)
        cotangents: dict[str, Array] = {}
        if beta is not None:
            cotangents["beta"] = unbroadcast(doffset, beta.shape)
        dshift = unbroadcast(doffset, shift.shape)
        ds = unbroadcast(x * dy, s.shape) - dshift * mean
        dr = ds
        if gamma is not None:
            cotangents["gamma"] = unbroadcast(chained(ds, r), gamma.shape)
            dr = unbroadcast(ds * gamma, r.shape)
        dmean = -unbroadcast(chained(dshift, s), mean.shape)
        return chained(dy, s), dmean, r_vjp(dr), cotangents

    # An error of s acts on x − m alone: it is the same in both products.
    return x * exact_s + offset + (x - mean) * (s - exact_s), vjp


def normalize(
    x: Array, axes: Sequence[int], gamma: Array | None, beta: Array | None, epsilon: float
) -> tuple[Array, Callable[[Array], tuple[Array, dict[str, Array]]]]:
    """Return x standardized by its own moments over the axes, and the VJP."""
    mean, variance, moments_vjp = moments(x, axes)
    y, y_vjp = standardize(x, mean, variance, gamma, beta, epsilon)

    def vjp(dy: Array) -> tuple[Array, dict[str, Array]]:
        dx, dmean, dvariance, cotangents = y_vjp(dy)
        return dx + moments_vjp(dmean, dvariance), cotangents

    return y, vjp
