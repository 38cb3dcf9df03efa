"""κ, by which correlated rounding errors exceed the independent ones that σ is made of."""

from collections import Counter
from typing import Any

import numpy as np
from keras import tree

from gradaudit.numerics import Array, Rounded

REPETITION = 4.0
"""Mean multiplicity of rows from which a batch has further twins.

Equal rows make equal errors. Where few roundings make up a gradient's error, a single twin may
happen to have small ones.
"""
FURTHER_TWINS = 5


def mean_multiplicity(x: Any) -> float:
    """Return how many times a row of the batch occurs in it, averaged over the rows."""
    inputs = [np.asarray(leaf) for leaf in tree.flatten(x)]
    rows = Counter(tuple(part.tobytes() for part in row) for row in zip(*inputs, strict=False))
    return sum(count**2 for count in rows.values()) / max(rows.total(), 1)


def kappa(twin: Array, reference: Rounded) -> float:
    """Return κ = max(1, rms(|twin − reference| / σ)) over the elements that no kink dominates.

    The twin is a second run of the same rules, in float32 or in simulated half precision. For
    float64 both runs are in float32: κ is a ratio.
    """
    error = np.asarray(getattr(twin, "value", twin), np.float64) - reference.value
    sigma = reference.sigma
    usable = (sigma > 0) & np.isfinite(error)
    if reference.kink is not None:
        usable = usable & (reference.kink <= sigma)
    if not usable.any():
        return 1.0
    error = error[usable]  # one after the other: each array is as large as the weights
    sigma = sigma[usable]
    return max(1.0, float(np.sqrt(np.mean((error / sigma) ** 2))))
