"""SimpleRNNCell and SimpleRNN."""

from keras import layers

from gradaudit.rules.context import apply_activation
from gradaudit.rules.layers.families.recurrent import (
    MASK,
    cell_gaps,
    recurrence,
    recurrence_gaps,
    recurrence_mask,
    step,
)
from gradaudit.rules.primitives.projection import project
from gradaudit.rules.registry import Case, rule

_CELL = ((4, 3), (4, 2))


@rule(
    layers.SimpleRNNCell,
    cases=[
        Case("tanh", lambda: layers.SimpleRNNCell(2), _CELL, apply=step),
        Case(
            "softplus, no bias",
            lambda: layers.SimpleRNNCell(2, activation="softplus", use_bias=False),
            _CELL,
            apply=lambda cell, x, h, **a: cell(x, h, **a),
        ),
    ],
    source="keras/src/layers/rnn/simple_rnn.py",
    weights=("kernel", "recurrent_kernel", "bias"),
    gaps=cell_gaps,
)
def simple_rnn_cell(call, x):
    """Apply h' = φ(x @ kernel + bias + h @ recurrent_kernel).

    Shapes: (x (N, I), h (N, U)); kernel (I, U), recurrent_kernel (U, U), bias (U,); y (h', h').
    VJP:    dz = φ'(z) times the sum of both dh'; dx = dz kernelᵀ, dh = dz recurrent_kernelᵀ,
            dkernel = xᵀ dz, drecurrent_kernel = hᵀ dz, dbias = Σₙ dz.
    Kinks:  those of the activation.
    Gaps:   without an RNN around it: dropout, and an output by sigmoid or softmax, which keeps its
            logits.
    """
    x, h = x
    weights, bias = call.weights, call.weights.get("bias")
    of_x, of_h = call.arguments.get("dropout_masks", (None, None))
    zx, x_vjp = project(x, weights["kernel"], of_x)
    zh, h_vjp = project(h, weights["recurrent_kernel"], of_h)
    z = (zx if bias is None else zx + bias) + zh
    h_new, activation_vjp = apply_activation(call.layer.activation, z, call.misleads)

    def vjp(dy):
        dz = activation_vjp(dy[0] + dy[1])
        dx, dkernel = x_vjp(dz)
        dh, drecurrent = h_vjp(dz)
        cotangents = {"kernel": dkernel, "recurrent_kernel": drecurrent}
        if bias is not None:
            cotangents["bias"] = dz.sum(axis=0)
        return (dx, dh), cotangents

    return (h_new, h_new), vjp


rule(
    layers.SimpleRNN,
    cases=[
        Case("last output", lambda: layers.SimpleRNN(2), (3, 4, 3)),
        Case(
            "all outputs, unrolled backwards, from a state",
            lambda: layers.SimpleRNN(
                2, "relu", return_sequences=True, go_backwards=True, unroll=True
            ),
            ((3, 4, 3), (3, 2)),
            apply=lambda layer, x, h, **a: layer(x, initial_state=h, **a),
        ),
        Case(
            "mask of numbers, backwards",
            lambda: layers.SimpleRNN(2, return_state=True, go_backwards=True),
            (4, 4, 3),
            arguments={"mask": MASK.astype("float32")},
        ),
        Case(
            "zeros where masked, unrolled backwards",
            lambda: layers.SimpleRNN(
                2,
                return_sequences=True,
                zero_output_for_mask=True,
                unroll=True,
                go_backwards=True,
            ),
            (4, 4, 3),
            arguments={"mask": MASK},
        ),
        Case(
            "dropout of both, unrolled",
            lambda: layers.SimpleRNN(3, dropout=0.4, recurrent_dropout=0.3, seed=4, unroll=True),
            (3, 4, 4),
        ),
        Case(
            "dropout in inference",
            lambda: layers.SimpleRNN(2, dropout=0.4),
            (3, 4, 3),
            training=False,
        ),
        Case("50 steps", lambda: layers.SimpleRNN(3, return_sequences=True), (4, 50, 2)),
    ],
    source="keras/src/layers/rnn/simple_rnn.py",
    mask=recurrence_mask,
    gaps=recurrence_gaps,
)(recurrence)
