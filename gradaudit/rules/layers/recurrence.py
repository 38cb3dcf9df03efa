"""The recurrence of RNN, SimpleRNN, LSTM and GRU: a cell's rule forward through time, and back."""

from collections import defaultdict

import numpy as np
from keras import layers, tree

from gradaudit.numerics import SumOfSteps
from gradaudit.rules.layers.cells import draw_masks, keeps_logits, state_sizes

MASK = np.array([[1, 1, 1, 0], [0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
"""Of a case: steps that are left out at the end, between others, and all of a sequence."""


def from_state(layer, x, *states, **arguments):
    """Call a recurrent layer from given states, as a case does it."""
    return layer(x, initial_state=list(states), **arguments)


def recurrence(call, x):
    """Apply (outₜ, *sₜ) = cell(xₜ, *sₜ₋₁) from the first step to the last, or from the last.

    Where a mask leaves a step out, its output is the one before (0 before the first), and its
    states are those before. y is the last output, or all in the order of the steps; those left out
    are 0 with zero_output_for_mask.

    Shapes: x (N, T, I), or (x, *initial states); states (N, U); y (N, U) or (N, T, U), or (y,
            *last states); mask (N, T).
    VJP:    from the last step to the first, with dsₜ from the step after: (dxₜ, *dsₜ₋₁, dweights)
            = cell_vjp(doutₜ, *dsₜ) at steps that count; elsewhere dsₜ₋₁ = dsₜ and doutₜ is added
            to the one before. dweights are added in this order.
    Kinks:  those of the cell.
    Gaps:   stateful; cuDNN's kernel; unroll with a SimpleRNNCell that ends in sigmoid or softmax.
    """
    layer, cell = call.layer, call.layer.cell
    sequence, *states = x if isinstance(x, tuple) else (x,)
    n, length = sequence.shape[:2]
    states = states or [call.array(np.zeros((n, size))) for size in state_sizes(cell)]
    order = range(length)[:: -1 if layer.go_backwards else 1]
    mask, shown = _masks(call, order)
    dropout_masks = draw_masks(call, cell, (n, *sequence.shape[2:]))
    given = {"dropout_masks": dropout_masks} if call.training else {}
    vjps, outs = [], []
    for k, t in enumerate(order):
        (out, *made), vjp_t = call.within(cell, (sequence[:, t], *states), **given)
        if mask is not None:
            out = np.where(mask[k], out, outs[-1] if outs else 0.0)
            made = [np.where(mask[k], new, old) for new, old in zip(made, states, strict=True)]
        states = made
        vjps.append(vjp_t)
        outs.append(out)
    if shown is not None:
        outs = [np.where(here, out, 0.0) for here, out in zip(shown, outs, strict=True)]
    y = np.stack(outs, axis=1) if layer.return_sequences else outs[-1]

    def vjp(dy):
        dout, *dstates = dy if layer.return_state else (dy, *map(np.zeros_like, states))
        nothing = np.zeros_like(outs[-1])
        carried, dxs, sums = nothing, [], defaultdict(SumOfSteps)
        for k in reversed(range(length)):
            d = dout[:, k] if layer.return_sequences else dout if k == length - 1 else nothing
            if shown is not None:
                d = np.where(shown[k], d, 0.0)
            dmade = dstates
            if mask is not None:
                d = d + carried
                d, carried = np.where(mask[k], d, 0.0), np.where(mask[k], 0.0, d)
                dmade = [np.where(mask[k], ds, 0.0) for ds in dstates]
            (dx, *before), part = vjps[k]((d, *dmade))
            if mask is not None:
                before = [np.where(mask[k], *ds) for ds in zip(before, dstates, strict=True)]
            for name, cotangent in part.items():
                sums[name].add(cotangent)
            dstates = before
            dxs.append(dx)
        cotangents = {name: each.total() for name, each in sums.items()}
        dsequence = np.stack(dxs if layer.go_backwards else dxs[::-1], axis=1)
        return (dsequence, *dstates) if isinstance(x, tuple) else dsequence, cotangents

    return (y, *states) if layer.return_state else y, vjp


def _masks(call, order):
    """Return, for each step, which rows count, and which outputs are not made 0; None for all."""
    mask, layer = tree.flatten(call.arguments.get("mask"))[0], call.layer
    if mask is None:
        return None, None
    counts = (np.reshape(mask, mask.shape[:2]) != 0)[:, :, None]
    mask = [counts[:, t] for t in order]
    if not layer.zero_output_for_mask:
        return mask, None
    if layer.unroll and layer.return_sequences:
        # keras/src/backend/tensorflow/rnn.py does not turn this mask around with go_backwards.
        return mask, [counts[:, t] for t in range(len(order))]
    return mask, mask


def recurrence_mask(call, x, mask):
    """Return the mask of the outputs: that of x for all steps, none for one, none for states."""
    found = tree.flatten(mask)[0] if call.layer.return_sequences else None
    return (found, *[None] * len(call.layer.state_size)) if call.layer.return_state else found


def recurrence_gaps(layer):
    """Return what is not derived: kernels of cuDNN, and logits that outlast the last step."""
    gaps = []
    if not layer.supports_jit:  # as Keras says it where cuDNN's own recurrence will run
        gaps.append("cuDNN's kernel, which is not derived: see use_cudnn=False")
    last = layer.cell
    while isinstance(last, layers.StackedRNNCells):
        last = last.cells[-1]
    if layer.unroll and keeps_logits(last):
        gaps.append("unroll, which lets losses see the logits of the last output")
    return gaps
