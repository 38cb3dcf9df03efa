"""What the cells of recurrent layers have in common: projections that dropout may thin out."""

import numpy as np
from keras import activations, layers, tree

DROPPING = (layers.SimpleRNNCell, layers.LSTMCell, layers.GRUCell)


def step(cell, x, *states, **arguments):
    """Call a cell by itself, as a case does it."""
    return cell(x, list(states), **arguments)


def state_sizes(cell):
    """Return the sizes of a cell's states, or of all those of stacked cells, in their order."""
    if isinstance(cell, layers.StackedRNNCells):
        return [size for part in cell.cells for size in state_sizes(part)]
    return tree.flatten(cell.state_size)


def draw_masks(call, cell, x_shape):
    """Draw a cell's dropout masks: one pair for all steps, whether or not they are used then.

    Returns ([masks of x], [masks of h]), one mask for all gates or one for each, and None in the
    place of a list where nothing is dropped; a list of such pairs for stacked cells.
    """
    if isinstance(cell, layers.StackedRNNCells):
        shapes = [x_shape] + [(x_shape[0], state_sizes(part)[0]) for part in cell.cells]
        return [draw_masks(call, *each) for each in zip(cell.cells, shapes, strict=False)]
    if not isinstance(cell, DROPPING):
        return None, None

    def drawn(shape, rate):
        if rate == 0:
            return None
        count = getattr(cell, "dropout_mask_count", 1)
        return [call.array(call.draw(cell, "dropout", shape, rate=rate)) for _ in range(count)]

    of_x = drawn(x_shape, cell.dropout)
    return of_x, drawn((x_shape[0], cell.units), cell.recurrent_dropout)


def idle(cell):
    """Return whether a layer is a cell that drops nothing, though it has a seed."""
    return isinstance(cell, DROPPING) and cell.dropout == cell.recurrent_dropout == 0


def keeps_logits(cell):
    """Return whether Keras keeps the pre-activation on a cell's output, for losses to see."""
    known = (activations.softmax, activations.sigmoid)
    return isinstance(cell, layers.SimpleRNNCell) and cell.activation in known


def standalone_gaps(cell):
    """Return what is not derived of a cell that a model calls by itself, without an RNN."""
    gaps = []
    if cell._inbound_nodes and not idle(cell):
        gaps.append("dropout without an RNN, so that its first masks stay")
    if cell._inbound_nodes and keeps_logits(cell):
        gaps.append("an output that keeps its logits")
    return gaps


def project(x, kernel, masks):
    """Return x @ kernel, each gate's columns of x times its dropout mask, and the VJP.

    Shapes: x (N, I), kernel (I, G U), masks None or one or G of (N, I); the VJP returns (dx,
    dkernel).
    """
    if masks is None:
        return x @ kernel, lambda dz: (dz @ kernel.T, x.T @ dz)
    width = kernel.shape[1] // len(masks)
    columns = [slice(k * width, (k + 1) * width) for k in range(len(masks))]
    kept = [x * mask for mask in masks]

    def vjp(dz):
        parts = [dz[:, c] @ kernel[:, c].T * mask for c, mask in zip(columns, masks, strict=True)]
        dkernel = [k.T @ dz[:, c] for k, c in zip(kept, columns, strict=True)]
        return sum(parts[1:], parts[0]), np.concatenate(dkernel, axis=1)

    z = [k @ kernel[:, c] for k, c in zip(kept, columns, strict=True)]
    return np.concatenate(z, axis=1), vjp
