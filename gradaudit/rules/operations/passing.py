"""Operations that hand on a tensor, or nothing of it: casts and constants."""

import numpy as np
from keras import config
from keras.src.ops import core, numpy  # not exported: keras.ops.cast(x, dtype) makes one of Cast

from gradaudit.rules.registry import Case, rule


@rule(
    core.Cast,
    cases=[Case("same dtype", lambda: core.Cast(config.floatx()), (3, 4))],
    source="keras/src/ops/core.py",
)
def cast(call, x):
    """Apply y = x: x comes in the dtype that the operation makes.

    Shapes: x and y alike.
    VJP:    dx = dy.
    Kinks:  none.
    """
    return x, lambda dy: (dy, {})


def constant(call, x):
    """Make zeros, or ones, of the shape of x.

    Shapes: x and y alike.
    VJP:    dx = 0.
    Kinks:  none.
    """
    made = np.ones_like if isinstance(call.layer, numpy.OnesLike) else np.zeros_like
    return made(x), lambda dy: (np.zeros_like(dy), {})


for _operation in (numpy.ZerosLike, numpy.OnesLike):
    rule(
        _operation,
        cases=[Case("default", _operation, (3, 4))],
        source="keras/src/ops/numpy.py",
    )(constant)
