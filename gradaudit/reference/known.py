"""What is known of the numbers of a step, and the first of them that is not finite.

In a run, what is not known is NaN, and so is what depends on it. What is NaN all the same in a run
with other numbers in its place does not depend on it: it is NaN, and known.
"""

from collections.abc import Mapping

import numpy as np

from gradaudit.reference.quantities import Quantities
from gradaudit.reference.quantity import Quantity

NotFinite = tuple[str, Quantity, tuple[int, ...], float]
"""A quantity with its name, an index with the batch axis, and the value there."""


def known(step: Quantities, quantity: Quantity) -> np.ndarray:
    """Return which values of a quantity do not depend on what is not known; shape of `step[]`."""
    values = step[quantity].value
    if not step.is_computed(quantity):
        return np.zeros(values.shape, bool)
    missing = np.isnan(values)
    if not step.unknown or not missing.any():
        return np.ones(values.shape, bool)
    return ~missing | np.isnan(step.with_any[quantity].value)


def first_not_finite(step: Quantities) -> NotFinite | None:
    """Return the first number, in the order of computation, that is known and not finite."""
    names: Mapping[str, Quantity] = dict(sorted(step.names.items(), key=lambda item: item[1].rank))
    for name, quantity in names.items():
        values = step.by_row(quantity).value
        places = np.argwhere(known(step, quantity).reshape(values.shape) & ~np.isfinite(values))
        if len(places):
            index = tuple(int(i) for i in places[0])
            return name, quantity, index, float(values[index])
    return None
