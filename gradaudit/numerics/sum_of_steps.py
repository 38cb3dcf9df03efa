"""The sum of the contributions of a recurrence's steps to a gradient."""

import numpy as np

from gradaudit.numerics.arithmetic import Array
from gradaudit.numerics.rounded import Rounded


class SumOfSteps:
    """Adds terms y = Σₜ aₜ one after the other, as the gradient of a loop does.

    Error: σ² = m σ₀², m = max(1, y² / Σ aₜ²), with σ₀ that of a sum of independent errors. Those of
    the terms are not independent: an error of a state propagates to the states of later steps, and
    similar terms err alike. m estimates how many of the n terms are alike: n where all are equal, 1
    where they are random. It is taken per element and over all elements, and the larger one
    counts, since the terms of one element may cancel where their errors do not.

    Shapes: all terms and the sum have one shape.
    """

    def __init__(self) -> None:
        self._sum: Array | None = None
        self._squares: np.ndarray | float = 0.0

    def add(self, term: Array) -> None:
        """Add the next term."""
        self._sum = term if self._sum is None else self._sum + term
        if isinstance(term, Rounded):
            self._squares = self._squares + term.value**2

    def total(self) -> Array | None:
        """Return the sum with its error, or None if no term was added."""
        y, squares = self._sum, self._squares
        if not isinstance(y, Rounded) or y.variance is None:
            return y
        alike = max(1.0, float(np.sum(y.value**2) / max(np.sum(squares), 1e-300)))
        own = np.divide(y.value**2, squares, out=np.zeros(y.shape), where=squares > 0)
        return Rounded(y.value, y.variance * np.maximum(own, alike), y.kink, y.precision)
