"""What a case needs of the processor: kernels that TensorFlow has on some and not on others."""

import functools

import tensorflow as tf

from gradaudit.rules import Case


def needs_xla(case: Case, dtype: str) -> bool:
    """Return whether TensorFlow can compute a case in a dtype under XLA alone.

    Cases with `compiled` are convolutions with channels first and transposed convolutions with
    dilation. On a CPU only oneDNN has kernels for them, in float32.

    Args:
        case: the case.
        dtype: "float32" or "float64".
    """
    return case.compiled and (dtype == "float64" or not _has_channels_first_kernels())


@functools.cache
def _has_channels_first_kernels() -> bool:
    """Return whether this processor computes a float32 convolution with channels first.

    oneDNN is off by default on some CPUs, and wherever TF_ENABLE_ONEDNN_OPTS=0 is set.
    """
    x = kernel = tf.zeros((1, 1, 1, 1), "float32")
    try:
        tf.nn.conv2d(x, kernel, 1, "VALID", data_format="NCHW")
    except tf.errors.UnimplementedError:
        return False
    return True
