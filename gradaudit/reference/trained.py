"""The changes that a second run of one step makes, beside the run that was recorded."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from gradaudit.numerics import PRECISIONS, Rounded, as_rounded
from gradaudit.records import Estimate
from gradaudit.reference.found import Found
from gradaudit.reference.runs import Runs
from gradaudit.reference.update import updated


def trained(runs: Runs, found: Found) -> Iterator[tuple[str, Estimate]]:
    """Yield the changes that the run which trained must have made, where it left other values.

    Its gradients are those of the record but for rounding errors, as large as those that the
    estimates of the gradients give; the optimizer's rules carry them on. The errors of the two runs
    are independent: σ² of a difference is the sum of theirs.
    """
    record, (arithmetic, *_) = runs.record, runs.arithmetics()
    before = record.variables | record.optimizer_variables
    after = record.variables_after | record.optimizer_variables_after
    weights = runs.spec.model.trainable_variables
    with np.errstate(all="ignore"):
        made = updated(
            runs.spec.optimizer,
            weights,
            before,
            ({v.path: _carried(runs, found, v) for v in weights},),
            record.learning_rates,
            arithmetic,
            runs.spec.config.epsilon,
            found.assigned[0],
        )
        changes = {key: as_rounded(value) for each in made for key, value in each.items()}
    doubts = {key: (value.sigma, value.kink) for key, value in changes.items()}
    doubts |= {path: (each.sigma, each.kink) for path, each in found.moved.items()}
    for path, value in (record.trained or {}).items():
        if not np.array_equal(value, after[path], equal_nan=True):
            right = np.subtract(after[path], before[path], dtype=np.float64)
            sigma, kink = doubts.get(path, (np.zeros(right.shape), None))
            yield path, Estimate(right, np.sqrt(2.0) * sigma, kink, 1.0, runs.oracle)


def _carried(runs: Runs, found: Found, variable: Any) -> Rounded | None:
    """Return a gradient that was captured, with the error that its estimate gives."""
    gradient = runs.record.gradients.get(variable.path)
    if gradient is None:
        return None
    estimate = found.gradients.get(variable.path) or runs.nothing(variable)
    precision = PRECISIONS[variable.dtype]
    return Rounded(gradient, np.square(estimate.sigma), estimate.kink, precision)
