"""Lower bounds of the rounding errors of an update whose elements move by themselves.

An optimizer such as Adam makes some twenty arrays as large as the weights, and as many variances
beside them. Of most elements the last rounding tells enough: with the value y after the step,

    σ ≥ √r(y) where y is no float32 number, and σ ≥ 0 where it is one

since a value that is only copied, such as a maximum, is not rounded. Elements that are more than
NEAR times the bound off get their own σ, by the rule itself. So do SAMPLE others: how strong the
test was is a matter of σ, and these tell its norm.
"""

import math
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
"""Elements by which the norm of σ is estimated. Tensors of up to so many have their σ at once."""

BLOCK = 2**15
"""Elements that are derived at a time, so that all arrays of the rule stay in the cache."""

NEAR = DEFAULT_THRESHOLD / 2
"""What is more than this many times the bound off gets its own σ."""

_ROUNDING = PRECISIONS["float32"].roundoff / np.sqrt(3)


@dataclass(frozen=True)
class Bounded:
    """The value of a variable after a step, a lower bound of σ, and the 2-norm of σ itself."""

    value: np.ndarray
    sigma: np.ndarray
    noise: float


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
    taken: Arrays,
    shape: Sequence[int],
) -> dict[str, Any]:
    """Return a weight and its slots after a step, large ones as `Bounded`.

    at: from an arithmetic, None for one with rounding errors, and some elements of the flattened
        weight to these and their slots after the step.
    taken: the framework's values after the step.
    """
    size = int(np.prod(shape))
    if size <= SAMPLE:
        found = at(None, slice(None))
        return {k: v.reshape(shape) if v.shape == (size,) else v for k, v in found.items()}
    of: dict[str, _Elements] = {}
    open_ = np.zeros(size, bool)
    for start in range(0, size, BLOCK):
        part = slice(start, min(start + BLOCK, size))
        for key, value in at(Plain(np.float64), part).items():
            if value.shape == (part.stop - start,):  # not one for all elements
                elements = of[key] = of.get(key) or _Elements(taken[key], size)
                open_[part] |= elements.take(part, np.asarray(value))
    sample = np.linspace(0, size - 1, SAMPLE).astype(np.int64)
    sample = sample[~open_[sample]]
    places = np.concatenate([np.flatnonzero(open_), sample])
    again = at(None, places)
    made = {
        key: elements.bounded(places, as_rounded(again[key]).sigma, len(sample), shape)
        for key, elements in of.items()
    }
    return {**again, **made}


class _Elements:
    """One variable, flat, while its elements are derived block by block."""

    def __init__(self, taken: np.ndarray, size: int) -> None:
        self._taken = taken.reshape(-1)
        self.value, self.sigma = np.empty(size), np.empty(size)

    def take(self, part: slice, value: np.ndarray) -> np.ndarray:
        """Keep the values of a block with their bounds; return which are far off."""
        sigma = binade(value)
        sigma *= _ROUNDING
        np.putmask(sigma, value.astype(np.float32) == value, 0.0)
        self.value[part], self.sigma[part] = value, sigma
        apart = value - self._taken[part]
        np.abs(apart, out=apart)
        sigma *= NEAR
        return ~(apart <= sigma)

    def bounded(
        self, places: np.ndarray, sigma: np.ndarray, sampled: int, shape: Sequence[int]
    ) -> Bounded:
        """Return all elements, some of them with their own σ: the last `sampled` are a sample."""
        least = self.sigma[places]
        squares = float(self.sigma @ self.sigma) - float(least @ least)
        known, of_known = sigma[len(sigma) - sampled :], least[len(least) - sampled :]
        bound = float(of_known @ of_known)
        factor = float(known @ known) / bound if bound else 1.0
        self.sigma[places] = sigma
        noise = math.sqrt(float(sigma @ sigma) + factor * max(squares, 0.0))
        return Bounded(self.value.reshape(shape), self.sigma.reshape(shape), noise)
