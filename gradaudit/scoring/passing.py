"""A tensor all of whose weights plainly pass, as most do: found in one walk over its blocks.

Each block stays in the processor's cache while all that a report says of it is computed. The
general judgement (`elements.py`) makes a dozen arrays as large as the tensor.
"""

from dataclasses import dataclass

import numpy as np

from gradaudit.records import Estimate
from gradaudit.scoring.elements import LARGEST_NOISE
from gradaudit.scoring.rows import largest

BLOCK = 2**13
"""Weights that are compared at a time: 64 KiB of each array.

OpenBLAS shares out dot products of more than 10,000 terms among threads, which cost more than they
bring where TensorFlow's threads have the processor.
"""

RUN = 64
"""Weights of which only the largest z is kept while the worst of all are looked for."""


@dataclass(frozen=True)
class Change:
    """What the framework has of a tensor, flat: values, or the change of a variable.

    values: or the variable after the step. before: None, or the variable before it.
    """

    values: np.ndarray
    before: np.ndarray | None = None

    @classmethod
    def of(cls, values: np.ndarray, before: np.ndarray | None = None) -> "Change":
        """Flatten the arrays."""
        return cls(np.ravel(values), None if before is None else np.ravel(before))

    def __getitem__(self, part: slice | np.ndarray) -> np.ndarray:
        """Return some of the values in float64, in an array of their own."""
        found = self.values[part].astype(np.float64)
        if self.before is not None:
            found -= self.before[part]
        return found


@dataclass(frozen=True)
class Passing:
    """What a report says of a tensor that passes, and the arrays that it is made of, flat.

    tape_norm, reference_norm, distance, tolerance: 2-norms of the tape, the reference, their
        difference, and of the largest difference that passes.
    max_abs_diff, max_z, worst: the largest difference; the largest z and its position.
    kinks: number of elements that depend on a choice at a kink.
    """

    tape: Change
    estimate: Estimate
    tape_norm: float
    reference_norm: float
    distance: float
    tolerance: float
    max_abs_diff: float
    max_z: float
    kinks: int
    _highest: np.ndarray

    @property
    def worst(self) -> int:
        run = self._candidates(1)
        return int(run[np.argmax(self.z(run))])

    def largest(self, count: int) -> np.ndarray:
        """Return the positions of the weights with the `count` largest z, ascending."""
        places = self._candidates(count)
        return np.sort(places[largest(self.z(places), count)])

    def _candidates(self, count: int) -> np.ndarray:
        """Return positions among which those of the `count` largest z are."""
        places = largest(self._highest, count)[:, None] * RUN + np.arange(RUN)
        return places[places < self.estimate.value.size]

    def z(self, part: slice | np.ndarray) -> np.ndarray:
        """Return the scores of some weights."""
        apart = np.abs(self.tape[part] - self.estimate.value.ravel()[part])
        if self.estimate.kink is not None:
            apart = np.maximum(apart - self.estimate.kink.ravel()[part], 0.0)
        sigma = self.estimate.sigma.ravel()[part]
        return np.divide(apart, sigma, out=np.zeros(apart.shape), where=apart > 0)


def passing(tape: Change, estimate: Estimate, threshold: float) -> Passing | None:
    """Return what is said of a tensor if all its weights pass, without the excuse of a kink.

    Otherwise, and where numbers are not finite or rounding errors large, it is None: the general
    judgement decides.
    """
    size = estimate.value.size
    if not size:
        return None
    value, sigma = estimate.value.ravel(), estimate.sigma.ravel()
    kink = estimate.kink if estimate.kink is not None and np.any(estimate.kink) else None
    flat_kink = None if kink is None else kink.ravel()
    highest = np.empty(-(-size // RUN))
    norms, furthest, largest_z = np.zeros(5), 0.0, 0.0
    for start in range(0, size, BLOCK):
        part = slice(start, start + BLOCK)
        right, noise, found = value[part], sigma[part], tape[part]
        apart = found - right
        norms[:4] += (found @ found, right @ right, apart @ apart, noise @ noise)
        np.abs(apart, out=apart)
        furthest = max(furthest, float(apart.max()))
        z = np.divide(apart, noise, out=found)  # 0/0 is NaN, and no difference
        if flat_kink is not None:
            largest_z = max(largest_z, float(np.fmax.reduce(z, initial=0.0)))
            allowed = threshold * noise + flat_kink[part]
            norms[4] += allowed @ allowed
            np.maximum(apart - flat_kink[part], 0.0, out=apart)
            np.divide(apart, noise, out=z)
        whole = z.size // RUN * RUN
        first = start // RUN
        highest[first : first + z.size // RUN] = np.fmax.reduce(
            z[:whole].reshape(-1, RUN), axis=1, initial=0.0
        )
        if whole < z.size:
            highest[-1] = np.fmax.reduce(z[whole:], initial=0.0)
    max_z = float(highest.max())
    finite = np.isfinite(norms).all() and max(max_z, largest_z) <= threshold
    tape_norm, norm, distance, noise_norm, tolerance = np.sqrt(norms).tolist()
    if not finite or noise_norm > LARGEST_NOISE * norm:
        return None
    return Passing(
        tape,
        estimate if kink is not None else Estimate(**{**vars(estimate), "kink": None}),
        tape_norm,
        norm,
        distance,
        tolerance if kink is not None else threshold * (estimate.noise or noise_norm),
        furthest,
        max_z,
        0 if kink is None else int(np.count_nonzero(kink)),
        highest,
    )
