"""Lower bounds of the rounding errors of an update whose elements move by themselves.

An optimizer such as Adam makes some twenty arrays as large as the weights, and as many variances
beside them. Of most elements a few numbers tell enough. With the change Δ of an element from y₀ to
y, its error is at least that of the last rounding, and that of what all elements share, such as the
step size α, which has the same part ρ of Δ for all:

    σ ≥ max(√r(y), ρ |Δ|)

ρ is an estimate: OF_SAMPLE times the least of √(σ² − r(y)) / |Δ| among SAMPLE elements whose σ is
derived. Elements that are more than NEAR times the bound off get their own σ, by the rule itself.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradaudit.numerics import Arithmetic, Plain, as_rounded
from gradaudit.numerics.arithmetic import Array
from gradaudit.numerics.precision import PRECISIONS, binade
from gradaudit.records import DEFAULT_THRESHOLD, Arrays

Part = slice | np.ndarray

SAMPLE = 256
"""Elements of which σ is derived to see what part of the error they share."""

OF_SAMPLE = 0.9
"""Part of the least value in the sample that is taken for the least of all elements."""

BLOCK = 2**15
"""Elements that are derived at a time, so that all arrays of the rule stay in the cache."""

NEAR = DEFAULT_THRESHOLD / 2
"""What is more than this many times the bound off gets its own σ."""

_ROUNDING = PRECISIONS["float32"].roundoff / np.sqrt(3)


@dataclass(frozen=True)
class Bounded:
    """The value of a variable after a step, and a lower bound of σ."""

    value: np.ndarray
    sigma: np.ndarray


class Cut(Mapping[str, np.ndarray]):
    """The variables before a step; of those of one shape only some elements, flat."""

    def __init__(self, whole: Mapping[str, np.ndarray], shape: tuple[int, ...], part: Part) -> None:
        self._whole, self._shape, self._part = whole, shape, part

    def __getitem__(self, key: str) -> np.ndarray:
        array = self._whole[key]
        return array.reshape(-1)[self._part] if array.shape == self._shape else array

    def __iter__(self) -> Iterator[str]:
        return iter(self._whole)

    def __len__(self) -> int:
        return len(self._whole)


def bounded(
    at: Callable[[Arithmetic | None, Part], dict[str, Array]],
    before: Mapping[str, np.ndarray],
    taken: Arrays,
    shape: Sequence[int],
) -> dict[str, Any]:
    """Return a weight and its slots after a step, large ones as `Bounded`.

    at: from an arithmetic, None for one with rounding errors, and some elements of the flattened
        weight to these and their slots after the step.
    before, taken: the framework's values before and after the step.
    """
    size = int(np.prod(shape))
    sample = np.unique(np.linspace(0, size - 1, SAMPLE).astype(np.int64))
    found = at(None, sample)
    keys = [key for key, value in found.items() if value.shape == sample.shape]
    if len(sample) == size:
        moved = {key: found[key].reshape(tuple(shape)) for key in keys}
        return {**found, **moved}
    of = {key: _Elements(before[key], taken[key], size) for key in keys}
    for key, elements in of.items():
        elements.share(sample, as_rounded(found[key]).value, as_rounded(found[key]).sigma)
    open_ = np.zeros(size, bool)
    for start in range(0, size, BLOCK):
        part = slice(start, start + BLOCK)
        for key, value in at(Plain(np.float64), part).items():
            if key in of:
                open_[part] |= of[key].take(part, np.asarray(value))
    places = np.flatnonzero(open_)
    if places.size:
        again = at(None, places)
        for key, elements in of.items():
            elements.sigma[places] = as_rounded(again[key]).sigma
    made = {key: Bounded(e.value.reshape(shape), e.sigma.reshape(shape)) for key, e in of.items()}
    return {**found, **made}


class _Elements:
    """One variable, flat, while its elements are derived block by block."""

    def __init__(self, before: np.ndarray, taken: np.ndarray, size: int) -> None:
        self._before, self._taken = before.reshape(-1), taken.reshape(-1)
        self.value, self.sigma = np.empty(size), np.empty(size)
        self._shared = 0.0

    def share(self, places: np.ndarray, value: np.ndarray, sigma: np.ndarray) -> None:
        """Find out ρ by elements whose σ is known."""
        moved = np.abs(value - self._before[places])
        rest = sigma**2 - (_ROUNDING * binade(value)) ** 2
        known = (moved > 0) & np.isfinite(sigma)
        if known.any():
            least = np.min(np.maximum(rest[known], 0.0) / moved[known] ** 2)
            self._shared = OF_SAMPLE * float(np.sqrt(least))

    def take(self, part: slice, value: np.ndarray) -> np.ndarray:
        """Keep the values of a block with their bounds; return which are far off."""
        sigma = binade(value)
        sigma *= _ROUNDING
        if self._shared:
            moved = value - self._before[part]
            np.abs(moved, out=moved)
            moved *= self._shared
            np.maximum(sigma, moved, out=sigma)
        self.value[part], self.sigma[part] = value, sigma
        apart = value - self._taken[part]
        np.abs(apart, out=apart)
        sigma *= NEAR
        return ~(apart <= sigma)
