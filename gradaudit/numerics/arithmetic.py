"""The kinds of arithmetic in which one and the same rule can be run."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from gradaudit.numerics.precision import PRECISIONS, Precision
from gradaudit.numerics.rounded import Rounded
from gradaudit.numerics.simulated import Simulated

Array = np.ndarray | Rounded | Simulated


class Arithmetic(Protocol):
    """Makes the arrays that flow through rules, and moves them between the framework's dtypes."""

    def array(self, value: ArrayLike, dtype: str) -> Array:
        """Return `value` as the framework holds it in a variable or constant of `dtype`."""

    def cast(self, array: Array, dtype: str) -> Array:
        """Return `array` after the framework cast it to `dtype`."""


@dataclass(frozen=True)
class Plain:
    """NumPy arrays of one dtype throughout; casts of the framework do nothing."""

    dtype: DTypeLike

    def array(self, value: ArrayLike, dtype: str) -> np.ndarray:
        return np.asarray(value, self.dtype)

    def cast(self, array: Array, dtype: str) -> Array:
        return array


@dataclass(frozen=True)
class Rounding:
    """float64 values with the rounding error of the framework's own dtypes.

    uniform: where given, every dtype counts as this precision (for κ, measured in float32).
    tensorfloat32: matrix products of float32 round their factors to 11 bits (NVIDIA GPUs).
    """

    uniform: Precision | None = None
    tensorfloat32: bool = field(default=False)

    def _precision(self, dtype: str) -> Precision:
        if self.uniform is not None:
            return self.uniform
        if dtype == "float32" and self.tensorfloat32:
            return PRECISIONS["tensorfloat32"]
        return PRECISIONS[dtype]

    def array(self, value: ArrayLike, dtype: str) -> Rounded:
        return Rounded.stored(value, self._precision(dtype))

    def cast(self, array: Rounded, dtype: str) -> Rounded:
        return array.cast(self._precision(dtype))


@dataclass(frozen=True)
class Simulating:
    """float64 values rounded after every operation as the framework's own dtypes round."""

    def array(self, value: ArrayLike, dtype: str) -> Simulated:
        return Simulated(value, PRECISIONS[dtype])

    def cast(self, array: Simulated, dtype: str) -> Simulated:
        return Simulated(array.value, PRECISIONS[dtype])
