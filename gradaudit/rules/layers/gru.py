"""GRUCell and GRU."""

import functools

import numpy as np
from keras import layers

from gradaudit.rules.context import apply_activation
from gradaudit.rules.layers.families.recurrent import (
    MASK,
    cell_gaps,
    from_state,
    recurrence,
    recurrence_gaps,
    recurrence_mask,
    step,
)
from gradaudit.rules.primitives.projection import project
from gradaudit.rules.registry import Case, rule

_CELL = ((4, 3), (4, 2))


@rule(
    layers.GRUCell,
    cases=[
        Case("reset after", lambda: layers.GRUCell(2), _CELL, apply=step),
        Case("reset before", lambda: layers.GRUCell(2, reset_after=False), _CELL, apply=step),
        Case(
            "gate by gate, other activations",
            lambda: layers.GRUCell(
                2, activation="softmax", recurrent_activation="softplus", implementation=1
            ),
            _CELL,
            apply=step,
        ),
        Case("no bias", lambda: layers.GRUCell(2, use_bias=False), _CELL, apply=step),
    ],
    source="keras/src/layers/rnn/gru.py",
    weights=("kernel", "recurrent_kernel", "bias"),
    gaps=cell_gaps,
)
def gru_cell(call, x):
    """Apply h' = u h + (1 − u) g with gates u = σ(a_u + b_u), r = σ(a_r + b_r), g = φ(a_g + b_g).

    a = x @ kernel + bias[0], columns in the order u, r, g; b = h @ recurrent_kernel + bias[1] with
    reset_after, and b_g is r times its columns of g; without it b = h @ recurrent_kernel, and b_g =
    (r h) @ recurrent_kernel.

    Shapes: (x (N, I), h (N, U)); kernel (I, 3U), recurrent_kernel (U, 3U), bias (2, 3U) with
            reset_after, (3U,) without; y (h', h').
    VJP:    dh' = the sum of both; du = h dh' − g dh', dg = (1 − u) dh', dh = u dh'; da = (da_u,
            da_r, da_g) by σ' and φ'; dr = b_g da_g or h times d(r h); dx = da kernelᵀ, dkernel = xᵀ
            da, dbias[0] = Σₙ da; db likewise, by h.
    Kinks:  those of the activations.
    Gaps:   dropout without an RNN around it, whose first masks stay.
    """
    x, h = x
    cell, bias = call.layer, call.weights.get("bias")
    kernel, recurrent, n = call.weights["kernel"], call.weights["recurrent_kernel"], cell.units
    of_x, of_h = call.arguments.get("dropout_masks", (None, None))
    after = cell.reset_after
    a, a_vjp = project(x, kernel, of_x)
    split = 3 if after else 2
    b, b_vjp = project(h, recurrent[:, : split * n], of_h and of_h[:split])
    if bias is not None:
        a = a + (bias[0] if after else bias)
        b = b + bias[1] if after else b
    activate = functools.partial(apply_activation, misleads=call.misleads)
    u, u_vjp = activate(cell.recurrent_activation, a[:, :n] + b[:, :n])
    r, r_vjp = activate(cell.recurrent_activation, a[:, n : 2 * n] + b[:, n : 2 * n])
    if after:
        bg = r * b[:, 2 * n :]
    else:
        kept = h if of_h is None else h * of_h[2]
        bg, bg_vjp = project(r * kept, recurrent[:, 2 * n :], None)
    g, g_vjp = activate(cell.activation, a[:, 2 * n :] + bg)

    def vjp(dy):
        dh_new = dy[0] + dy[1]
        du = u_vjp(dh_new * h - dh_new * g)
        dg = g_vjp(dh_new * (1 - u))
        dh = dh_new * u
        if after:
            dr = r_vjp(dg * b[:, 2 * n :])
            da, db = np.concatenate([du, dr, dg], axis=1), np.concatenate([du, dr, dg * r], axis=1)
            dh_gates, drecurrent = b_vjp(db)
        else:
            dproduct, dcolumns = bg_vjp(dg)
            dr = r_vjp(dproduct * kept)
            da, db = np.concatenate([du, dr, dg], axis=1), np.concatenate([du, dr], axis=1)
            dkept = dproduct * r
            dh = dh + (dkept if of_h is None else dkept * of_h[2])
            dh_gates, drecurrent = b_vjp(db)
            drecurrent = np.concatenate([drecurrent, dcolumns], axis=1)
        dx, dkernel = a_vjp(da)
        cotangents = {"kernel": dkernel, "recurrent_kernel": drecurrent}
        if bias is not None:
            dbias = da.sum(axis=0)
            cotangents["bias"] = np.stack([dbias, db.sum(axis=0)]) if after else dbias
        return (dx, dh + dh_gates), cotangents

    return (u * h + (1 - u) * g,) * 2, vjp


rule(
    layers.GRU,
    cases=[
        Case("last output", lambda: layers.GRU(2), (3, 4, 3)),
        Case(
            "mask, backwards",
            lambda: layers.GRU(2, return_sequences=True, return_state=True, go_backwards=True),
            (4, 4, 3),
            arguments={"mask": MASK},
        ),
        Case(
            "unrolled from a state",
            lambda: layers.GRU(2, unroll=True, reset_after=False),
            ((3, 4, 3), (3, 2)),
            apply=from_state,
        ),
        Case("dropout", lambda: layers.GRU(2, dropout=0.4, seed=3), (3, 4, 3)),
        Case(
            "dropout of both",
            lambda: layers.GRU(3, dropout=0.4, recurrent_dropout=0.3, seed=4),
            (3, 4, 4),
        ),
        Case(
            "recurrent dropout, reset before",
            lambda: layers.GRU(3, recurrent_dropout=0.3, reset_after=False, seed=4),
            (3, 4, 4),
        ),
        Case("50 steps", lambda: layers.GRU(3, return_sequences=True), (4, 50, 2)),
    ],
    source="keras/src/layers/rnn/gru.py",
    mask=recurrence_mask,
    gaps=recurrence_gaps,
)(recurrence)
