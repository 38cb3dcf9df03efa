"""Verdicts on printed numbers, which are known to their last digit only."""

from collections.abc import Sequence

import numpy as np

from gradaudit.scoring import relation

AGREES, CUT, DISAGREES, NOT_CHECKED = "agrees", "cut", "disagrees", "cannot be checked"

_TELLING, _ONE_TELLING = 20, 100
"""Units of the last digit that a number needs to tell one named factor from another: they are at
least 13 % apart (2 and ln 10). A single number needs more: it may be near one of them by chance."""

_BINARY = 1e-9
"""Decimals miss each other by at most this part of a unit as binary numbers."""


def claim_verdict(printed: float, unit: float, value: float, doubt: float) -> str:
    """Return whether a printed number is what was recomputed.

    It agrees if it is the rounded value, or less than one unit of its last digit away. It is cut if
    it is less than a unit short and not the rounded value. A value with a rounding error may have
    been cut just below a decimal: 0.57 · 0.2 is 0.11399999999999999. NaN and the infinities agree
    with themselves alone.

    Args:
        printed: the published number.
        unit: of its last digit.
        value: the recomputed number.
        doubt: the largest rounding error of the value.

    Returns:
        AGREES, CUT or DISAGREES.
    """
    if not (np.isfinite(printed) and np.isfinite(value)):
        return AGREES if printed == value or np.isnan([printed, value]).all() else DISAGREES
    difference, short = abs(printed - value), abs(value) - abs(printed)
    if difference <= unit / 2 * (1 + _BINARY) + doubt:
        return AGREES
    below = short < unit * (1 - _BINARY) or (doubt > 0 and short <= unit * (1 + _BINARY) + doubt)
    if printed * value >= 0 and short >= 0 and below:
        return CUT
    return AGREES if within_a_unit(printed, unit, value, doubt) else DISAGREES


def within_a_unit(
    printed: np.ndarray | float,
    unit: np.ndarray | float,
    value: np.ndarray | float,
    doubt: np.ndarray | float,
) -> bool:
    """Return whether all printed numbers are less than one unit away from the values."""
    apart = np.abs(printed - value) < unit * (1 - _BINARY) + doubt
    return bool(np.all(apart & np.isfinite(doubt)))


def diagnose_claims(
    printed: np.ndarray,
    allowed: np.ndarray,
    value: np.ndarray,
    rows: int,
    names: Sequence[str] | None = None,
) -> str:
    """Return the simplest relation of printed numbers to recomputed ones, in a few words.

    Args:
        printed: float64, any shape.
        allowed: of that shape; a number is right if it is off by less.
        value: of that shape, the recomputed numbers.
        rows: of the batch, to recognise a missing mean.
        names: of the numbers, if the arrays are not whole tensors.
    """
    if not printed.any() or not value.any():
        return "zero is printed" if not printed.any() else "zero is right"
    known = float(np.max(np.abs(printed) / allowed))  # of the number with most digits

    telling = known >= (_TELLING if printed.size > 1 else _ONE_TELLING)

    def alike(a: np.ndarray, b: np.ndarray) -> bool:
        return telling and within_a_unit(a, allowed, b, 0.0)

    failed = np.abs(printed - value) >= allowed
    # Any number is some multiple of any other.
    digits = int(np.log10(max(known, 1.0))) if printed.size > 1 else 0
    return relation(printed, value, failed, rows, alike, min(digits, 6), names)
