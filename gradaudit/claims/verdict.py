"""Published numbers against recomputed ones: what print says is known to its last digit only."""

import numpy as np

from gradaudit.compare import relation

_TELLING = 0.05
"""A number has digits enough where one unit of the last is at most this part of it."""

AGREES, CUT, DISAGREES, NOT_CHECKED = "agrees", "cut", "disagrees", "cannot be checked"


def claim_verdict(printed: float, unit: float, value: float, doubt: float) -> str:
    """Return whether a printed number is what was recomputed.

    printed agrees within one unit of its last digit, and is cut where it lies towards zero and is
    not the value rounded. unit: one in the last digit. doubt: by how much rounding may have moved
    the value.
    """
    if abs(printed - value) <= unit / 2 + doubt:
        return AGREES
    short = abs(value) - abs(printed)
    if printed * value >= 0 and -doubt <= short <= unit + doubt:
        return CUT
    return AGREES if within_a_unit(printed, unit, value, doubt) else DISAGREES


def within_a_unit(
    printed: np.ndarray | float,
    unit: np.ndarray | float,
    value: np.ndarray | float,
    doubt: np.ndarray | float,
) -> bool:
    """Return whether all printed numbers are within one unit of the values."""
    return bool(np.all(np.abs(printed - value) <= unit + doubt))


def diagnose_claims(printed: np.ndarray, allowed: np.ndarray, value: np.ndarray, rows: int) -> str:
    """Return the simplest relation of printed numbers to recomputed ones, in a few words.

    Args:
        printed, allowed, value: float64 arrays of one shape; a number is the right one where it is
            off by no more than what is allowed.
        rows: of the batch, to recognise a missing mean.
    """
    # A single number of one or two digits is near any simple multiple of another.
    telling = printed.size > 1 or np.all(allowed <= _TELLING * np.abs(printed))

    def alike(a: np.ndarray, b: np.ndarray) -> bool:
        return bool(telling) and within_a_unit(a, allowed, b, 0.0)

    known = float(np.max(np.abs(printed) / allowed))  # in the number with most digits
    digits = min(max(int(np.log10(max(known, 1.0))), 1), 6)
    return relation(printed, value, np.abs(printed - value) > allowed, rows, alike, digits)
