"""Sums, means, largest and smallest elements along axes."""

import functools

from gradaudit.keras_compat import numpy_operations as operations
from gradaudit.rules.primitives.reductions import largest, mean, smallest, total
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


def _reduced(call, x, f):
    y, vjp = f(x, call.layer.axis, call.layer.keepdims)
    return y, lambda dy: (vjp(dy), {})


@rule(operations.Sum, cases=_cases(operations.Sum), source=_SOURCE)
def sum_of(call, x):
    """Apply y = Σ x over axes.

    Shapes: x (...), y without the axes, or with length 1 along them (keepdims).
    VJP:    dx = dy at each of the terms.
    Kinks:  none.
    """
    return _reduced(call, x, total)


@rule(operations.Mean, cases=_cases(operations.Mean), source=_SOURCE)
def mean_of(call, x):
    """Apply y = Σ x / n over axes.

    Shapes: x (...), y without the axes, or with length 1 along them (keepdims).
    VJP:    dx = dy / n at each of the n terms.
    Kinks:  none.
    """
    return _reduced(call, x, mean)


@rule(operations.Max, cases=_extreme_cases(operations.Max), source=_SOURCE, gaps=_initial)
def largest_of(call, x):
    """Apply y = max x over axes.

    Shapes: x (...), y without the axes, or with length 1 along them (keepdims).
    VJP:    dx = dy / k at each of the k elements that are the largest, 0 elsewhere.
    Kinks:  ties, between which dy is shared.
    Gaps:   initial=.
    """
    return _reduced(call, x, largest)


@rule(operations.Min, cases=_extreme_cases(operations.Min), source=_SOURCE, gaps=_initial)
def smallest_of(call, x):
    """Apply y = min x over axes.

    Shapes: x (...), y without the axes, or with length 1 along them (keepdims).
    VJP:    dx = dy / k at each of the k elements that are the smallest, 0 elsewhere.
    Kinks:  ties, between which dy is shared.
    Gaps:   initial=.
    """
    return _reduced(call, x, smallest)
