"""Sums of rows that belong together: the transpose of looking rows up by an index."""

import numpy as np

from gradaudit.numerics.arithmetic import Array


def scatter_add(rows: Array, indices: np.ndarray, count: int) -> Array:
    """Return y with yₖ = Σ rowsᵢ over all i with indicesᵢ = k.

    Indices that stand equally often are summed together, by `sum`, with its rounding errors.

    Shapes: rows (n, ...), indices (n,) integers in [0, count), y (count, ...).
    """
    order = np.argsort(indices, kind="stable")
    found, starts, counts = np.unique(indices[order], return_index=True, return_counts=True)
    sums, place = [], np.full(count, len(found))
    for times in np.unique(counts):
        alike = counts == times
        together = order[starts[alike][:, None] + np.arange(times)]
        place[found[alike]] = sum(map(len, sums)) + np.arange(len(together))
        sums.append(rows[together].sum(axis=1))
    if not sums:
        return np.zeros_like(
            np.tile(rows.sum(axis=0, keepdims=True), (count,) + (1,) * (rows.ndim - 1))
        )
    return np.concatenate([*sums, np.zeros_like(sums[0][:1])])[place]
