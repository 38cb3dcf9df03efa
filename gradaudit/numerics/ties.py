"""Which subgradient is taken at an exact tie."""

import itertools
from dataclasses import dataclass
from typing import Literal

Extremes = Literal["", "first", "last", "shared"]


@dataclass(frozen=True)
class Convention:
    """A choice at exact ties that is not the framework's, and is as right.

    extremes: which of equal largest or smallest values takes the cotangent; "" for those that the
        framework chooses. turned: one-sided derivatives are those of the other side: relu has the
        slope 1 at 0.
    """

    extremes: Extremes = ""
    turned: bool = False

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
"""All of them, those that leave one-sided derivatives alone first."""
