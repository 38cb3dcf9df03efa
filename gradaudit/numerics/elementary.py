"""The table of elementary functions: derivative and accuracy of each.

Accuracy is the largest error seen in TensorFlow's kernels (eager, graph and XLA, CPU), in units of
the unit roundoff of float32, on the arguments that rules feed them; rounded up.
`benchmarks/calibrate_rounding.py` measures it again.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import special


class Elementary(NamedTuple):
    """derivative(a, y) gives dy/da at y = f(a); ulps is the accuracy c of f: |error| ≤ c u |y|."""

    derivative: Callable[[np.ndarray, np.ndarray], np.ndarray]
    ulps: float


ELEMENTARY: dict[np.ufunc, Elementary] = {
    np.exp: Elementary(lambda a, y: y, 4),
    np.expm1: Elementary(lambda a, y: y + 1, 4),
    np.log: Elementary(lambda a, y: 1 / a, 2),
    np.log1p: Elementary(lambda a, y: 1 / (1 + a), 4),
    np.sqrt: Elementary(lambda a, y: 0.5 / y, 1),
    np.square: Elementary(lambda a, y: 2 * a, 1),
    np.tanh: Elementary(lambda a, y: 1 - y * y, 8),
    special.erf: Elementary(lambda a, y: 2 / math.sqrt(math.pi) * np.exp(-a * a), 8),
    special.expit: Elementary(lambda a, y: y * (1 - y), 8),
}
