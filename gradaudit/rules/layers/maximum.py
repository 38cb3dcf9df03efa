"""Maximum and Minimum."""

import numpy as np
from keras import layers

from gradaudit.numerics import chained_through
from gradaudit.rules.layers.families.merging import (
    either,
    masked_cases,
    masks_of,
    narrowed,
    of_one_rank,
)
from gradaudit.rules.primitives.broadcasting import unbroadcast
from gradaudit.rules.registry import Case, rule


def _cases(layer):
    return [
        Case("two", layer, ((3, 4), (3, 4))),
        Case("three", layer, ((3, 4),) * 3),
        Case("ties", layer, ((5, 6),) * 3, ties=True),
        Case("broadcast", layer, ((2, 1, 4), (2, 3, 4))),
        Case("ranks", layer, ((2, 3, 4), (2, 4), (2, 1, 1))),
        *masked_cases(layer),
    ]


@rule(
    layers.Maximum,
    cases=_cases(layers.Maximum),
    source="keras/src/layers/merging/maximum.py",
    mask=either,
)
@rule(
    layers.Minimum,
    cases=_cases(layers.Minimum),
    source="keras/src/layers/merging/minimum.py",
    mask=either,
)
def maximum(call, x):
    """Apply y = max(max(x₁, x₂), …) or min, in which a masked element leaves the place to others.

    Shapes: those of Add.
    VJP:    dxᵢ = dy where xᵢ is the largest (smallest), 0 elsewhere; summed over the axes along
            which xᵢ was broadcast.
    Kinks:  ties, in which the first takes all of dy.
    """
    choose = np.maximum if isinstance(call.layer, layers.Maximum) else np.minimum
    beats = np.greater_equal if choose is np.maximum else np.less_equal
    (y, *others), (counted, *masks) = of_one_rank(x), masks_of(call, x)
    steps = []
    for b, mask in zip(others, masks, strict=True):
        a = y
        if mask is not None:
            b = np.where(mask, b, a)
        if counted is not None:
            a = np.where(counted, a, b)
        first = beats(a, b)
        for known in (mask, counted):  # where one was masked, both are the same: no doubt there
            first = first if known is None else first | ~known
        y = choose(a, b)
        steps.append((first, y, mask, counted, a.shape, b.shape))
        counted = None if mask is None or counted is None else counted | mask

    def vjp(dy):
        dx = []
        for first, y, mask, counted, shape_a, shape_b in reversed(steps):
            da = unbroadcast(chained_through(y, dy, np.where(first, dy, 0.0)), shape_a)
            db = unbroadcast(chained_through(y, dy, np.where(first, 0.0, dy)), shape_b)
            if counted is not None:
                da, db = np.where(counted, da, 0.0), db + np.where(counted, 0.0, da)
            if mask is not None:
                da, db = da + np.where(mask, 0.0, db), np.where(mask, db, 0.0)
            dx.append(db)
            dy = da
        return narrowed([dy, *reversed(dx)], x), {}

    return y, vjp
