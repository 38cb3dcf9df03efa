"""Concatenate."""

import numpy as np
from keras import layers

from gradaudit.rules.primitives import layout
from gradaudit.rules.registry import Case, rule


def _mask(call, x, mask):
    """Return Keras's mask: those of the inputs put together, and whether any feature counts."""
    if mask is None or all(part is None for part in mask):
        return None
    wide = []
    for each, part in zip(x, mask, strict=True):
        if part is None:
            part = np.ones(each.shape, bool)
        elif part.ndim < each.ndim:
            part = np.broadcast_to(part[..., None], each.shape)
        wide.append(part)
    return np.any(np.concatenate(wide, call.layer.axis), axis=-1)


@rule(
    layers.Concatenate,
    cases=[
        Case("last axis", lambda: layers.Concatenate(), ((3, 4), (3, 2), (3, 1))),
        Case("first axis", lambda: layers.Concatenate(axis=1), ((2, 3, 4), (2, 1, 4))),
        Case("negative", lambda: layers.Concatenate(axis=-2), ((2, 3, 4), (2, 1, 4))),
    ],
    source="keras/src/layers/merging/concatenate.py",
    integers=True,
    mask=_mask,
)
def concatenate(call, x):
    """Put the inputs one behind the other along an axis.

    Shapes: the xᵢ alike but for that axis, along which y has the sum of their lengths.
    VJP:    dxᵢ is the part of dy that came from xᵢ.
    Kinks:  none.
    """
    if not isinstance(x, tuple):
        return x, lambda dy: (dy, {})
    y, vjp = layout.concatenate(x, call.layer.axis)
    return y, lambda dy: (vjp(dy), {})
