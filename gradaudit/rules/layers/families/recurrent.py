"""Recurrent layers: a cell's rule forward through time and back, masks, states and dropout.

RNN, SimpleRNN, LSTM and GRU have the recurrence in common, their cells the dropout masks that are
drawn once for all steps.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from keras import layers, tree

from gradaudit import keras_compat
from gradaudit.numerics import SumOfSteps
from gradaudit.numerics.arithmetic import Array
from gradaudit.rules.context import LayerCall
from gradaudit.rules.logits import LEAVING_LOGITS

Cotangents = dict[str, Array]
LayerVjp = Callable[[Any], tuple[Any, Cotangents]]
Sums = defaultdict[str, SumOfSteps]

DROPPING = (layers.SimpleRNNCell, layers.LSTMCell, layers.GRUCell)

MASK = np.array([[1, 1, 1, 0], [0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
"""Of a case: steps that are left out at the end, between others, and all of a sequence."""


def step(cell: Any, x: Any, *states: Any, **arguments: Any) -> Any:
    """Call a cell by itself, as a case does it."""
    return cell(x, list(states), **arguments)


def from_state(layer: Any, x: Any, *states: Any, **arguments: Any) -> Any:
    """Call a recurrent layer from given states, as a case does it."""
    return layer(x, initial_state=list(states), **arguments)


def state_sizes(cell: Any) -> list[int]:
    """Return the sizes of a cell's states, or of all those of stacked cells, in their order."""
    if isinstance(cell, layers.StackedRNNCells):
        return [size for part in cell.cells for size in state_sizes(part)]
    return tree.flatten(cell.state_size)


def draw_masks(call: LayerCall, cell: Any, x_shape: tuple[int, ...]) -> Any:
    """Draw a cell's dropout masks: one pair for all steps, whether or not they are used then.

    Returns ([masks of x], [masks of h]), one mask for all gates or one for each; None in place of
    a list where nothing is dropped; a list of such pairs for stacked cells.
    """
    if isinstance(cell, layers.StackedRNNCells):
        shapes = [x_shape] + [(x_shape[0], state_sizes(part)[0]) for part in cell.cells]
        return [draw_masks(call, *each) for each in zip(cell.cells, shapes, strict=False)]
    if not isinstance(cell, DROPPING):
        return None, None

    def drawn(shape: tuple[int, ...], rate: float) -> list[Array] | None:
        if rate == 0:
            return None
        count = getattr(cell, "dropout_mask_count", 1)
        return [call.array(call.draw(cell, "dropout", shape, rate=rate)) for _ in range(count)]

    of_x = drawn(x_shape, cell.dropout)
    return of_x, drawn((x_shape[0], cell.units), cell.recurrent_dropout)


def draws_nothing(cell: Any) -> bool:
    """Return whether a layer is a cell that drops nothing, though it has a seed."""
    return isinstance(cell, DROPPING) and cell.dropout == cell.recurrent_dropout == 0


def cell_gaps(cell: Any) -> list[str]:
    """Return what is not derived of a cell that a model calls by itself, without an RNN."""
    gaps = []
    if keras_compat.calls(cell) and not draws_nothing(cell):
        gaps.append("dropout without an RNN, so that its first masks stay")
    if keras_compat.calls(cell) and _keeps_logits(cell):
        gaps.append("an output that keeps its logits")
    return gaps


def recurrence_gaps(layer: Any) -> list[str]:
    """Return what is not derived: kernels of cuDNN, and logits of the last output."""
    gaps = []
    if not layer.supports_jit:  # as Keras says it where cuDNN's own recurrence will run
        gaps.append("cuDNN's kernel, which is not derived: see use_cudnn=False")
    last = layer.cell
    while isinstance(last, layers.StackedRNNCells):
        last = last.cells[-1]
    if layer.unroll and _keeps_logits(last):
        gaps.append("unroll, which lets losses see the logits of the last output")
    return gaps


def _keeps_logits(cell: Any) -> bool:
    """Return whether Keras keeps the pre-activation on a cell's output, for losses to see."""
    return isinstance(cell, layers.SimpleRNNCell) and cell.activation in LEAVING_LOGITS


def recurrence_mask(call: LayerCall, x: Any, mask: Any) -> Any:
    """Return the mask of the outputs: that of x for all steps, none for one, none for states."""
    found = tree.flatten(mask)[0] if call.layer.return_sequences else None
    return (found, *[None] * len(call.layer.state_size)) if call.layer.return_state else found


def recurrence(call: LayerCall, x: Any) -> tuple[Any, LayerVjp]:
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
    vjps, outs = [], list[Array]()
    for k, t in enumerate(order):
        (out, *made), vjp_t = call.within(cell, (sequence[:, t], *states), None, **given)
        if mask is not None:
            out = np.where(mask[k], out, outs[-1] if outs else 0.0)
            made = [np.where(mask[k], new, old) for new, old in zip(made, states, strict=True)]
        states = made
        vjps.append(vjp_t)
        outs.append(out)
    if shown is not None:
        outs = [np.where(here, out, 0.0) for here, out in zip(shown, outs, strict=True)]
    y = np.stack(outs, axis=1) if layer.return_sequences else outs[-1]

    def vjp(dy: Any) -> tuple[Any, Cotangents]:
        dout, *dstates = dy if layer.return_state else (dy, *map(np.zeros_like, states))
        nothing = np.zeros_like(outs[-1])
        carried, dxs, sums = nothing, [], Sums(SumOfSteps)
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
        cotangents: dict[str, Any] = {name: each.total() for name, each in sums.items()}
        dsequence = np.stack(dxs if layer.go_backwards else dxs[::-1], axis=1)
        return (dsequence, *dstates) if isinstance(x, tuple) else dsequence, cotangents

    return (y, *states) if layer.return_state else y, vjp


StepMasks = Sequence[np.ndarray] | None


def _masks(call: LayerCall, order: Iterable[int]) -> tuple[StepMasks, StepMasks]:
    """Return, for each step, which rows count, and which outputs are not made 0; None for all."""
    mask, layer = tree.flatten(call.arguments.get("mask"))[0], call.layer
    if mask is None:
        return None, None
    counts = (np.reshape(mask, mask.shape[:2]) != 0)[:, :, None]
    counted = [counts[:, t] for t in order]
    if not layer.zero_output_for_mask:
        return counted, None
    if layer.unroll and layer.return_sequences:
        # keras/src/backend/tensorflow/rnn.py does not turn this mask around with go_backwards.
        return counted, [counts[:, t] for t in range(counts.shape[1])]
    return counted, counted
