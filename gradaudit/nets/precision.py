"""Sets the dtypes in which Keras builds and computes: global settings of Keras."""

from collections.abc import Iterator
from contextlib import contextmanager

PRECISIONS = ("float32", "float64", "mixed_float16", "mixed_bfloat16")
"""The dtype policies of the built-in nets."""


def set_precision(policy: str) -> None:
    """Set the dtype policy of all layers and losses that are built from now on."""
    import keras

    keras.config.set_floatx("float64" if policy == "float64" else "float32")
    keras.config.set_dtype_policy(policy)


@contextmanager
def floats(dtype: str) -> Iterator[None]:
    """Let Keras build and compute in a dtype within a `with` block."""
    import keras

    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)
