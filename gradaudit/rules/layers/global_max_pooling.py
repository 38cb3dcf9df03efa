"""GlobalMaxPooling1D, GlobalMaxPooling2D and GlobalMaxPooling3D."""

import numpy as np
from keras import layers

from gradaudit.rules.layers.channels import FIRST
from gradaudit.rules.layers.pooling import all_cells
from gradaudit.rules.registry import Case, rule

_Pool1D = layers.GlobalMaxPooling1D
_Pool2D = layers.GlobalMaxPooling2D
_Pool3D = layers.GlobalMaxPooling3D


@rule(
    _Pool1D,
    cases=[
        Case("channels last", lambda: _Pool1D(), (2, 5, 3), kinks=(0.0,)),
        Case("dimensions kept", lambda: _Pool1D(keepdims=True), (2, 5, 3), ties=True),
        Case("channels first", lambda: _Pool1D(**FIRST), (2, 3, 5), ties=True),
        Case("one cell", lambda: _Pool1D(), (2, 1, 3)),
    ],
    source="keras/src/layers/pooling/global_max_pooling1d.py",
)
@rule(
    _Pool2D,
    cases=[
        Case("channels last", lambda: _Pool2D(), (2, 4, 3, 3), kinks=(0.0,)),
        Case("dimensions kept", lambda: _Pool2D(keepdims=True), (2, 4, 3, 3), ties=True),
        Case("channels first", lambda: _Pool2D(keepdims=True, **FIRST), (2, 3, 4, 2), ties=True),
    ],
    source="keras/src/layers/pooling/global_max_pooling2d.py",
)
@rule(
    _Pool3D,
    cases=[
        Case("channels last", lambda: _Pool3D(), (2, 2, 3, 2, 3), kinks=(0.0,)),
        Case("dimensions kept", lambda: _Pool3D(keepdims=True), (2, 2, 3, 2, 3), ties=True),
        Case("channels first", lambda: _Pool3D(**FIRST), (2, 3, 2, 3, 2), ties=True),
    ],
    source="keras/src/layers/pooling/global_max_pooling3d.py",
)
def global_max_pooling(call, x):
    """Apply y = the largest of all cells of a channel.

    Shapes: x (N, *cells, C), y (N, C), with 1 in the place of each of cells where they are kept;
            channels first: x (N, C, *cells).
    VJP:    dx = dy / m at the m cells that are largest, 0 elsewhere.
    Kinks:  where the largest value stands twice: each place has an equal part of the cotangent.
    """
    cells, axis, shape = all_cells(call.layer, x)
    n = cells.shape[axis]
    if n == 1:
        return x.reshape(shape), lambda dy: (dy.reshape(x.shape), {})
    ordered = np.moveaxis(np.sort(cells, axis=axis), axis, 0)
    numbers = call.numbers(cells)
    is_first = np.moveaxis(np.argmax(numbers, axis) == np.arange(n).reshape(-1, 1, 1), 0, axis)
    # A cell is compared with the largest of the others: with itself it would always be in doubt.
    rival = np.where(
        is_first, np.expand_dims(ordered[n - 2], axis), np.expand_dims(ordered[n - 1], axis)
    )
    # Cells that are equal to the last digit were made alike: see max_pool.
    wins = (cells >= rival) | (numbers == call.numbers(rival))
    winners = call.array(call.numbers(wins).sum(axis=axis, keepdims=True))

    def vjp(dy):
        dy = np.expand_dims(dy.reshape(ordered.shape[1:]), axis)
        # Where a tie is in doubt, a cell may have any part of dy.
        part = np.where(wins, dy / winners, dy)
        return np.where(wins, part, 0.0).reshape(x.shape), {}

    return ordered[n - 1].reshape(shape), vjp
