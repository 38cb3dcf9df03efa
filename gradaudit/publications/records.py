"""Published numbers, and what became of them. No logic."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Claim:
    """A published number about a net.

    model, quantity, index: which number; index counts from 0 and is () for a scalar.
    printed: as text. decimals: how many digits behind the point count.
    given: what it was computed from, in words.
    """

    model: str
    quantity: str
    index: tuple[int, ...]
    printed: str
    decimals: int
    given: str

    @property
    def number(self) -> float:
        """The printed number."""
        return float(self.printed)

    @property
    def unit(self) -> float:
        """One unit of the last digit."""
        return 10.0**-self.decimals


@dataclass(frozen=True)
class CheckedClaim:
    """A claim, recomputed.

    recomputed: None where that is impossible.
    verdict: "agrees", "cut" (the digits are right, the rest was dropped instead of rounded),
        "disagrees" or "cannot be checked".
    diagnosis: what a disagreement looks like, or why it cannot be checked.
    """

    claim: Claim
    recomputed: float | None
    verdict: str
    diagnosis: str


@dataclass(frozen=True)
class Recomputed:
    """The numbers of a group of claims, recomputed: arrays with one element a claim.

    value: NaN where it is not known. doubt: the largest error of the value. known: whether it is.
    taken: names of quantities that the net leaves open, and whose printed numbers were used.
    """

    value: np.ndarray
    doubt: np.ndarray
    known: np.ndarray
    taken: tuple[str, ...] = ()
