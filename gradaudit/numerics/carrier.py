"""Base classes of the arrays of this package: the interface of a NumPy array around a `value`."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self, cast

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from gradaudit.errors import UnsupportedFunctionError


class Shaped:
    """Has the shape of its `value`, and is moved by NumPy's functions.

    NumPy's stubs declare that np.reshape and others return an ndarray. Here they return what
    `__array_function__` of the subclass makes, an object of the same class: hence the casts.
    """

    __slots__ = ("value",)

    value: np.ndarray
    carries: ClassVar[str]
    """What the object has beside its value, in words."""

    __array_function__: Callable[..., Any]

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

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise UnsupportedFunctionError(
            f"a {type(self).__name__} array was converted to a bare array, which drops its "
            f"{self.carries}. Use NumPy functions that {type(self).__name__} supports, or take "
            ".value where that is meant."
        )

    def reshape(self, *shape: int | Sequence[int]) -> Self:
        return cast(Self, np.reshape(self, cast(Any, shape[0] if len(shape) == 1 else shape)))


class Carrier(Shaped, NDArrayOperatorsMixin):
    """An array-like with a float64 `value`; its subclasses define what NumPy's functions return."""

    __slots__ = ()

    def __getitem__(self, key: Any) -> Self:
        raise NotImplementedError

    @property
    def T(self) -> Self:
        return cast(Self, np.transpose(self))

    def sum(self, axis: Any = None, keepdims: bool = False) -> Self:
        return np.sum(self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Any = None, keepdims: bool = False) -> Self:
        return np.mean(self, axis=axis, keepdims=keepdims)

    def max(self, axis: Any = None, keepdims: bool = False) -> Self:
        return np.max(self, axis=axis, keepdims=keepdims)
