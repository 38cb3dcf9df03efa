"""`Reordered`: float32 arrays whose products and sums take their terms in an order of their own.

The order of a sum is the kernel's choice: NumPy, Eigen, oneDNN and XLA each have others. Terms that
are nearly alike in all rows, as tokens with a common part have them, meet the same partial sums and
round alike in all of them. So one order says little of another. A twin in a random order is a
correct computation, too.

    Σₖ aᵢₖ bₖⱼ    with the k permuted, in one way for all sums of as many terms
"""

from collections.abc import Callable
from typing import Any

import numpy as np


class Reordered(np.ndarray):
    """A NumPy array that permutes the terms of matrix products and of sums.

    number: which permutation is taken of those for some number of terms.
    """

    number: int

    @classmethod
    def of(cls, array: np.ndarray, number: int) -> "Reordered":
        """Return the array itself, as one of this kind."""
        made = np.asarray(array).view(cls)
        made.number = number
        return made

    def __array_finalize__(self, obj: Any) -> None:
        self.number = getattr(obj, "number", 0)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        bare = [_bare(x) for x in inputs]
        out = kwargs.get("out")
        if out is not None:
            kwargs["out"] = tuple(map(_bare, out))
        if ufunc is np.matmul and method == "__call__":
            order = self._order(bare[0].shape[-1])
            bare = [bare[0][..., order], np.take(bare[1], order, axis=max(bare[1].ndim - 2, 0))]
        elif ufunc is np.add and method == "reduce":
            bare = [self._permuted(bare[0], kwargs.get("axis", 0)), *bare[1:]]
        return self._like(getattr(ufunc, method)(*bare, **kwargs))

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any
    ) -> Any:
        return self._like(super().__array_function__(function, types, args, kwargs))

    def _permuted(self, array: np.ndarray, axis: Any) -> np.ndarray:
        axes = range(array.ndim) if axis is None else np.atleast_1d(axis).tolist()
        for each in axes:
            array = np.take(array, self._order(array.shape[each]), axis=each)
        return array

    def _order(self, n: int) -> np.ndarray:
        return np.random.default_rng((self.number, n)).permutation(n)

    def _like(self, result: Any) -> Any:
        is_float = isinstance(result, np.ndarray | np.floating) and result.dtype.kind == "f"
        return Reordered.of(np.asarray(result), self.number) if is_float else result


def _bare(part: Any) -> Any:
    return part.view(np.ndarray) if isinstance(part, Reordered) else part
