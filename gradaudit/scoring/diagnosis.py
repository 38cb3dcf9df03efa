"""Describes how a wrong tensor differs from the right one."""

import math
from collections.abc import Callable, Sequence

import numpy as np

_CLOSE = 1e-3
"""Two tensors are alike where the 2-norm of their difference is below this part of the norm."""


def diagnose(tape: np.ndarray, reference: np.ndarray, failed: np.ndarray, batch_size: int) -> str:
    """Return the simplest relation of wrong values to right ones.

    Args:
        tape: float64 array.
        reference: float64 array of the same shape.
        failed: bool array, where they differ by more than rounding.
        batch_size: to recognise a sum over the batch in place of a mean, or the reverse.
    """
    if not np.isfinite(tape).all() or not np.isfinite(reference).all():
        side = "tape" if not np.isfinite(tape).all() else "reference"
        return f"the {side} is not finite in {int(np.sum(~np.isfinite(tape - reference)))} places"
    if not tape.any():
        return "the tape is zero: no gradient arrives"
    if not reference.any():
        return "the reference is zero: the loss does not depend on it"
    return relation(tape, reference, failed, batch_size, _alike)


def relation(
    wrong: np.ndarray,
    right: np.ndarray,
    failed: np.ndarray,
    batch_size: int,
    alike: Callable[[np.ndarray, np.ndarray], bool],
    digits: int = 6,
    names: Sequence[str] | None = None,
) -> str:
    """Return the simplest relation of wrong values to right ones.

    Args:
        wrong: float64 array.
        right: float64 array of the same shape.
        failed: bool array, where they differ by more than rounding.
        batch_size: rows of the batch.
        alike: whether two arrays agree to the precision that is known.
        digits: known digits of a factor; 0 to name only the factors that have a cause of their own.
        names: of the elements, to be used in place of their indices.
    """
    few = int(failed.sum())
    if few < failed.size and few <= max(1, failed.size // 10):
        index = tuple(int(i) for i in np.argwhere(failed)[0])
        flat = int(np.flatnonzero(failed)[0])
        name = str(list(index)) if names is None else names[flat]
        return f"{few} of {failed.size} values differ, {name} {_ratio(wrong, right, index)}"
    if alike(wrong, -right):
        return "the wrong sign"
    for words, known in _known_factors(batch_size).items():
        if alike(wrong, known * right):
            return words
        if alike(wrong, -known * right):
            return f"the wrong sign, and {words}"
    factor = float(np.vdot(wrong, right) / np.vdot(right, right))
    if digits and alike(wrong, factor * right):
        if abs(factor - 1) < _CLOSE:
            return f"off by a relative {factor - 1:.2g} throughout"
        told = f"{factor:.{digits}g}"
        if not alike(wrong, float(told) * right):
            told = f"{factor:.{digits + 1}g}"
        return f"a factor {told} throughout"
    if wrong.ndim == 2 and wrong.shape[0] == wrong.shape[1] and alike(wrong, right.T):
        return "transposed"
    ordered = (np.sort(each, axis=None).reshape(right.shape) for each in (wrong, right))
    if alike(*ordered):
        return "the right values in another order"
    difference = f"relative difference {_distance(wrong, right):.2g}"
    return f"{difference}: no constant factor, sign, permutation or single weight explains it"


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def _alike(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(b.any()) and _distance(a, b) < _CLOSE


def _ratio(tape: np.ndarray, reference: np.ndarray, index: tuple[int, ...]) -> str:
    if reference[index] == 0:
        return f"is {tape[index]:.3g} where 0 is right"
    return f"by a relative {tape[index] / reference[index] - 1:.2g}"


def _known_factors(batch_size: int) -> dict[str, float]:
    known = {
        "twice too large": 2.0,
        "half of what it should be": 0.5,
        "a factor ln 2 too small: a natural logarithm for one to base 2": math.log(2),
        "a factor 1/ln 2 too large: a logarithm to base 2 for a natural one": 1 / math.log(2),
        "a factor ln 10 too small: a logarithm to base 10 for a natural one": 1 / math.log(10),
        "a factor ln 10 too large: a natural logarithm for one to base 10": math.log(10),
    }
    if batch_size > 1:
        known |= {
            f"{batch_size} times too large: a sum over the batch for a mean": float(batch_size),
            f"{batch_size} times too small: a mean over the batch for a sum": 1.0 / batch_size,
        }
    return known
