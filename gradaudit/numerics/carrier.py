"""What the arrays of this room have in common: the looks of a NumPy array around a value."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin


class Shaped:
    """What has the shape of its `value`, and is moved by NumPy's functions."""

    __slots__ = ("value",)

    value: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    @property
    def ndim(self) -> int:
        return self.value.ndim

    @property
    def size(self) -> int:
        return self.value.size

    def __len__(self) -> int:
        return len(self.value)

    def reshape(self, *shape: int | Sequence[int]) -> Self:
        return np.reshape(self, shape[0] if len(shape) == 1 else shape)


class Carrier(Shaped, NDArrayOperatorsMixin):
    """An array-like with a float64 `value`, whose NumPy functions its subclasses define."""

    __slots__ = ()

    @property
    def T(self) -> Self:
        return np.transpose(self)

    def sum(self, axis: Any = None, keepdims: bool = False) -> Self:
        return np.sum(self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Self:
        return np.mean(self, axis=axis, keepdims=keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> Self:
        return np.max(self, axis=axis, keepdims=keepdims)
