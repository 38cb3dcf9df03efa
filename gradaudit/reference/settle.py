"""Gradients by differences, where the rules give no finite number and the framework does."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from gradaudit.numerics.precision import PRECISIONS
from gradaudit.records import Estimate, Oracle
from gradaudit.reference.runs import Runs

MOST = 32
"""Most weights of a step that are settled; each takes five runs of the loss."""
STEP = 2.0**-13
"""Step of the differences over the size of the weight."""
ACCURACY = 2.0**-13
"""Relative σ of a settled weight: ten bits decide between two gradients."""
ROUNDINGS = 4.0
"""Errors of the framework in a settled weight, in roundings of the largest value of its tensor."""


def settled(runs: Runs, gradients: Mapping[str, Estimate]) -> dict[str, Estimate]:
    """Return the gradients, with differences of the loss where a derivation is not finite.

    Only where the framework's gradient is finite: what it has no number for fails by itself. A
    weight stays without a finite estimate where the loss is not finite around it, or where more
    than `MOST` weights are concerned.
    """
    found, left = dict(gradients), MOST
    for path, estimate in gradients.items():
        tape = runs.record.gradients.get(path)
        bad = ~np.isfinite(estimate.value)
        if tape is not None:
            bad &= np.isfinite(tape)
        places = np.argwhere(bad)[:left]
        left -= len(places)
        if len(places):
            found[path] = _with_differences(runs, path, estimate, places)
    return found


def _with_differences(runs: Runs, path: str, estimate: Estimate, places: np.ndarray) -> Estimate:
    value, sigma = estimate.value.copy(), estimate.sigma.copy()
    kink = np.zeros(value.shape) if estimate.kink is None else estimate.kink.copy()
    for place in map(tuple, places):
        value[place], sigma[place], kink[place] = _difference(runs, path, place)
    largest = np.max(np.abs(value), initial=0.0, where=np.isfinite(value))
    rounded = max(PRECISIONS[dtype].roundoff for dtype in runs.dtypes) * largest
    settled_at = tuple(places.T)
    sigma[settled_at] = np.hypot(sigma[settled_at], ROUNDINGS * rounded)
    return dataclasses.replace(
        estimate,
        value=value,
        sigma=sigma,
        kink=kink if kink.any() else None,
        oracle=Oracle.NUMERIC,
    )


def _difference(runs: Runs, path: str, place: tuple[int, ...]) -> tuple[float, float, float]:
    """Return the derivative of the loss by one weight, its error, and the jump of a kink there.

    Richardson's value (4 D(h/2) − D(h)) / 3 of central differences D; its error is its distance
    from D(h/2), with the rounding of the loss, u |f| / h, and `ACCURACY`. At a kink the one-sided
    differences of both steps differ alike; where the loss is smooth, those of half the step differ
    half as much.
    """
    weight = runs.record.variables[path]
    h = STEP * max(abs(float(weight[place])), float(np.sqrt(np.mean(np.square(weight)))), STEP)

    def loss(shift: float) -> float:
        moved = np.asarray(weight, np.float64).copy()
        moved[place] += shift
        variables = {**runs.record.variables, path: moved}
        return runs.loss(dataclasses.replace(runs.record, variables=variables))[0]

    with np.errstate(all="ignore"):
        below, below_half, middle, above_half, above = map(loss, (-h, -h / 2, 0.0, h / 2, h))
        central, half = (above - below) / (2 * h), (above_half - below_half) / h
        value = (4 * half - central) / 3
        rounding = PRECISIONS["float64"].roundoff * max(abs(above), abs(below)) / h
        jump = (above - 2 * middle + below) / h
        jump_half = (above_half - 2 * middle + below_half) / (h / 2)
    scale = runs.record.loss_scale
    kink = abs(2 * jump_half - jump) if abs(2 * jump_half - jump) > 0.5 * abs(jump) else 0.0
    error = abs(value - half) + rounding + ACCURACY * abs(value)
    return scale * value, scale * error, scale * kink
