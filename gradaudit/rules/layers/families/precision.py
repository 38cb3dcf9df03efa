"""Layers that compute in float32 where their dtype is of half precision."""

from collections.abc import Callable

from gradaudit.numerics import Rounded, Simulated
from gradaudit.numerics.arithmetic import Array
from gradaudit.rules.context import LayerCall

Cotangents = dict[str, Array]
Forward = Callable[[Array], tuple[Array, Callable[[Array], tuple[Array, Cotangents]]]]


def at_least_single(
    call: LayerCall, forward: Forward, x: Array
) -> tuple[Array, Callable[[Array], tuple[Array, Cotangents]]]:
    """Return (y, vjp) of a layer that casts a narrower x to float32, and y back.

    forward: x, in at least float32, to (y, vjp), both in that precision: `wide_dtype`. Where Keras
    does not cast the layer's input, y is rounded to the dtype of x first, and then to the layer's.
    """
    own, wide = _dtype_of(call, x), wide_dtype(call, x)
    y, wide_vjp = forward(call.arithmetic.cast(x, wide))

    def vjp(dy: Array) -> tuple[Array, Cotangents]:
        dx, cotangents = wide_vjp(call.arithmetic.cast(call.arithmetic.cast(dy, own), wide))
        return call.arithmetic.cast(dx, own), cotangents

    return call.arithmetic.cast(call.arithmetic.cast(y, own), call.dtype), vjp


def wide_dtype(call: LayerCall, x: Array) -> str:
    """Return the dtype, of at least float32, in which a layer computes that is given x."""
    return single_or_wider(_dtype_of(call, x))


def _dtype_of(call: LayerCall, x: Array) -> str:
    """Return the dtype of x: the layer's, unless Keras leaves its inputs as they are."""
    if isinstance(x, Rounded | Simulated) and not call.layer.autocast:
        return x.precision.name
    return call.dtype


def single_or_wider(dtype: str) -> str:
    """Return `keras.backend.result_type(dtype, "float32")`."""
    return "float32" if dtype.endswith("float16") else dtype
