"""Sums, means, largest and smallest elements along axes."""

import functools
import math

import numpy as np
from keras.src.ops import numpy as operations  # not exported; keras.ops.sum(x) makes one of Sum

from gradaudit.rules.primitives.extremes import shared_by_largest
from gradaudit.rules.registry import Case, rule

_SOURCE = "keras/src/ops/numpy.py"


def _cases(operation):
    chosen = {
        "last": {"axis": -1},
        "two": {"axis": (1, 2)},
        "kept": {"axis": (2, -2), "keepdims": True},
        "all": {},
    }
    return [
        Case(name, functools.partial(operation, **options), (2, 3, 4))
        for name, options in chosen.items()
    ]


def _extreme_cases(operation):
    return [
        *_cases(operation),
        Case("ties", lambda: operation(axis=(1, 2)), (2, 5, 6), ties=True),
        Case("of one", lambda: operation(axis=1), (2, 1, 3)),
    ]


def _initial(operation):
    return [] if operation.initial is None else ["an initial value (initial=)"]


def _axes(operation, ndim):
    if operation.axis is None:
        return tuple(range(ndim))
    return tuple(axis % ndim for axis in np.atleast_1d(operation.axis).tolist())


def _back(dy, x, axes):
    """Return dy with axes of length 1 where x was reduced."""
    return dy.reshape([1 if i in axes else size for i, size in enumerate(x.shape)])


@rule(operations.Sum, cases=_cases(operations.Sum), source=_SOURCE)
@rule(operations.Mean, cases=_cases(operations.Mean), source=_SOURCE)
def total(call, x):
    """Apply y = Σ x, or Σ x / n, over axes.

    Shapes: x (...), y without the axes, or with length 1 along them (keepdims).
    VJP:    dx = dy, or dy / n, at each of the n terms.
    Kinks:  none.
    """
    axes, mean = _axes(call.layer, x.ndim), isinstance(call.layer, operations.Mean)
    reduce = np.mean if mean else np.sum
    n = math.prod(x.shape[axis] for axis in axes)

    def vjp(dy):
        dterm = _back(dy, x, axes)
        return np.broadcast_to(dterm / n if mean else dterm, x.shape), {}

    return reduce(x, axis=axes, keepdims=call.layer.keepdims), vjp


@rule(operations.Max, cases=_extreme_cases(operations.Max), source=_SOURCE, gaps=_initial)
@rule(operations.Min, cases=_extreme_cases(operations.Min), source=_SOURCE, gaps=_initial)
def extreme(call, x):
    """Apply y = max x, or min x, over axes.

    Shapes: x (...), y without the axes, or with length 1 along them (keepdims).
    VJP:    dx = dy / k at each of the k elements that are the largest (smallest), 0 elsewhere.
    Kinks:  ties, between which dy is shared.
    Gaps:   initial=.
    """
    axes, sign = _axes(call.layer, x.ndim), 1 if isinstance(call.layer, operations.Max) else -1
    reduce = np.max if sign > 0 else np.min
    rest = [axis for axis in range(x.ndim) if axis not in axes]
    rows = np.transpose(x, (*rest, *axes)).reshape(*(x.shape[axis] for axis in rest), -1)
    shared = shared_by_largest(call, rows * sign, -1)

    def vjp(dy):
        drows = shared(dy.reshape(*rows.shape[:-1], 1))
        apart = drows.reshape([x.shape[axis] for axis in (*rest, *axes)])
        return np.transpose(apart, np.argsort((*rest, *axes))), {}

    return reduce(x, axis=axes, keepdims=call.layer.keepdims), vjp
