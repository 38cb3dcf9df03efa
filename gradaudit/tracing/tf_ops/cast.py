"""Cast: between precisions, to and from whole numbers, and to complex numbers."""

import numpy as np

from gradaudit.tracing.tf_ops.complex_numbers import Complex
from gradaudit.tracing.tf_ops.table import op


@op("Cast")
def cast(node, x):
    """Compute y = x in another dtype; dx = dy in x's dtype.

    No gradient passes from or to whole numbers and truth values.

    Raises:
        UnsupportedModelError: a complex number is cast to a real one.
    """
    source, target = node.attribute("SrcT"), node.attribute("DstT")
    if source.is_floating and target.is_complex:
        held, vjp = node.run.arithmetic.cast(x, target.real_dtype.name), node.run.arithmetic.cast
        return Complex(held, np.zeros_like(held)), lambda dy: vjp(dy.re, source.name)
    if source.is_complex:
        raise node.unsupported("takes a part of complex numbers: tf.math.real says which")
    if source.is_floating and target.is_floating:
        cast = node.run.arithmetic.cast
        return cast(x, target.name), lambda dy: cast(dy, source.name)
    if target.is_floating:  # of a comparison
        one = node.array(np.ones(x.value.shape))
        return np.where(x, one, 0.0), None
    return np.trunc(node.numbers(x)).astype(target.as_numpy_dtype), None
