"""The kinds of arithmetic in which one and the same rule can be run.

Plain        float64 or float32 NumPy arrays       the reference's value, the float32 twin
Reordering   float32, sums in a random order       further twins
Rounding     `Rounded`: float64 with variances     the rounding error of the audited precision
Simulating   `Simulated`: float64, rounded         the twin of a half precision
"""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from gradaudit.numerics.precision import BOUND, HALF_SUMS, PRECISIONS, UNBOUNDED, Precision
from gradaudit.numerics.reordered import Reordered
from gradaudit.numerics.rounded import Rounded
from gradaudit.numerics.simulated import Simulated
from gradaudit.numerics.ties import Convention


class Array(Protocol):
    """What rules may do with an array: the common interface of ndarray, Rounded and Simulated.

    A protocol and not the union of the three: a type checker tests each expression for every
    member of a union, and NumPy's stubs do not know `__array_function__`. Operators and indexing
    return Any, since the result has the class of the operands; `__array__` is what makes
    `np.where(c, x, y)` accept an Array (the stubs then promise an ndarray, which is an Array too).
    Not part of it: `dtype` and `value`, which one arithmetic has and the others lack. Ask for the
    class with `isinstance(x, Rounded)`, or state it with `as_rounded(x)` where only `Rounding`
    runs; `isinstance(x, Array)` is not possible.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def ndim(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def T(self) -> Any: ...
    def __array__(self) -> np.ndarray: ...
    def __len__(self) -> int: ...
    def __getitem__(self, key: Any, /) -> Any: ...

    def __neg__(self) -> Any: ...
    def __abs__(self) -> Any: ...
    def __add__(self, other: Any, /) -> Any: ...
    def __radd__(self, other: Any, /) -> Any: ...
    def __sub__(self, other: Any, /) -> Any: ...
    def __rsub__(self, other: Any, /) -> Any: ...
    def __mul__(self, other: Any, /) -> Any: ...
    def __rmul__(self, other: Any, /) -> Any: ...
    def __truediv__(self, other: Any, /) -> Any: ...
    def __rtruediv__(self, other: Any, /) -> Any: ...
    def __pow__(self, other: Any, /) -> Any: ...
    def __rpow__(self, other: Any, /) -> Any: ...
    def __matmul__(self, other: Any, /) -> Any: ...
    def __rmatmul__(self, other: Any, /) -> Any: ...
    def __lt__(self, other: Any, /) -> Any: ...
    def __le__(self, other: Any, /) -> Any: ...
    def __gt__(self, other: Any, /) -> Any: ...
    def __ge__(self, other: Any, /) -> Any: ...

    def reshape(self, shape: Any, /, *more: int) -> Any: ...
    def sum(self, axis: Any = None, *, keepdims: bool = False) -> Any: ...
    def mean(self, axis: Any = None, *, keepdims: bool = False) -> Any: ...
    def max(self, axis: Any = None, *, keepdims: bool = False) -> Any: ...


def as_rounded(array: Any) -> Rounded:
    """Return `array` itself, for code that runs in the arithmetic `Rounding` alone.

    Raises TypeError for an array of another arithmetic.
    """
    if not isinstance(array, Rounded):
        raise _of_another_arithmetic(array, Rounded)
    return array


def numbers(array: Any) -> np.ndarray:
    """Return the bare numbers of an array of any arithmetic, without their rounding errors."""
    return np.asarray(getattr(array, "value", array))


class Arithmetic(Protocol):
    """Makes the arrays that flow through rules, and casts them between the framework's dtypes."""

    def array(self, value: ArrayLike, dtype: str) -> Array:
        """Return `value` as the framework holds it in a variable or constant of `dtype`."""

    def cast(self, array: Array, dtype: str) -> Array:
        """Return `array`, of the same arithmetic, after the framework cast it to `dtype`."""


@dataclass(frozen=True)
class Plain:
    """NumPy arrays of one dtype throughout; the framework's casts do nothing."""

    dtype: DTypeLike

    def array(self, value: ArrayLike, dtype: str) -> np.ndarray:
        return np.asarray(value, self.dtype)

    def cast(self, array: Array, dtype: str) -> Array:
        return array


@dataclass(frozen=True)
class Reordering:
    """float32 NumPy arrays whose sums take their terms in a random order, by its number."""

    number: int

    def array(self, value: ArrayLike, dtype: str) -> Reordered:
        return Reordered.of(np.asarray(value, np.float32), self.number)

    def cast(self, array: Array, dtype: str) -> Array:
        return array


@dataclass(frozen=True)
class Rounding:
    """float64 values with the rounding error of the framework's own dtypes (see `Rounded`).

    uniform: if given, the precision of every dtype (for κ, which is measured in float32).
    tensorfloat32: float32 matrix products round their factors to 11 bits (NVIDIA GPUs).
    half_sums: an einsum of a half precision accumulates in it.
    ties: which subgradient exact ties take; None for the framework's.
    bound: a lower bound of the errors will do; of float32 only.
    """

    uniform: Precision | None = None
    tensorfloat32: bool = False
    half_sums: bool = False
    ties: Convention | None = None
    bound: bool = False

    def _precision(self, dtype: str) -> Precision:
        found = self._of_framework(dtype)
        return found if self.ties is None else replace(found, ties=self.ties)

    def _of_framework(self, dtype: str) -> Precision:
        if self.uniform is not None:
            return self.uniform
        if dtype == "float32" and self.bound:
            return BOUND
        if dtype == "float32" and self.tensorfloat32:
            return PRECISIONS["tensorfloat32"]
        return _held(dtype, self.half_sums)

    def array(self, value: ArrayLike, dtype: str) -> Rounded:
        return Rounded.stored(value, self._precision(dtype))

    def cast(self, array: Array, dtype: str) -> Rounded:
        return as_rounded(array).cast(self._precision(dtype))


@dataclass(frozen=True)
class Simulating:
    """float64 values rounded after every operation to the framework's own dtypes (`Simulated`).

    half_sums: an einsum of a half precision accumulates in it. unbounded: half precisions have no
        largest number.
    """

    half_sums: bool = False
    unbounded: bool = False

    def array(self, value: ArrayLike, dtype: str) -> Simulated:
        return Simulated(value, self._precision(dtype))

    def _precision(self, dtype: str) -> Precision:
        held = _held(dtype, self.half_sums)
        return UNBOUNDED.get(dtype, held) if self.unbounded else held

    def cast(self, array: Array, dtype: str) -> Simulated:
        if not isinstance(array, Simulated):
            raise _of_another_arithmetic(array, Simulated)
        return Simulated(array.value, self._precision(dtype))


def _held(dtype: str, half_sums: bool) -> Precision:
    return HALF_SUMS.get(dtype, PRECISIONS[dtype]) if half_sums else PRECISIONS[dtype]


def _of_another_arithmetic(array: Any, expected: type) -> TypeError:
    return TypeError(
        f"a {type(array).__name__} was given where {expected.__name__} arrays are expected. "
        "Make constants with the `array` method of the arithmetic that the rule runs in."
    )
