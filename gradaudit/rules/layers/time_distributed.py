"""TimeDistributed."""

import numpy as np
from keras import layers

from gradaudit import keras_compat
from gradaudit.rules.context import summed
from gradaudit.rules.layers.families.recurrent import draws_nothing
from gradaudit.rules.registry import Case, rule, rule_for

_BN = layers.BatchNormalization


def _gaps(layer):
    """Return what is not derived: draws and assignments if the number of steps is not known.

    Keras then runs all steps as one, and draws once for all.
    """
    unknown = any(node.input_tensors[0].shape[1] is None for node in keras_compat.calls(layer))
    changing = [
        part.name
        for part in keras_compat.all_layers(layer)
        if keras_compat.own_variables(part)[1]
        or (keras_compat.seed_generators(part) and not draws_nothing(part))
    ]
    return [
        f"{name!r}, which draws or assigns, in steps of no given number"
        for name in changing
        if unknown
    ]


@rule(
    layers.TimeDistributed,
    cases=[
        Case("dense", lambda: layers.TimeDistributed(layers.Dense(2, "tanh")), (3, 4, 3)),
        Case("dropout", lambda: layers.TimeDistributed(layers.Dropout(0.4, seed=2)), (3, 4, 3)),
        Case("moments of each step", lambda: layers.TimeDistributed(_BN()), (4, 3, 2)),
        Case(
            "moments, mask",
            lambda: layers.TimeDistributed(_BN()),
            (3, 2, 4, 3),
            arguments={"mask": np.arange(24).reshape(3, 2, 4) % 3 != 1},
        ),
        Case(
            "recurrent, mask",
            lambda: layers.TimeDistributed(layers.LSTM(2, return_sequences=True)),
            (2, 3, 4, 2),
            arguments={"mask": np.arange(24).reshape(2, 3, 4) % 3 != 1},
        ),
    ],
    source="keras/src/layers/rnn/time_distributed.py",
    integers=True,
    gaps=_gaps,
)
def time_distributed(call, x):
    """Apply a layer to each step by itself: yₜ = layer(xₜ).

    Shapes: x (N, T, ...), y (N, T, ...); what the layer makes of (N, ...) for each step.
    VJP:    dxₜ by the layer's VJP at dyₜ; the cotangents of its weights are added over the steps,
            from the last to the first.
    Kinks:  those of the layer.
    Gaps:   a layer that draws or assigns, where the number of steps is not given.
    """
    part, mask = call.layer.layer, call.arguments.get("mask")
    if call.numbers(x).dtype.kind != "f" and not rule_for(part).integers:
        x = call.arithmetic.cast(call.arithmetic.array(x, "float64"), call.dtype)
    steps = range(x.shape[1])
    masked = mask is not None and keras_compat.takes_mask(part)
    given = [{"mask": mask[:, t]} if masked else {} for t in steps]
    ys, vjps = zip(*[call.within(part, x[:, t], **given[t]) for t in steps], strict=True)

    def vjp(dy):
        dxs, cotangents = zip(*[vjps[t](dy[:, t]) for t in reversed(steps)], strict=True)
        dx = None if dxs[0] is None else np.stack(dxs[::-1], axis=1)
        return dx, summed(*cotangents)

    return np.stack(ys, axis=1), vjp
