"""Rules of functions that move, repeat or join elements: value, variance and kink move alike.

    y = move(a)    σ²(y) = move(σ²(a)), kink(y) = move(kink(a))

They make no rounding error. Shapes are those of NumPy. zeros_like and ones_like give exact arrays.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from gradaudit.numerics.dispatch import MOVES, handles
from gradaudit.numerics.rounded import Rounded, of_parts, operands


def _move(function: Callable[..., np.ndarray], a: Rounded, *args: Any, **options: Any) -> Rounded:
    return of_parts(lambda part: function(part, *args, **options), a)


for _function in MOVES:
    handles(_function)(partial(_move, _function))


@handles(np.concatenate)
def _concatenate(arrays: Sequence[Any], axis: int = 0) -> Rounded:
    return of_parts(lambda *parts: np.concatenate(parts, axis), *operands(*arrays))


@handles(np.stack)
def _stack(arrays: Sequence[Any], axis: int = 0) -> Rounded:
    return of_parts(lambda *parts: np.stack(parts, axis), *operands(*arrays))


@handles(np.zeros_like)
def _zeros_like(a: Rounded) -> Rounded:
    return Rounded(np.zeros(a.shape), None, None, a.precision)


@handles(np.ones_like)
def _ones_like(a: Rounded) -> Rounded:
    return Rounded(np.ones(a.shape), None, None, a.precision)
