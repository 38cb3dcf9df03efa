"""What a wrong tensor looks like, next to the right one."""

import math

import numpy as np

_CLOSE = 1e-3
"""Two tensors are alike where their difference is below this part of their norm."""


def diagnose(tape: np.ndarray, reference: np.ndarray, failed: np.ndarray, batch_size: int) -> str:
    """Return the simplest relation of wrong values to right ones, in a few words.

    Args:
        tape, reference: float64 arrays of one shape.
        failed: bool array, where they differ by more than rounding.
        batch_size: to recognise a missing or doubled mean.
    """
    if not np.isfinite(tape).all() or not np.isfinite(reference).all():
        side = "tape" if not np.isfinite(tape).all() else "reference"
        return f"the {side} is not finite in {int(np.sum(~np.isfinite(tape - reference)))} places"
    if not tape.any():
        return "the tape is zero: no gradient arrives"
    if not reference.any():
        return "the reference is zero: the loss does not depend on it"
    few = int(failed.sum())
    if few < failed.size and few <= max(1, failed.size // 10):
        index = tuple(int(i) for i in np.argwhere(failed)[0])
        return (
            f"{few} of {failed.size} weights differ, {list(index)} {_ratio(tape, reference, index)}"
        )
    factor = float(np.vdot(tape, reference) / np.vdot(reference, reference))
    if _alike(tape, factor * reference):
        return _factor(factor, batch_size)
    if tape.ndim == 2 and tape.shape[0] == tape.shape[1] and _alike(tape, reference.T):
        return "transposed"
    if _alike(np.sort(tape, axis=None), np.sort(reference, axis=None)):
        return "the right values in another order"
    return f"relative difference {_distance(tape, reference):.2g}, of no simple form"


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def _alike(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(b.any()) and _distance(a, b) < _CLOSE


def _ratio(tape: np.ndarray, reference: np.ndarray, index: tuple[int, ...]) -> str:
    if reference[index] == 0:
        return f"is {tape[index]:.3g} where 0 is right"
    return f"by a relative {tape[index] / reference[index] - 1:.2g}"


def _factor(factor: float, batch_size: int) -> str:
    known = {
        "the wrong sign": -1.0,
        "twice too large": 2.0,
        "half of what it should be": 0.5,
        "a factor ln 2 too small: a logarithm to base 2 taken for a natural one": math.log(2),
        "a factor 1/ln 2 too large: a natural logarithm taken for one to base 2": 1 / math.log(2),
        f"{batch_size} times too large: a sum over the batch for a mean": float(batch_size),
        f"{batch_size} times too small: a mean over the batch for a sum": 1.0 / batch_size,
    }
    for words, value in known.items():
        if math.isclose(factor, value, rel_tol=_CLOSE):
            return words
    if abs(factor - 1) < _CLOSE:
        return f"off by a relative {factor - 1:.2g} throughout"
    return f"a factor {factor:.6g} throughout"
