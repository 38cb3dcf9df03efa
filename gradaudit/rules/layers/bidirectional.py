"""Bidirectional."""

import numpy as np
from keras import layers

from gradaudit.rules.context import summed
from gradaudit.rules.layers.families.recurrent import MASK, from_state
from gradaudit.rules.registry import Case, rule


def _mask(call, x, mask):
    """Return the mask of the outputs, of both without a merge_mode; states have none."""
    found = mask[0] if isinstance(mask, list) else mask
    found = found if call.layer.return_sequences else None
    return found if call.layer.merge_mode else (found, found)


@rule(
    layers.Bidirectional,
    cases=[
        Case(
            "concat, mask",
            lambda: layers.Bidirectional(layers.LSTM(2, return_sequences=True)),
            (4, 4, 3),
            arguments={"mask": MASK},
        ),
        Case(
            "sum, unrolled, mask",
            lambda: layers.Bidirectional(layers.GRU(2, return_sequences=True, unroll=True), "sum"),
            (4, 4, 3),
            arguments={"mask": MASK},
        ),
        Case(
            "product, states",
            lambda: layers.Bidirectional(layers.LSTM(2, return_state=True), "mul"),
            ((3, 4, 3), (3, 2), (3, 2), (3, 2), (3, 2)),
            apply=from_state,
        ),
        Case(
            "mean, dropout",
            lambda: layers.Bidirectional(layers.SimpleRNN(2, dropout=0.4, seed=2), "ave"),
            (3, 4, 3),
        ),
        Case(
            "stacked cells, mask",
            lambda: layers.Bidirectional(
                layers.RNN([layers.LSTMCell(2), layers.SimpleRNNCell(3)], return_sequences=True)
            ),
            (4, 4, 3),
            arguments={"mask": MASK},
        ),
        Case(
            "stacked cells from a state",
            lambda: layers.Bidirectional(
                layers.RNN([layers.GRUCell(2), layers.SimpleRNNCell(3)], return_state=True)
            ),
            ((4, 4, 3), (4, 2), (4, 3), (4, 2), (4, 3)),
            apply=from_state,
        ),
        Case(
            "both, a backward layer of its own",
            lambda: layers.Bidirectional(
                layers.SimpleRNN(2, return_sequences=True, return_state=True),
                merge_mode=None,
                backward_layer=layers.GRU(
                    2, return_sequences=True, return_state=True, go_backwards=True
                ),
            ),
            (3, 4, 3),
        ),
    ],
    source="keras/src/layers/rnn/bidirectional.py",
    mask=_mask,
)
def bidirectional(call, x):
    """Apply a recurrent layer and one that goes backwards, and merge their outputs.

    All outputs of the latter are turned around in time. merge_mode: "concat" (f, b), "sum" f + b,
    "ave" (f + b) / 2, "mul" f b, None both.

    Shapes: x (N, T, I), or (x, *states forward, *states backward); y (N, U) or (N, T, U), 2 U
            columns with "concat"; the states of both follow.
    VJP:    df and db are the halves of dy; dy; dy / 2; b dy and f dy; those given. Then by the
            VJPs of both, whose dx are added.
    Kinks:  those of the layers.
    """
    layer, mode = call.layer, call.layer.merge_mode
    sequence, *states = x if isinstance(x, tuple) else (x,)
    given = {k: v for k, v in call.arguments.items() if k == "mask"}
    made, vjps = [], []
    half = len(states) // 2
    for part, own in ((layer.forward_layer, states[:half]), (layer.backward_layer, states[half:])):
        y, part_vjp = call.within(part, (sequence, *own) if own else sequence, **given)
        made.append(y if isinstance(y, tuple) else (y,))
        vjps.append(part_vjp)
    (f, *f_states), (b, *b_states) = made
    turned = layer.return_sequences
    b = np.flip(b, axis=1) if turned else b

    def vjp(dy):
        dy, *dstates = dy if isinstance(dy, tuple) else (dy,)
        if mode is None:
            df, (db, *dstates) = dy, dstates
        elif mode == "concat":
            df, db = dy[..., : f.shape[-1]], dy[..., f.shape[-1] :]
        elif mode == "mul":
            df, db = dy * b, dy * f
        else:
            df = db = dy / 2 if mode == "ave" else dy
        db = np.flip(db, axis=1) if turned else db
        count = len(f_states)
        given = [(df, *dstates[:count]), (db, *dstates[count:])]
        found = [v(d if layer.return_state else d[0]) for v, d in zip(vjps, given, strict=True)]
        (df, of_f), (db, of_b) = found
        cotangents = summed(of_f, of_b)
        if not states:
            return df + db, cotangents
        return (df[0] + db[0], *df[1:], *db[1:]), cotangents

    merged = {
        "concat": lambda: np.concatenate([f, b], axis=-1),
        "sum": lambda: f + b,
        "ave": lambda: (f + b) / 2,
        "mul": lambda: f * b,
    }
    y = (f, b) if mode is None else (merged[mode](),)
    y = (*y, *f_states, *b_states)
    return y if len(y) > 1 else y[0], vjp
