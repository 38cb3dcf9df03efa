"""`Decision`: the outcome of a comparison of `Rounded` arrays, and where rounding could turn it."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gradaudit.errors import UnsupportedFunctionError
from gradaudit.numerics.carrier import Shaped
from gradaudit.numerics.dispatch import MOVES, RULES, unsupported
from gradaudit.numerics.precision import Precision


class Decision(Shaped):
    """A bool array that knows which of its elements rounding errors could turn.

    value: bool array, the outcome in float64.
    doubtful: bool array of value's shape, true where the framework may have decided otherwise.
    precision: the precision of the compared arrays.
    """

    __slots__ = ("doubtful", "precision")

    carries = "doubt"
    __array_ufunc__ = None

    def __init__(self, value: np.ndarray, doubtful: np.ndarray, precision: Precision) -> None:
        self.value, self.doubtful, self.precision = value, doubtful, precision

    def __and__(self, other: "Decision | np.ndarray") -> "Decision":
        """Combine two conditions: doubt on one side is void where the other is surely false."""
        value, doubtful = (
            (other.value, other.doubtful)
            if isinstance(other, Decision)
            else (other, np.zeros((), bool))
        )
        undecided = (self.doubtful & (value | doubtful)) | (doubtful & (self.value | self.doubtful))
        return Decision(self.value & value, undecided, self.precision)

    def __or__(self, other: "Decision | np.ndarray") -> "Decision":
        return ~(~self & ~other)

    def __invert__(self) -> "Decision":
        return Decision(~self.value, self.doubtful, self.precision)

    def __bool__(self) -> bool:
        raise UnsupportedFunctionError(
            "a comparison of Rounded arrays was used as a truth value, which drops its doubt: "
            "rounding errors could turn it. Choose with np.where(a > b, ...)."
        )

    def __getitem__(self, key: Any) -> "Decision":
        return self._moved(lambda part: part[key])

    def _moved(self, move: Callable[[np.ndarray], np.ndarray]) -> "Decision":
        return Decision(move(self.value), move(self.doubtful), self.precision)

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any
    ) -> Any:
        if function is np.where:
            return RULES[np.where](*args, **kwargs)
        if function in MOVES and args and args[0] is self:
            return self._moved(lambda part: function(part, *args[1:], **kwargs))
        raise unsupported(f"numpy.{function.__name__} of a comparison")
