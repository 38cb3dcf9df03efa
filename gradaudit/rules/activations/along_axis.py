"""Activations along an axis: softmax, log_softmax, glu, sparsemax."""

import functools
from collections.abc import Callable

import numpy as np
from keras import activations
from scipy import special

from gradaudit.numerics import chained_through, nan_for_nan, numbers
from gradaudit.rules.activations.elementwise import SOURCE
from gradaudit.rules.primitives.log_softmax import log_softmax as log_p_and_p
from gradaudit.rules.registry import Case, rule


def _along_axis(activation: Callable, *axes: int | None) -> list[Case]:
    return [
        Case(f"axis={axis}", functools.partial(functools.partial, activation, axis=axis), (3, 4))
        for axis in axes
    ]


@rule(activations.softmax, cases=_along_axis(activations.softmax, -1, 1, 0), source=SOURCE)
def softmax(call, z):
    """Apply y = exp(z) / Σ exp(z) along an axis.

    Shapes: z, y, dy and dz alike.
    VJP:    dz = y (dy − Σ y dy), as ∂yᵢ/∂zⱼ = yᵢ (δᵢⱼ − yⱼ).
    Kinks:  none.
    """
    axis = call.options.get("axis", -1)
    _, y = log_p_and_p(z, axis)
    return y, lambda dy: y * (dy - (y * dy).sum(axis=axis, keepdims=True))


@rule(activations.log_softmax, cases=_along_axis(activations.log_softmax, -1, 0), source=SOURCE)
def log_softmax(call, z):
    """Apply y = z − log Σ exp(z) along an axis.

    Shapes: z, y, dy and dz alike.
    VJP:    dz = dy − exp(y) Σ dy.
    Kinks:  none.
    """
    axis = call.options.get("axis", -1)
    y, _ = log_p_and_p(z, axis)
    return y, lambda dy: dy - np.exp(y) * dy.sum(axis=axis, keepdims=True)


@rule(activations.glu, cases=_along_axis(activations.glu, -1, 1), source=SOURCE)
def glu(call, z):
    """Apply y = a σ(b), where a and b are the two halves of z along an axis.

    Shapes: z and dz (..., 2 M, ...), y and dy (..., M, ...).
    VJP:    da = σ(b) dy; db = a σ(b) (1 − σ(b)) dy; dz = (da, db).
    Kinks:  none.
    """
    axis = call.options.get("axis", -1) % z.ndim
    half = z.shape[axis] // 2
    first = (slice(None),) * axis
    a, b = z[(*first, slice(None, half))], z[(*first, slice(half, None))]
    s = special.expit(b)
    return a * s, lambda dy: np.concatenate([s * dy, a * s * (1 - s) * dy], axis)


@rule(
    activations.sparsemax,
    cases=[
        *_along_axis(activations.sparsemax, -1, 0),
        Case("ties", lambda: activations.sparsemax, (4, 5), kinks=(0.0,), ties=True),
    ],
    source=SOURCE,
)
def sparsemax(call, z):
    """Apply y = max(z − τ, 0), with τ = (Σₖ c₍ₖ₎ − 1) / K as Keras has it.

    With z₍₁₎ ≥ z₍₂₎ ≥ … and the cumulative sums c₍ₖ₎ = z₍₁₎ + … + z₍ₖ₎, the support is
    {k: k z₍ₖ₎ > c₍ₖ₎ − 1} and K its size. Sparsemax (Martins and Astudillo 2016, arXiv:1602.02068)
    has τ = (c₍K₎ − 1) / K. Keras 3.15 sums c over the support, so its y does not sum to 1: this
    rule follows what Keras computes.

    Shapes: z, y, dy and dz alike.
    VJP:    s = dy where z ≥ τ, 0 elsewhere. z₍ⱼ₎ is a part of c₍ⱼ₎ to c₍K₎, so dz₍ⱼ₎ = s₍ⱼ₎ −
            (K − j + 1)/K Σ s within the support, and s₍ⱼ₎ outside.
    Kinks:  z = τ; where an element enters or leaves the support, or two change places in the order:
            equal elements keep their order.
    """
    axis = call.options.get("axis", -1)
    z = np.swapaxes(z, axis, -1)
    ones, k = np.ones_like(z), np.arange(1, z.shape[-1] + 1, dtype=np.float32)
    ordered = np.flip(np.sort(z, -1), -1)
    cumulative = np.cumsum(ordered, -1)
    inside = ordered - (cumulative - 1.0) / k > 0
    size = np.where(inside, ones, 0.0).sum(axis=-1, keepdims=True)
    total = np.where(inside, cumulative, 0.0).sum(axis=-1, keepdims=True)
    tau = (total - 1.0) / size
    largest = numbers(z).max(axis=-1, keepdims=True)  # NaN where any element is

    def vjp(dy):
        s = np.where(z - tau >= 0.0, np.swapaxes(dy, axis, -1), 0.0)
        own, other, place = np.expand_dims(z, -1), np.expand_dims(z, -2), np.arange(z.shape[-1])
        equal = numbers(own) == numbers(other)
        # Elements that are equal to the last digit are equal without doubt.
        before = ((other > own) & ~equal) | (equal & (place < place[:, None]))
        rank = np.where(before, np.expand_dims(ones, -2), 0.0).sum(axis=-1) + 1.0
        share = np.where(rank < size + 0.5, (size - rank + 1.0) / size, 0.0)
        dz = s - share * s.sum(axis=-1, keepdims=True)
        return np.swapaxes(chained_through(largest, np.swapaxes(dy, axis, -1), dz), axis, -1)

    return np.swapaxes(nan_for_nan(largest, np.maximum(z - tau, 0.0)), axis, -1), vjp
