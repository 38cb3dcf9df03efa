"""The table of elementary functions: derivative and accuracy of each.

Accuracy is the largest error of TensorFlow's float32 kernels (graph and XLA, CPU), in halves of a
unit in the last place; rounded up. `benchmarks/calibrate_rounding.py` measures it again. In half
precisions the same kernels run and round once more at the end, to an accuracy of 1.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import special


class Elementary(NamedTuple):
    """derivative(a, y) gives dy/da at y = f(a); ulps is the accuracy c of f: |error| ≤ c h(y)."""

    derivative: Callable[[np.ndarray, np.ndarray], np.ndarray]
    ulps: float


ELEMENTARY: dict[np.ufunc, Elementary] = {
    np.exp: Elementary(lambda a, y: y, 4),
    np.expm1: Elementary(lambda a, y: y + 1, 12),
    np.log: Elementary(lambda a, y: 1 / a, 6),
    np.log1p: Elementary(lambda a, y: 1 / (1 + a), 8),
    np.sqrt: Elementary(lambda a, y: 0.5 / y, 1),
    np.square: Elementary(lambda a, y: 2 * a, 1),
    np.tanh: Elementary(lambda a, y: 1 - y * y, 10),
    special.erf: Elementary(lambda a, y: 2 / math.sqrt(math.pi) * np.exp(-a * a), 12),
    special.expit: Elementary(lambda a, y: y * (1 - y), 12),
}
