"""Layers of half precision that compute in float32."""

from collections.abc import Callable
from typing import Any

from gradaudit.numerics.arithmetic import Array

Forward = Callable[[Array], tuple[Array, Callable]]


def at_least_single(call: Any, forward: Forward, x: Array) -> tuple[Array, Callable]:
    """Return (y, vjp) of a layer that casts x to float32 if it is narrower, and y back.

    forward: x in at least float32 to (y, vjp), both in that precision. Where Keras does not cast
    the layer's input, x may be float32 already, and dx is left for whoever knows.
    """
    wide = single_or_wider(call.dtype)
    y, wide_vjp = forward(call.arithmetic.cast(x, wide))

    def vjp(dy: Array) -> tuple[Array, dict[str, Array]]:
        dx, cotangents = wide_vjp(call.arithmetic.cast(dy, wide))
        return call.arithmetic.cast(dx, call.dtype) if call.layer.autocast else dx, cotangents

    return call.arithmetic.cast(y, call.dtype), vjp


def single_or_wider(dtype: str) -> str:
    """Return `keras.backend.result_type(dtype, "float32")`."""
    return "float32" if dtype.endswith("float16") else dtype
