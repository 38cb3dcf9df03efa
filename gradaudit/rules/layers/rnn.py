"""StackedRNNCells and RNN."""

from keras import layers

from gradaudit.rules.context import summed
from gradaudit.rules.layers.families.recurrent import (
    MASK,
    recurrence,
    recurrence_gaps,
    recurrence_mask,
    state_sizes,
)
from gradaudit.rules.registry import Case, rule


def _two():
    return [
        layers.LSTMCell(2, dropout=0.4, seed=1),
        layers.SimpleRNNCell(3, recurrent_dropout=0.3, seed=2),
    ]


def _step(cell, x, h, c, g, **arguments):
    return cell(x, [[h, c], g], **arguments)


@rule(
    layers.StackedRNNCells,
    cases=[
        Case(
            "two",
            lambda: layers.StackedRNNCells([layers.LSTMCell(2), layers.SimpleRNNCell(3)]),
            ((4, 3), (4, 2), (4, 2), (4, 3)),
            apply=_step,
        ),
    ],
    source="keras/src/layers/rnn/stacked_rnn_cells.py",
)
def stacked_rnn_cells(call, x):
    """Apply each cell to the output of the one before.

    Shapes: (x (N, I), *states of the first cell, *of the second, ...); y (output of the last, *new
            states of the first, ...).
    VJP:    from the last cell to the first: dx of one is d output of the one before.
    Kinks:  those of the cells.
    """
    out, *states = x
    cells = call.layer.cells
    drawn = call.arguments.get("dropout_masks", [(None, None)] * len(cells))
    made, vjps = [], []
    for cell, masks in zip(cells, drawn, strict=True):
        count = len(state_sizes(cell))
        own, states = states[:count], states[count:]
        (out, *new), cell_vjp = call.within(cell, (out, *own), dropout_masks=masks)
        made += new
        vjps.append((cell_vjp, count))

    def vjp(dy):
        dout, *dnew = dy
        dstates, cotangents = [], {}
        for cell_vjp, count in reversed(vjps):
            (dout, *before), part = cell_vjp((dout, *dnew[-count:]))
            dnew, dstates = dnew[:-count], before + dstates
            cotangents = summed(cotangents, part)
        return (dout, *dstates), cotangents

    return (out, *made), vjp


rule(
    layers.RNN,
    cases=[
        Case("one cell", lambda: layers.RNN(layers.GRUCell(2), unroll=True), (3, 4, 3)),
        Case(
            "stacked cells with dropout, mask",
            lambda: layers.RNN(_two(), return_state=True, return_sequences=True),
            (4, 4, 3),
            arguments={"mask": MASK},
        ),
        Case(
            "stacked cells from a state, zeros where masked",
            lambda: layers.RNN(_two(), zero_output_for_mask=True, return_sequences=True),
            ((4, 4, 3), (4, 2), (4, 2), (4, 3)),
            arguments={"mask": MASK},
            apply=lambda layer, x, h, c, g, **a: layer(x, initial_state=[[h, c], [g]], **a),
        ),
    ],
    source="keras/src/layers/rnn/rnn.py",
    mask=recurrence_mask,
    gaps=recurrence_gaps,
)(recurrence)
