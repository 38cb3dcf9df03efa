"""Operations that only move elements, or put tensors together."""

import functools

import numpy as np
from keras import ops

from gradaudit.keras_compat import numpy_operations as operations
from gradaudit.rules.primitives import layout
from gradaudit.rules.primitives.gather import moved
from gradaudit.rules.registry import Case, rule

_SOURCE = "keras/src/ops/numpy.py"


def _register(operation, what, f, cases):
    """Register the rule of an operation: f(operation, x, **arguments) returns y and the VJP."""

    def apply(call, x):
        y, vjp = f(call.layer, x, **call.arguments)
        return y, lambda dy: (vjp(dy), {})

    apply.__name__ = operation.__name__
    apply.__doc__ = (
        f"{what}\n\n"
        "Shapes: x (...), y as the operation's options say.\n"
        "VJP: dx is dy, put back: Σ dy over the places that an element went to.\n"
        "Kinks: none."
    )
    rule(operation, cases=cases, source=_SOURCE)(apply)


def _cases(operation, shape, **chosen):
    return [
        Case(name, functools.partial(operation, **options), shape)
        for name, options in chosen.items()
    ]


def _item(name, key):
    apply = lambda operation, x, key: operation(x, key)  # noqa: E731
    return Case(name, operations.GetItem, (4, 3, 5), arguments={"key": key}, apply=apply)


def _squeezed_to_a_known_rank(operation, x):  # unknown to TensorFlow, as the batch might be of 1
    return ops.reshape(operation(x), (-1, 3))


_register(
    operations.Reshape,
    "Apply y = x in another shape, elements in the same order.",
    lambda operation, x: layout.reshape(x, operation.newshape),
    _cases(operations.Reshape, (4, 6), inferred={"newshape": (-1, 2, 3)}),
)
_register(
    operations.Transpose,
    "Apply y = x with its axes in another order.",
    lambda operation, x: layout.transpose(x, operation.axes),
    _cases(operations.Transpose, (2, 3, 4), chosen={"axes": (0, 2, 1)}, turned={}),
)
_register(
    operations.Moveaxis,
    "Apply y = x with axes moved to other places.",
    lambda operation, x: moved(
        x, lambda array: np.moveaxis(array, operation.source, operation.destination)
    ),
    _cases(operations.Moveaxis, (2, 3, 4), one={"source": 1, "destination": -1}),
)
_register(
    operations.ExpandDims,
    "Apply y = x with new axes of length 1.",
    lambda operation, x: layout.expand_dims(x, operation.axis),
    _cases(operations.ExpandDims, (2, 3), one={"axis": 1}, two={"axis": (1, -1)}),
)
_register(
    operations.Squeeze,
    "Apply y = x without axes of length 1.",
    lambda operation, x: layout.squeeze(x, operation.axis),
    [
        *_cases(operations.Squeeze, (2, 1, 3, 1), one={"axis": 1}, two={"axis": (1, 3)}),
        Case("all", operations.Squeeze, (2, 1, 3, 1), apply=_squeezed_to_a_known_rank),
    ],
)
_register(
    operations.Flip,
    "Apply y = x, reversed along axes.",
    lambda operation, x: moved(x, lambda array: np.flip(array, operation.axis)),
    _cases(operations.Flip, (2, 3, 4), one={"axis": 1}, two={"axis": (1, 2)}, all={}),
)
_register(
    operations.GetItem,
    "Apply y = x[key].",
    lambda operation, x, key: moved(
        x, lambda array: array[tuple(key) if isinstance(key, list) else key]
    ),
    [
        _item("slices", (slice(None), slice(1, None), slice(None, None, 2))),
        _item("a number", (slice(None), 1)),
        _item("the last", (slice(None), -1, slice(0, 2))),
        _item("a new axis", (slice(None), None, slice(0, 2))),
        _item("ellipsis", (Ellipsis, slice(None, None, -1))),
    ],
)


@rule(
    operations.Concatenate,
    cases=[
        Case("second axis", lambda: operations.Concatenate(axis=1), ((2, 3, 4), (2, 1, 4))),
        Case("last axis", lambda: operations.Concatenate(axis=-1), ((2, 3), (2, 1), (2, 2))),
    ],
    source=_SOURCE,
)
def concatenate(call, x):
    """Apply y = the xᵢ joined along an axis.

    Shapes: the xᵢ alike but for that axis, along which y has the sum of their lengths.
    VJP:    dxᵢ is the part of dy that came from xᵢ.
    Kinks:  none.
    """
    y, vjp = layout.concatenate(_several(x), call.layer.axis)
    return y, lambda dy: (_as_given(vjp(dy), x), {})


@rule(
    operations.Stack,
    cases=[
        Case("new axis", lambda: operations.Stack(axis=1), ((2, 3), (2, 3), (2, 3))),
        Case("last axis", lambda: operations.Stack(axis=-1), ((2, 3), (2, 3))),
    ],
    source=_SOURCE,
)
def stack(call, x):
    """Apply y = the xᵢ joined along a new axis.

    Shapes: the xᵢ alike; y has a new axis, as long as there are xᵢ.
    VJP:    dxᵢ is the part of dy that came from xᵢ.
    Kinks:  none.
    """
    y, vjp = layout.stack(_several(x), call.layer.axis)
    return y, lambda dy: (_as_given(vjp(dy), x), {})


def _several(x):
    return x if isinstance(x, tuple) else (x,)


def _as_given(dxs, x):
    return dxs if isinstance(x, tuple) else dxs[0]
