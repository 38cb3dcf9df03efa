"""Sums of rows by an index: the transpose of a lookup of rows (gather)."""

from typing import Any

import numpy as np

from gradaudit.numerics.arithmetic import Array


def scatter_add(rows: Array, indices: np.ndarray, count: int) -> Array:
    """Return y with yₖ = Σ rowsᵢ over all i with indicesᵢ = k.

    Error: that of `sum` over the rows of each k. All k with the same number of rows are summed in
    one call. A yₖ without rows is 0, exactly.

    Shapes: rows (n, ...), indices (n,) integers in [0, count), y (count, ...).
    """
    order = np.argsort(indices, kind="stable")
    found, starts, counts = np.unique(indices[order], return_index=True, return_counts=True)
    sums: list[Any] = [rows[:0].sum(axis=0, keepdims=True)]
    place = np.zeros(count, np.intp)
    for times in np.unique(counts):
        alike = counts == times
        together = order[starts[alike][:, None] + np.arange(times)]
        place[found[alike]] = sum(map(len, sums)) + np.arange(len(together))
        sums.append(rows[together].sum(axis=1))
    return np.concatenate(sums)[place]
