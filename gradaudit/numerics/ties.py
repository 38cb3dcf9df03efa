"""Which subgradient is taken at an exact tie, and which side where rounding decides."""

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np


def _mixed(bits: np.ndarray) -> np.ndarray:
    """Return 64-bit numbers whose bits all depend on all bits (D. Stafford's mix13, 2011)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


Extremes = Literal["", "first", "last", "shared"]


@dataclass(frozen=True)
class Convention:
    """A choice at exact ties that is not the framework's, and is as right.

    extremes: which of equal largest or smallest values takes the cotangent; "" for those that the
        framework chooses. turned: one-sided derivatives are those of the other side: relu has the
        slope 1 at 0.
    draw, half: where rounding errors decide a comparison, its outcome is turned for half of the
        pairs of operands, drawn at random, or for the other half; None to leave it in doubt.
    """

    extremes: Extremes = ""
    turned: bool = False
    draw: int | None = None
    half: bool = False

    def turns(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return which outcomes are turned, in the shape of the operands.

        It depends on the two numbers alone, in any order, so that the way forward and the way back
        choose alike.
        """
        first, second = (_mixed(np.asarray(part, np.float64).view(np.uint64)) for part in (a, b))
        drawn = _mixed(first + second + np.uint64(0 if self.draw is None else self.draw))
        return ((drawn >> np.uint64(40)) & np.uint64(1)).astype(bool) ^ self.half

    @property
    def words(self) -> str:
        """The choice in words."""
        parts = {
            "first": "the first of equal values takes all",
            "last": "the last of equal values takes all",
            "shared": "equal values take equal parts",
        }
        of_side = ["the derivative of the other side"] if self.turned else []
        return " and ".join([*filter(None, [parts.get(self.extremes)]), *of_side])


_ALL: tuple[Extremes, ...] = ("", "first", "last", "shared")
CONVENTIONS = tuple(Convention(e, t) for t, e in itertools.product((False, True), _ALL) if e or t)
"""All choices at exact ties, those that leave one-sided derivatives alone first."""

TURNED = tuple(Convention(draw=draw, half=half) for draw in (1, 2) for half in (False, True))
"""Each doubtful comparison is turned in two of them, in others than its neighbours."""
