"""`Simulated`: float64 values that are rounded to a half precision after every operation.

It is the twin run of a half precision: NumPy has no bfloat16, and its float16 has no fast product.

    y = f(a, b)    nearest(f(a, b)), f in float64, and infinity beyond `largest`

So equal rows round alike, as they do in the framework. Sums that TensorFlow accumulates in the half
precision itself are added term by term in that precision: small terms are lost in a large partial
sum. Other errors within a sum are not simulated; `Rounded` accounts for them.
"""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import ArrayLike

from gradaudit.errors import UnsupportedFunctionError
from gradaudit.numerics.carrier import Carrier
from gradaudit.numerics.elementary import ELEMENTARY
from gradaudit.numerics.precision import Precision

_HALVES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


class Simulated(Carrier):
    """A float64 array of numbers that a precision can hold.

    value: float64 array, rounded to `precision`; infinite where it overflows.
    precision: the framework's precision that the value is held in.
    """

    __slots__ = ("precision",)

    carries = "precision"

    def __init__(self, value: ArrayLike, precision: Precision) -> None:
        value = np.asarray(value, np.float64)
        held = precision.nearest(value)
        self.value = np.where(np.abs(held) > precision.largest, np.copysign(np.inf, held), held)
        self.precision = precision

    def __getitem__(self, key: Any) -> "Simulated":
        return Simulated(self.value[key], self.precision)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__" or kwargs:
            raise UnsupportedFunctionError(
                f"numpy.{ufunc.__name__} was called on a Simulated array as .{method} or with "
                "options. Rules are pure NumPy: write y = a + b, and np.sum for np.add.reduce."
            )
        known = ELEMENTARY.get(ufunc)
        if known is not None and known.in_halves is not None:
            return known.in_halves(*inputs)
        return self._rounded(ufunc, inputs, {})

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any
    ) -> Any:
        if function is np.sum:
            return self._sum(*args, **kwargs)
        if function is np.mean:
            total = self._sum(*args, **kwargs)
            return total / (args[0].size // max(total.size, 1))
        return self._rounded(function, args, kwargs)

    def _sum(self, a: "Simulated", axis: Any = None, keepdims: bool = False) -> "Simulated":
        p = self.precision
        value = np.sum(a.value, axis=axis, keepdims=keepdims)
        n = a.size // max(value.size, 1)
        is_bounded = np.isfinite(p.largest)  # as the halves of NumPy are
        if n > 1 and p.is_half and is_bounded and p.accumulator(a.shape, axis) == p.roundoff:
            axes = range(a.ndim) if axis is None else np.atleast_1d(axis)
            terms = np.moveaxis(a.value, axes, range(len(axes))).reshape(n, -1)
            with np.errstate(all="ignore"):
                partial = np.add.accumulate(terms.astype(_HALVES[p.name]), axis=0)
            value = partial[-1].astype(np.float64).reshape(value.shape)
        return Simulated(value, p)

    def contraction(self, other: "Simulated") -> "Simulated":
        """Return self @ other as the framework's einsum computes it, one term after the other."""
        p = self.precision
        if p.contraction_roundoff < p.roundoff:
            return self @ other
        a, b = self.value, self._bare(other)
        total = Simulated(np.zeros((a[..., :1] @ b[..., :1, :]).shape), p)
        for k in range(self.shape[-1]):
            total = Simulated(total.value + a[..., k : k + 1] @ b[..., k : k + 1, :], p)
        return total

    def _rounded(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        result = function(*self._bare(args), **self._bare(kwargs))
        kind = np.asarray(result).dtype.kind
        return Simulated(result, self.precision) if kind == "f" else result

    def _bare(self, part: Any) -> Any:
        if isinstance(part, Simulated):
            if part.precision is not self.precision:
                raise UnsupportedFunctionError(
                    f"arrays of {self.precision.name} and {part.precision.name} met in one "
                    "operation. A framework would cast one of them: use the arithmetic's cast."
                )
            return part.value
        if isinstance(part, float):
            return float(self.precision.nearest(np.float64(part)))
        if isinstance(part, (list, tuple)):
            return type(part)(self._bare(each) for each in part)
        if isinstance(part, dict):
            return {key: self._bare(each) for key, each in part.items()}
        return part
