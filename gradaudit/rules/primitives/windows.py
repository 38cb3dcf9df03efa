"""Windows over spatial axes, of which every convolution and every pooling is made.

Window q of an axis sees the cell p = q stride + t dilation − before at its tap t. `at` returns what
each window sees at a tap, and `placed` is its transpose: it puts a value of each window on the cell
at that window's tap. Both are strided slices of one padded array, for any number of axes.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from gradaudit.numerics.arithmetic import Array

Tap = tuple[int, ...]


@dataclass(frozen=True)
class Windows:
    """All windows over the cells of some axes; each field has one number for each axis.

    count: windows. size: taps of one. before, after: zeros that pad the cells on either side.
    """

    cells: tuple[int, ...]
    count: tuple[int, ...]
    size: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    @classmethod
    def over(
        cls,
        cells: Sequence[int],
        size: Sequence[int],
        strides: Sequence[int],
        padding: str = "valid",
        dilation: Sequence[int] | None = None,
    ) -> Self:
        """Return the windows that Keras lays over the cells.

        padding: "valid", "causal" or "same"; of an odd number of zeros "same" puts one more after.
        """
        rates = tuple(dilation or [1] * len(cells))
        axes = []
        for n, k, s, d in zip(cells, size, strides, rates, strict=True):
            reach = (k - 1) * d
            zeros = {
                "valid": 0,
                "causal": reach,
                "same": max((math.ceil(n / s) - 1) * s + reach + 1 - n, 0),
            }[padding.lower()]
            left = reach if padding == "causal" else zeros // 2
            axes.append((max((n + zeros - reach - 1) // s + 1, 0), left, zeros - left))
        count, before, after = zip(*axes, strict=True)
        return cls(tuple(cells), count, tuple(size), tuple(strides), rates, before, after)

    @property
    def taps(self) -> list[Tap]:
        """Places in a window, in the order of its rows."""
        return list(itertools.product(*map(range, self.size)))

    def inside(self, tap: Tap) -> np.ndarray:
        """Return whether the cell that each window sees at a tap is not padding, (1, *count, 1)."""
        return np.asarray(self.at(np.ones((1, *self.cells, 1), bool))(tap))

    @property
    def filled(self) -> np.ndarray:
        """How many of each window's cells are not padding, (1, *count, 1)."""
        return np.stack([self.inside(tap) for tap in self.taps]).sum(axis=0, dtype=np.float64)

    def at(self, x: Array) -> Callable[[Tap], Array]:
        """Return a function of a tap: the cell that each window sees there, 0 outside.

        Shapes: x (N, *cells, C), the result (N, *count, C).
        """
        padded = _padded(x, self.before, self.after)
        spans = [(n - 1) * s + 1 for n, s in zip(self.count, self.strides, strict=True)]

        def seen(tap: Tap) -> Array:
            starts = [t * d for t, d in zip(tap, self.dilation, strict=True)]
            return _slices(padded, starts, spans, self.strides)

        return seen

    def placed(self, y: Array) -> Callable[[Tap], Array]:
        """Return a function of a tap: the windows' values on the cells seen there, 0 elsewhere.

        Shapes: y (N, *count, C), the result (N, *cells, C).
        """
        spread = y
        for axis, stride in enumerate(self.strides, start=1):
            spread = _spread(spread, axis, stride)
        reach = [(k - 1) * d for k, d in zip(self.size, self.dilation, strict=True)]
        left = [max(r - b, 0) for r, b in zip(reach, self.before, strict=True)]
        ends = zip(self.before, self.cells, spread.shape[1:-1], strict=True)
        padded = _padded(spread, left, [max(b + n - length, 0) for b, n, length in ends])

        def put(tap: Tap) -> Array:
            moves = zip(left, self.before, tap, self.dilation, strict=True)
            return _slices(padded, [a + b - t * d for a, b, t, d in moves], self.cells)

        return put


def _padded(x: Array, before: Sequence[int], after: Sequence[int]) -> Array:
    if not any(before) and not any(after):
        return x
    return np.pad(x, [(0, 0), *zip(before, after, strict=True), (0, 0)])


def _slices(
    x: Array, starts: Sequence[int], spans: Sequence[int], steps: Sequence[int] | None = None
) -> Array:
    cut = zip(starts, spans, steps or [1] * len(starts), strict=True)
    return x[(slice(None), *(slice(start, start + span, step) for start, span, step in cut))]


def _spread(y: Array, axis: int, stride: int) -> Array:
    """Put stride − 1 zeros between neighbours along an axis, and after the last."""
    if stride == 1:
        return y
    apart = np.expand_dims(y, axis + 1)
    zeros = [(0, 0)] * apart.ndim
    zeros[axis + 1] = (0, stride - 1)
    return np.pad(apart, zeros).reshape(*y.shape[:axis], -1, *y.shape[axis + 1 :])
