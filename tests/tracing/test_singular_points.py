"""Every op at the points where it is not smooth: an infinite slope, not a number, an exact tie."""

import numpy as np
import pytest
import tensorflow as tf

from gradaudit.numerics import Plain, Rounding, numbers
from gradaudit.rules.primitives import elementwise
from gradaudit.rules.primitives.elementwise import Elementwise
from gradaudit.tracing import interpreter, trace
from gradaudit.tracing.tf_ops.table import all_ops
from op_cases import CASES, SINGLE, SINGULAR, UNDERIVED

EVERY = {**CASES, **SINGLE, **UNDERIVED}
ARITHMETICS = [Plain(np.float64), Plain(np.float32), Rounding()]


def _vjp(function, xs, cotangent, arithmetic=ARITHMETICS[0]):
    """Return the outputs, and the cotangents of the inputs, where all of those of outputs are c."""
    dtype = np.dtype(getattr(arithmetic, "dtype", np.float32)).name
    traced = trace(function, [np.asarray(x, dtype) for x in xs], [])
    with np.errstate(all="ignore"):
        ys, vjp = traced.run([arithmetic.array(x, dtype) for x in xs], None, arithmetic, False)
        dys = [arithmetic.array(np.full(y.shape, cotangent), dtype) for y in ys]
        return ys, vjp(dys).of_inputs


def _is_exactly_zero(cotangent):
    parts = [getattr(cotangent, part, None) for part in ("variance", "kink")]
    return not any(np.any(part) for part in (numbers(cotangent), *parts) if part is not None)


@pytest.mark.parametrize("arithmetic", ARITHMETICS, ids=["float64", "float32", "rounding"])
@pytest.mark.parametrize("kind", SINGULAR)
def test_a_zero_cotangent_stays_exactly_zero_where_the_slope_is_infinite(kind, arithmetic):
    function, xs = SINGULAR[kind]
    _, back = _vjp(function, xs, 0.0, arithmetic)
    assert all(_is_exactly_zero(dx) for dx in back if dx is not None)
