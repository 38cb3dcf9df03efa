"""How the kernels of this machine round."""

import functools

import keras
import tensorflow as tf

from gradaudit import keras_compat


def tensorfloat32() -> bool:
    """Return whether float32 matrix products run in TensorFloat-32 on this machine."""
    if not tf.config.experimental.tensor_float_32_execution_enabled():
        return False
    details = [
        tf.config.experimental.get_device_details(device)
        for device in tf.config.list_physical_devices("GPU")
    ]
    return any(detail.get("compute_capability", (0,))[0] >= 8 for detail in details)


def half_sums(model: keras.Model) -> bool:
    """Return whether einsums of a half precision that the model uses accumulate in it here."""
    dtypes = {layer.compute_dtype for layer in keras_compat.all_layers(model)}
    return any(_accumulates(dtype) for dtype in dtypes & {"float16", "bfloat16"})


@functools.cache
def _accumulates(dtype: str) -> bool:
    """Return whether Einsum adds equal terms in a half precision, where large sums swallow them."""
    terms = 2**14
    ones = tf.ones((1, terms), dtype)
    total = tf.einsum("ab,bc->ac", ones / 256, tf.transpose(ones))
    return float(total[0, 0]) != terms / 256
