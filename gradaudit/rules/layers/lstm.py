"""LSTMCell and LSTM."""

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

_CELL = ((4, 3), (4, 2), (4, 2))


@rule(
    layers.LSTMCell,
    cases=[
        Case("tanh", lambda: layers.LSTMCell(2), _CELL, apply=step),
        Case(
            "gate by gate, other activations",
            lambda: layers.LSTMCell(
                2, activation="softmax", recurrent_activation="softplus", implementation=1
            ),
            _CELL,
            apply=step,
        ),
        Case("no bias", lambda: layers.LSTMCell(2, use_bias=False), _CELL, apply=step),
    ],
    source="keras/src/layers/rnn/lstm.py",
    weights=("kernel", "recurrent_kernel", "bias"),
    gaps=cell_gaps,
)
def lstm_cell(call, x):
    """Apply c' = f c + i g, h' = o φ(c') with gates i, f, o = σ(zᵢ), σ(z_f), σ(zₒ), g = φ(z_g).

    z = x @ kernel + h @ recurrent_kernel + bias, its columns in the order i, f, g, o.

    Shapes: (x (N, I), h (N, U), c (N, U)); kernel (I, 4U), recurrent_kernel (U, 4U), bias (4U,);
            y (h', h', c').
    VJP:    dh' = the sum of both; dc' += φ'(c') o dh'; do = φ(c') dh'; di = g dc', dg = i dc',
            df = c dc', dc = f dc'; dz by σ' and φ'; dx = dz kernelᵀ, dh = dz recurrent_kernelᵀ,
            dkernel = xᵀ dz, drecurrent_kernel = hᵀ dz, dbias = Σₙ dz.
    Kinks:  those of the activations.
    Gaps:   dropout without an RNN around it, whose first masks stay.
    """
    x, h, c = x
    cell, weights, bias = call.layer, call.weights, call.weights.get("bias")
    of_x, of_h = call.arguments.get("dropout_masks", (None, None))
    zx, x_vjp = project(x, weights["kernel"], of_x)
    zh, h_vjp = project(h, weights["recurrent_kernel"], of_h)
    first = bias is not None and cell.implementation == 1
    z = (zx + bias if first else zx) + zh
    z = z if bias is None or first else z + bias
    gate, squash, u = cell.recurrent_activation, cell.activation, cell.units
    activate = functools.partial(apply_activation, misleads=call.misleads)
    i, i_vjp = activate(gate, z[:, :u])
    f, f_vjp = activate(gate, z[:, u : 2 * u])
    g, g_vjp = activate(squash, z[:, 2 * u : 3 * u])
    o, o_vjp = activate(gate, z[:, 3 * u :])
    c_new = f * c + i * g
    squashed, c_vjp = activate(squash, c_new)
    h_new = o * squashed

    def vjp(dy):
        dh_new = dy[0] + dy[1]
        dc = dy[2] + c_vjp(dh_new * o)
        dz = [i_vjp(dc * g), f_vjp(dc * c), g_vjp(dc * i), o_vjp(dh_new * squashed)]
        dz = np.concatenate(dz, axis=1)
        dx, dkernel = x_vjp(dz)
        dh, drecurrent = h_vjp(dz)
        cotangents = {"kernel": dkernel, "recurrent_kernel": drecurrent}
        if bias is not None:
            cotangents["bias"] = dz.sum(axis=0)
        return (dx, dh, dc * f), cotangents

    return (h_new, h_new, c_new), vjp


rule(
    layers.LSTM,
    cases=[
        Case("last output", lambda: layers.LSTM(2), (3, 4, 3)),
        Case(
            "all outputs, backwards, from a state",
            lambda: layers.LSTM(2, return_sequences=True, return_state=True, go_backwards=True),
            ((3, 4, 3), (3, 2), (3, 2)),
            apply=from_state,
        ),
        Case(
            "mask",
            lambda: layers.LSTM(2, return_sequences=True, return_state=True),
            (4, 4, 3),
            arguments={"mask": MASK},
        ),
        Case(
            "zeros where masked, unrolled",
            lambda: layers.LSTM(2, return_sequences=True, zero_output_for_mask=True, unroll=True),
            (4, 4, 3),
            arguments={"mask": MASK},
        ),
        Case("dropout", lambda: layers.LSTM(2, dropout=0.4, seed=3), (3, 4, 3)),
        Case(
            "dropout of both",
            lambda: layers.LSTM(3, dropout=0.4, recurrent_dropout=0.3, seed=4),
            (3, 4, 4),
        ),
        Case("50 steps", lambda: layers.LSTM(3, return_sequences=True), (4, 50, 2)),
    ],
    source="keras/src/layers/rnn/lstm.py",
    mask=recurrence_mask,
    gaps=recurrence_gaps,
)(recurrence)
