"""Softmax."""

import functools

import numpy as np
from keras import activations, layers

from gradaudit.rules.calls import apply_activation
from gradaudit.rules.registry import Case, rule

_MASK = np.array([[1, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]], bool)


def _masked(name, shape, mask, axis=-1):
    def apply(layer, x, **arguments):
        y = layer(x, **arguments)
        return layers.Reshape(shape[1:])(y)  # takes off the mask, which is not one of a loss

    build = functools.partial(layers.Softmax, axis=axis)
    return Case(name, build, shape, arguments={"mask": mask}, apply=apply)


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
    largest = x.max(axis=axes, keepdims=True)
    e = np.exp(x - largest)
    total = e.sum(axis=axes, keepdims=True)
    y = np.exp(x - (np.log(total) + largest))

    def vjp(dy):
        dshifted = y * dy
        return dshifted - e / total * dshifted.sum(axis=axes, keepdims=True)

    return y, vjp
