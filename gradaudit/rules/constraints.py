"""Every constraint of keras.constraints: what it makes of a weight after its update."""

import numpy as np
from keras import constraints

from gradaudit.rules.registry import Case, rule

_SOURCE = "keras/src/constraints/constraints.py"


@rule(
    constraints.MaxNorm,
    cases=[
        Case("default", lambda: constraints.MaxNorm(), (3, 4)),
        Case("value", lambda: constraints.MaxNorm(0.7), (3, 4)),
        Case("axis", lambda: constraints.MaxNorm(0.7, axis=[0, 1]), (2, 3, 4)),
    ],
    source=_SOURCE,
)
def max_norm(call, weight):
    """Return w min(n, max_value) / (ε + n) with the norm n over `axis`.

    Shapes: w any; n the same with `axis` of length 1.
    """
    n = _norm(call, weight)
    return weight * (np.clip(n, 0, call.constraint.max_value) / (n + call.epsilon))


@rule(
    constraints.NonNeg,
    cases=[Case("default", lambda: constraints.NonNeg(), (3, 4))],
    source=_SOURCE,
)
def non_neg(call, weight):
    """Return max(w, 0).

    Shapes: w any.
    """
    return np.maximum(weight, 0)


@rule(
    constraints.UnitNorm,
    cases=[
        Case("default", lambda: constraints.UnitNorm(), (3, 4)),
        Case("axis", lambda: constraints.UnitNorm(axis=[0, 1]), (2, 3, 4)),
    ],
    source=_SOURCE,
)
def unit_norm(call, weight):
    """Return w / (ε + n) with the norm n over `axis`.

    Shapes: w any; n the same with `axis` of length 1.
    """
    return weight / (_norm(call, weight) + call.epsilon)


@rule(
    constraints.MinMaxNorm,
    cases=[
        Case("default", lambda: constraints.MinMaxNorm(), (3, 4)),
        Case("bounds", lambda: constraints.MinMaxNorm(1.5, 1.8), (3, 4)),
        Case("rate", lambda: constraints.MinMaxNorm(1.5, 1.8, rate=0.3), (3, 4)),
        Case("axis", lambda: constraints.MinMaxNorm(1.5, 1.8, axis=[0, 1]), (2, 3, 4)),
    ],
    source=_SOURCE,
)
def min_max_norm(call, weight):
    """Return w d / (ε + n) with d = ρ clip(n, min_value, max_value) + (1 − ρ) n, ρ the rate.

    Shapes: w any; the norm n over `axis` the same with `axis` of length 1.
    """
    constraint, n = call.constraint, _norm(call, weight)
    within = np.clip(n, constraint.min_value, constraint.max_value)
    desired = within * constraint.rate + n * (1 - constraint.rate)
    return weight * (desired / (n + call.epsilon))


def _norm(call, w):
    axis = call.constraint.axis
    axes = tuple(axis) if isinstance(axis, (list, tuple)) else axis
    return np.sqrt(np.sum(np.square(w), axis=axes, keepdims=True))
