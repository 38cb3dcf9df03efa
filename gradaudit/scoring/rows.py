"""Which single weights of a tensor a report has a row of, and where the rows go."""

from typing import Literal, Protocol

import numpy as np

from gradaudit.records import WeightRows
from gradaudit.scoring.elements import PASS, UNJUDGED

RowsPerTensor = int | Literal["all"] | None
"""Most rows of a tensor, those with the largest z; "all" rows; None for those of `chosen`."""

WHOLE = 1_000
"""Tensors of up to this many weights have all their rows where nothing else is asked for."""

WORST = 20
"""Rows that a larger tensor has of weights that pass."""


class RowSink(Protocol):
    """Takes the rows of the step that is being judged, tensor by tensor."""

    def begin(self) -> None:
        """Forget rows of a step that was not finished: it is judged anew, or another one is."""

    def add(self, rows: WeightRows) -> None:
        """Take the rows of one tensor."""


class _NoRows:
    def begin(self) -> None:
        """Do nothing."""

    def add(self, rows: WeightRows) -> None:
        """Do nothing."""


NO_ROWS = _NoRows()
"""Takes rows, and keeps none."""


def most_rows(size: int, rows_per_tensor: RowsPerTensor) -> int | None:
    """Return how many weights that pass have a row at most; None for all."""
    if rows_per_tensor == "all":
        return None
    most = WHOLE if rows_per_tensor is None else rows_per_tensor
    if size <= most:
        return None
    return WORST if rows_per_tensor is None else most


def chosen(
    z: np.ndarray, verdicts: np.ndarray, rows_per_tensor: RowsPerTensor
) -> np.ndarray | None:
    """Return the positions of the weights that have a row, ascending; None for all.

    By default these are all weights of a tensor of up to WHOLE; of a larger one those that are
    judged and do not pass, and the WORST ones of all.

    z, verdicts: of all weights, flat; positions in `list(Verdict)`.
    """
    most = most_rows(z.size, rows_per_tensor)
    if most is None:
        return None
    places = largest(np.nan_to_num(z), most)
    if rows_per_tensor is None:
        others = np.flatnonzero((verdicts != PASS) & (verdicts != UNJUDGED))
        places = np.union1d(places, others)
    return places


def largest(z: np.ndarray, count: int) -> np.ndarray:
    """Return the positions of the `count` largest of some numbers, or of all, ascending."""
    if z.size <= count:
        return np.arange(z.size)
    return np.sort(np.argpartition(-z, count - 1)[:count])


def left_out_words(rows_per_tensor: RowsPerTensor) -> str:
    """Return which tensors have not all their rows, and which they have."""
    if rows_per_tensor is None:
        return (
            f"{WHOLE} weights, those that do not pass and the {WORST} with the largest z are kept"
        )
    return f"{rows_per_tensor} weights, those with the largest z are kept"
