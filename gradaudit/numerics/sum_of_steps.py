"""Sums of what the steps of a recurrence bring to a gradient, one step after the other."""

import numpy as np

from gradaudit.numerics.arithmetic import Array
from gradaudit.numerics.rounded import Rounded


class SumOfSteps:
    """Adds one term after the other, as the gradient of a loop does.

    The errors of the terms are not independent, as errors of a sum's terms are elsewhere: that of a
    state goes on in the states of later steps, and terms that are alike are off alike. Of n terms,
    m = (Σ aₜ)² / Σ aₜ² are alike, all n where they are equal, and 1 where they are as random
    numbers. So an error is √m times what it would be for independent ones. m of one element and of
    all together count, whichever is larger: terms of one element may cancel, and errors not.
    """

    def __init__(self) -> None:
        self._sum: Array | None = None
        self._squares: np.ndarray | float = 0.0

    def add(self, term: Array) -> None:
        """Add the next term."""
        self._sum = term if self._sum is None else self._sum + term
        if isinstance(term, Rounded):
            self._squares = self._squares + term.value**2

    def total(self) -> Array:
        """Return the sum."""
        if not isinstance(self._sum, Rounded) or self._sum.variance is None:
            return self._sum
        y, squares = self._sum, self._squares
        alike = max(1.0, float(np.sum(y.value**2) / max(np.sum(squares), 1e-300)))
        own = np.divide(y.value**2, squares, out=np.zeros(y.shape), where=squares > 0)
        return Rounded(y.value, y.variance * np.maximum(own, alike), y.kink, y.precision)
