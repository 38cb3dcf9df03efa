"""Layers that compute in float32 where their dtype is of half precision."""

from collections.abc import Callable

from gradaudit.numerics.arithmetic import Array
from gradaudit.rules.context import LayerCall

Cotangents = dict[str, Array]
Forward = Callable[[Array], tuple[Array, Callable[[Array], tuple[Array, Cotangents]]]]


def at_least_single(
    call: LayerCall, forward: Forward, x: Array
) -> tuple[Array, Callable[[Array], tuple[Array, Cotangents]]]:
    """Return (y, vjp) of a layer that casts a narrower x to float32, and y back.

    forward: x, in at least float32, to (y, vjp), both in that precision. Where Keras does not cast
    the layer's input, x may be float32 already, and dx is left in float32 for the caller to cast.
    """
    wide = single_or_wider(call.dtype)
    y, wide_vjp = forward(call.arithmetic.cast(x, wide))

    def vjp(dy: Array) -> tuple[Array, Cotangents]:
        dx, cotangents = wide_vjp(call.arithmetic.cast(dy, wide))
        return call.arithmetic.cast(dx, call.dtype) if call.layer.autocast else dx, cotangents

    return call.arithmetic.cast(y, call.dtype), vjp


def single_or_wider(dtype: str) -> str:
    """Return `keras.backend.result_type(dtype, "float32")`."""
    return "float32" if dtype.endswith("float16") else dtype
