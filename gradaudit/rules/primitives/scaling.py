"""Scaling by 1 / √s, as every normalization does with its variance or mean square."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradaudit.numerics import chained
from gradaudit.numerics.arithmetic import Array
from gradaudit.rules.primitives.broadcasting import unbroadcast

Vjp = Callable[[Array], Array]


def inverse_root(s: Array) -> tuple[Array, Vjp]:
    """Return r = 1 / √s and its VJP: ds = −½ r³ dr."""
    r = s**-0.5
    return r, lambda dr: chained(-0.5 * dr, r * r * r)


def inverse_length(s: Array, epsilon: float) -> tuple[Array, Vjp]:
    """Return r = min(1 / √s, 1 / ε), as keras.ops.normalize has it, and its VJP: 0 at 1 / ε."""
    most = 1 / epsilon
    root, root_vjp = inverse_root(np.maximum(s, (0.5 / most) ** 2))  # is finite where s is 0
    return np.minimum(root, most), lambda dr: root_vjp(np.where(root <= most, dr, 0.0))


def squares(x: Array, axes: Sequence[int], total: int) -> tuple[Array, Vjp]:
    """Return s = Σ x² / total over axes that are kept with length 1; VJP: dx = 2 x ds / total.

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
        dgamma = None if gamma is None else unbroadcast(z * dy, gamma.shape)
        return chained(dz, r), unbroadcast(x * dz, r.shape), dgamma

    return z if gamma is None else z * gamma, vjp


def scaled_by_squares(
    x: Array,
    axes: Sequence[int],
    total: int,
    inverse: Callable[[Array], tuple[Array, Vjp]],
    gamma: Array | None = None,
) -> tuple[Array, Callable[[Array], tuple[Array, Array | None]]]:
    """Return y = x r gamma, r = inverse(Σ x² / total), and its VJP: dy to (dx, dgamma).

    inverse: s to (r, VJP of r). dx = r dz + 2 x ds / total by the VJPs of `scaled` and `squares`.
    """
    s, s_vjp = squares(x, axes, total)
    r, r_vjp = inverse(s)
    y, y_vjp = scaled(x, r, gamma)

    def vjp(dy: Array) -> tuple[Array, Array | None]:
        dx, dr, dgamma = y_vjp(dy)
        return dx + s_vjp(r_vjp(dr)), dgamma

    return y, vjp
