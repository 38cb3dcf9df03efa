"""Every regularizer of keras.regularizers: the penalty that it adds to the loss, and its gradient.

The number that multiplies a penalty is a Python number in L2 and L1L2, which the framework casts to
the weight's dtype, and a tensor of its own in L1 and OrthogonalRegularizer.
"""

import numpy as np
from keras import config, ops, regularizers

from gradaudit.rules.registry import Case, rule

_SOURCE = "keras/src/regularizers/regularizers.py"
# Rows of which none is at a right angle to another; the norm of the first is ε.
_SHORT = ((1e-7, 0, 0, 0, 0), (1, 1, 0, 0, 0), (1, 0, 1, 0, 0), (1, 0, 0, 1, 0))


def _orthogonal(factor, mode, dtype):
    regularizer = regularizers.OrthogonalRegularizer(factor, mode)
    # Keras makes it float32 whatever the weight is, and its product with a float64 weight fails.
    regularizer.factor = ops.cast(regularizer.factor, dtype)
    return regularizer


@rule(
    regularizers.L1,
    cases=[
        Case("default", lambda: regularizers.L1(), (4, 5), kinks=(0.0,)),
        Case("one row", lambda: regularizers.L1(0.3), (1, 6)),
    ],
    source=_SOURCE,
)
def l1(call, w):
    """Apply p = λ Σ |w|.

    Shapes: w any, p ().
    VJP:    dw = λ sign(w) dp.
    Kinks:  w = 0, where sign(0) = 0.
    """
    factor = call.array(call.regularizer.l1)
    return factor * np.abs(w).sum(), lambda dp: np.sign(w) * (factor * dp)


@rule(
    regularizers.L2,
    cases=[
        Case("default", lambda: regularizers.L2(), (4, 5)),
        Case("one row", lambda: regularizers.L2(0.3), (1, 6)),
    ],
    source=_SOURCE,
)
def l2(call, w):
    """Apply p = λ Σ w².

    Shapes: w any, p ().
    VJP:    dw = 2 λ w dp.
    Kinks:  none.
    """
    factor = call.number(call.regularizer.l2)
    return factor * np.square(w).sum(), lambda dp: 2.0 * w * (factor * dp)


@rule(
    regularizers.L1L2,
    cases=[
        Case("both", lambda: regularizers.L1L2(0.02, 0.3), (4, 5), kinks=(0.0,)),
        Case("l1 alone", lambda: regularizers.L1L2(l1=0.02), (4, 5)),
        Case("l2 alone", lambda: regularizers.L1L2(l2=0.3), (4, 5)),
        Case("none", lambda: regularizers.L1L2(), (4, 5)),
    ],
    source=_SOURCE,
)
def l1_l2(call, w):
    """Apply p = λ₁ Σ |w| + λ₂ Σ w².

    Shapes: w any, p ().
    VJP:    dw = (λ₁ sign(w) + 2 λ₂ w) dp.
    Kinks:  w = 0, where sign(0) = 0.
    """
    first, second = call.number(call.regularizer.l1), call.number(call.regularizer.l2)

    def vjp(dp):
        return np.sign(w) * (first * dp) + 2.0 * w * (second * dp)

    return first * np.abs(w).sum() + second * np.square(w).sum(), vjp


@rule(
    regularizers.OrthogonalRegularizer,
    cases=[
        Case(
            "rows",
            lambda: _orthogonal(0.5, "rows", config.floatx()),
            (4, 5),
            (np.eye(4, 5), _SHORT),
        ),
        Case(
            "columns", lambda: _orthogonal(0.5, "columns", config.floatx()), (5, 4), (np.eye(5, 4),)
        ),
        Case("two rows", lambda: _orthogonal(0.01, "rows", config.floatx()), (2, 3)),
    ],
    source=_SOURCE,
)
def orthogonal_regularizer(call, w):
    """Apply p = λ/2 Σᵢ≠ⱼ |vᵢ · vⱼ| / (K (K − 1) / 2), vᵢ = wᵢ min(1/|wᵢ|, 1/ε).

    Shapes: w (I, J), p (); wᵢ are its K = I rows, or its K = J columns.
    VJP:    dV = 2 S V c dp, where S = sign(V Vᵀ) off the diagonal and c = λ / (K (K − 1));
            dwᵢ = (dvᵢ − vᵢ (vᵢ · dvᵢ)) / |wᵢ|, or dvᵢ / ε where |wᵢ| < ε.
    Kinks:  vᵢ · vⱼ = 0, where the sign is 0, and |wᵢ| = ε (ε = keras.config.epsilon()).
    """
    rows = w if call.regularizer.mode == "rows" else w.T
    largest = 1.0 / call.epsilon
    inverse = 1.0 / np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
    v = rows * np.minimum(inverse, largest)
    k = rows.shape[0]
    product = (v @ v.T) * call.array(1.0 - np.eye(k))
    half, pairs = call.array(call.regularizer.factor) * 0.5, k * (k - 1.0) / 2.0

    def vjp(dp):
        dv = 2.0 * ((np.sign(product) * (half * dp / pairs)) @ v)
        along = v * (v * dv).sum(axis=1, keepdims=True)
        drows = np.where(inverse <= largest, (dv - along) * inverse, dv * largest)
        return drows if call.regularizer.mode == "rows" else drows.T

    return half * np.abs(product).sum() / pairs, vjp
