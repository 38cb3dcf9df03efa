"""κ, by which correlated rounding errors exceed the independent ones that σ is made of.

σ adds the errors of single operations in quadrature. That is right for errors that are independent.
Elements that share a factor share its error, and a sum over m of them errs by √m times σ. In
attention over tokens that are alike, all positions share the errors of the values. A gradient that
is summed over the positions takes them m times, in all the weights of one channel. Terms that are
alike also round alike, where they differ by less than the last place of their partial sum.

The witnesses of this are twins: correct computations of the same gradients in float32, by the same
rules. What a twin errs by, a correct framework may err by as well. No twin sees what the framework
computed, so an error of the framework cannot raise the σ that it is judged by.

The first twin is at the weights of the step. It gives one factor for a tensor, κ: an rms over many
elements, which does not see one bad channel.

Further twins give a σ for each element. They are run only where the framework's value is more than
NEAR σ off: whether it is looked at again depends on the tape, how it is judged then does not.
Each twin has roundings of its own, since the weights and the inputs of each are moved by up to one
unit in the last place, and its sums are in an order of its own (`numerics/reordered.py`); its error
is that against float64 at the same place (`beside`). This is
stochastic arithmetic: J. Vignes, A stochastic arithmetic for reliable scientific computation
(1993); D. S. Parker, Monte Carlo Arithmetic (1997). Moves of one unit are within the doubt at which
an element counts as next to a kink, so the twins find no kinks that the reference does not know.
With the errors e of N twins

    σ² = max(κ² σ², Σ e²/N)

for each element, and where no kink outweighs σ. Where all errors of an element come from few shared
ones, these are few numbers: the ratio of a further such error to the rms of N is distributed as
Student's t with N degrees of freedom. So the number of twins is doubled from 4 to 32 as long as the
value is more than NEAR σ off. P(|t| > 8) is 1e-3 for 4 twins and 4e-9 for 32. After four twins
P(|t| > FAR) is 1e-7, and none are added.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from keras import tree
from numpy.typing import ArrayLike

from gradaudit.numerics import Array, Rounded
from gradaudit.records import DEFAULT_THRESHOLD, Arrays, Estimate, StepRecord

NEAR = DEFAULT_THRESHOLD / 2
"""A value that is more than this many σ off is judged by further twins; correct code is below."""

TWINS = (4, 8, 16, 32)
"""Numbers of further twins after which it is asked whether the value is still more than NEAR σ off.
"""

FAR = 80.0
"""Beyond this many σ four twins are enough to say that an error is none of rounding."""

HOPELESS = 1e4
"""Beyond this many σ there are no further twins: √m of 10⁶ shared errors, ten times over."""


UNITS = {"bfloat16": 2**16, "float16": 2**13}
"""Units in the last place of half precisions, in those of float32."""


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


def beside(array: ArrayLike, number: int, unit: int = 1) -> np.ndarray:
    """Return float32 numbers next to those of an array, for the twin of this number.

    Each moves by −1, 0 or 1 unit in the last place, equal numbers alike, so that equal rows stay
    equal. Whole numbers stay: they may be indices, marks of a mask, or factors of 1, and products
    with these make no error. Infinity and NaN stay.

    unit: that in the last place of the precision in which the framework uses them, in UNITS.
    """
    array = np.asarray(array, np.float32)
    moves = np.random.default_rng(number).integers(-1, 2, 2**16, np.int32)
    bits = array.view(np.int32)
    moved = bits + unit * moves[(bits ^ (bits >> 16)) & 0xFFFF]
    stays = ~np.isfinite(array) | (array == np.rint(array))
    return np.where(stays, bits, moved).view(np.float32)


def step_beside(record: StepRecord, weights: Iterable[str], number: int, unit: int) -> StepRecord:
    """Return a step whose inputs and weights, by path, are next to those of a record."""

    def moved(array: Any) -> Any:
        return beside(array, number, unit) if np.asarray(array).dtype.kind == "f" else array

    near = {path: moved(record.variables[path]) for path in weights}
    x = tree.map_structure(moved, record.x)
    return dataclasses.replace(record, x=x, variables={**record.variables, **near})


def refined(
    estimates: Mapping[str, Estimate],
    taken: Mapping[str, ArrayLike],
    errors: Callable[[int], Arrays],
) -> dict[str, Estimate]:
    """Return estimates whose σ is that of further twins where what was taken is more than NEAR off.

    taken: the framework's values, by path; what has none is not looked at.
    errors: from the number of a twin, counted from 0, to its errors by path. They are in the
        precision of the audited step.
    """
    found = dict(estimates)
    off = {path: _off(taken[path], each) for path, each in found.items() if path in taken}
    near = [path for path, z in off.items() if NEAR < z <= HOPELESS]
    squares = {path: np.zeros(found[path].value.shape) for path in near}
    for done, count in itertools.pairwise((0, *TWINS)):
        if not near:
            break
        for number in range(done, count):
            made = errors(number)
            for path in near:
                squares[path] += np.square(made[path], dtype=np.float64)
            del made  # before the next twin's arrays are made
        for path in near:
            found[path] = _raised(estimates[path], squares[path] / count)
        near = [path for path in near if NEAR < _off(taken[path], found[path]) <= FAR]
    return found


def _off(taken: ArrayLike, estimate: Estimate) -> float:
    """Return by how many σ the framework's value is off, where no kink explains it and σ is known.

    The largest of all elements; 0 where there are none.
    """
    kink = 0.0 if estimate.kink is None else estimate.kink
    with np.errstate(all="ignore"):
        z = (np.abs(np.asarray(taken, np.float64) - estimate.value) - kink) / estimate.sigma
    return float(np.max(z, initial=0.0, where=np.isfinite(z)))


def _raised(estimate: Estimate, squares: np.ndarray) -> Estimate:
    """Return the estimate with σ² raised to the mean squares of errors, where no kink outweighs it.

    Its κ is raised by the factor by which the norm of σ grows.
    """
    sigma = estimate.sigma
    usable = np.isfinite(squares) & (sigma > 0)
    if estimate.kink is not None:
        usable &= estimate.kink <= sigma
    raised = np.sqrt(np.where(usable, np.maximum(sigma**2, squares), sigma**2))
    grown = np.linalg.norm(raised[usable]) / np.linalg.norm(sigma[usable]) if usable.any() else 1.0
    return dataclasses.replace(estimate, sigma=raised, kappa=estimate.kappa * float(grown))
