"""Split."""

import functools

import numpy as np

from gradaudit.keras_compat import numpy_operations as operations
from gradaudit.rules.primitives import layout
from gradaudit.rules.registry import Case, rule


def _case(name, parts, axis):
    return Case(name, functools.partial(operations.Split, parts, axis=axis), (4, 6))


@rule(
    operations.Split,
    cases=[
        _case("equal parts", 3, 1),
        _case("at indices", (1, 4), -1),
    ],
    source="keras/src/ops/numpy.py",
)
def split(call, x):
    """Apply yₖ = the parts of x along an axis, cut into equal ones or at indices.

    Shapes: x (..., M, ...), y a tuple of (..., Mₖ, ...) with Σ Mₖ = M.
    VJP:    dx is the dyₖ, joined.
    Kinks:  none.
    """
    axis, at = call.layer.axis % x.ndim, call.layer.indices_or_sections
    size = x.shape[axis]
    inner = list(at) if np.ndim(at) else [size * k // at for k in range(1, at)]
    parts, vjp = layout.split(x, [*inner, size], axis)
    return parts, lambda dys: (vjp(dys), {})
