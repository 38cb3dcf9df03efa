"""Softmax."""

import functools

import numpy as np
from keras import activations, layers

from gradaudit.rules.context import apply_activation
from gradaudit.rules.primitives.log_softmax import log_sum_exp
from gradaudit.rules.registry import Case, rule

_MASK = np.array([[1, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]], bool)


def _masked(name, shape, mask, axis=-1):
    def apply(layer, x, **arguments):
        return layer(x, **arguments) * 1.0  # without the mask, which a loss would apply

    build = functools.partial(layers.Softmax, axis=axis)
    return Case(name, build, shape, arguments={"mask": mask}, apply=apply)


def _logits(layer, place):
    """Keras keeps x on y, unless it is normalized over several axes."""
    return "input" if np.size(layer.axis) == 1 else None


@rule(
    layers.Softmax,
    cases=[
        Case("default", lambda: layers.Softmax(), (3, 4)),
        Case("first axis", lambda: layers.Softmax(axis=1), (2, 3, 4)),
        Case("list of one", lambda: layers.Softmax(axis=[1]), (2, 3, 4)),
        Case("two axes", lambda: layers.Softmax(axis=(-1, 1)), (2, 3, 4)),
        _masked("mask", (3, 4), _MASK),
        _masked("mask of numbers", (3, 4), np.float32(_MASK)),
        _masked("mask, two axes", (3, 2, 4), _MASK[:, None], axis=(1, 2)),
    ],
    source="keras/src/layers/activations/softmax.py",
    output_logits=_logits,
)
def softmax(call, x):
    """Apply y = exp(x) / Σ exp(x) along one axis, or y = exp(x − log Σ exp(x)) along several.

    Masked elements count as −10⁹ (float16: −30000), and their y is 0.

    Shapes: x and y alike; the mask, where given, is broadcast to them.
    VJP:    dx = y (dy − Σ y dy), 0 where masked.
    Kinks:  none.
    """
    mask = call.arguments.get("mask")
    if mask is not None:
        mask = mask if mask.dtype == bool else mask > 0.5
        x = np.where(mask, x, -30000.0 if call.dtype == "float16" else -1e9)
    axes = np.atleast_1d(call.layer.axis).tolist()
    if len(axes) == 1:
        y, unmasked_vjp = apply_activation(functools.partial(activations.softmax, axis=axes[0]), x)
    else:
        y, unmasked_vjp = _over_several(x, tuple(axes))
    if mask is None:
        return y, lambda dy: (unmasked_vjp(dy), {})

    def vjp(dy):
        return np.where(mask, unmasked_vjp(np.where(mask, dy, 0.0)), 0.0), {}

    return np.where(mask, y, 0.0), vjp


def _over_several(x, axes):
    total, p = log_sum_exp(x, axes)
    y = np.exp(x - total)

    def vjp(dy):
        dbelow = y * dy
        return dbelow - p * dbelow.sum(axis=axes, keepdims=True)

    return y, vjp
