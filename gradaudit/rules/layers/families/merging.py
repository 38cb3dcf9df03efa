"""Merging layers: one rank for all inputs, masks, and the sums that undo their broadcasting."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from gradaudit import keras_compat
from gradaudit.numerics.arithmetic import Array
from gradaudit.rules.context import LayerCall
from gradaudit.rules.declaration import Case
from gradaudit.rules.primitives.broadcasting import unbroadcast

Arrays = Array | tuple[Array, ...]

_MASKS = [[[1, 1, 0], [1, 0, 0]], [[1, 0, 1], [1, 1, 0]], [[0, 1, 0], [1, 1, 0]]]


def masked_cases(layer: Callable[[], Any]) -> list[Case]:
    """Return cases of a merging layer whose inputs have masks, all of them or some."""
    masks = [np.asarray(mask, np.float32) for mask in _MASKS]
    some = [*masks[:2], None]
    return [
        Case(name, layer, ((2, 3, 4),) * 3, arguments={"mask": chosen}, apply=_call_masked)
        for name, chosen in {"masked": masks, "some masked": some}.items()
    ]


def _call_masked(layer: Any, *tensors: Any, mask: Sequence[Any], **options: Any) -> Any:
    symbolic = keras.backend.is_keras_tensor(tensors[0])
    carry = _with_rows_of_zeros if symbolic else _with_mask
    return layer([carry(t, m) for t, m in zip(tensors, mask, strict=True)], **options)


def _with_mask(tensor: Any, mask: Any) -> Any:
    tensor = keras.ops.convert_to_tensor(tensor)
    if mask is not None:
        keras_compat.set_mask(tensor, keras.ops.cast(mask, "bool"))
    return tensor


def _with_rows_of_zeros(tensor: Any, mask: Any) -> Any:
    if mask is None:
        return tensor
    column = keras.layers.Reshape((-1, 1))(mask)
    return keras.layers.Masking()(keras.layers.Multiply()([tensor, column]))


def of_one_rank(x: Arrays) -> list[Array]:
    """Return the arrays with axes of length 1 after the batch's, so that all have the same rank."""
    xs = x if isinstance(x, tuple) else (x,)
    rank = max(each.ndim for each in xs)
    return [each.reshape(each.shape[0], *(1,) * (rank - each.ndim), *each.shape[1:]) for each in xs]


def narrowed(cotangents: Sequence[Array], x: Arrays) -> Arrays:
    """Return cotangents of what x was reshaped and broadcast to as cotangents of x."""
    xs = x if isinstance(x, tuple) else (x,)
    narrow = tuple(
        unbroadcast(dx, wide.shape).reshape(each.shape)
        for dx, wide, each in zip(cotangents, of_one_rank(x), xs, strict=True)
    )
    return narrow if isinstance(x, tuple) else narrow[0]


def masks_of(call: LayerCall, x: Arrays) -> list[np.ndarray | None]:
    """Return for each array of one rank its mask, broadcast to it, or None.

    An array that was given a new rank has lost its own.
    """
    xs = x if isinstance(x, tuple) else (x,)
    ranked = of_one_rank(x)
    masks = call.arguments.get("mask", [None] * len(xs))
    return [
        np.broadcast_to(np.asarray(mask, bool)[..., None], wide.shape)
        if mask is not None and wide.ndim == each.ndim
        else None
        for mask, wide, each in zip(masks, ranked, xs, strict=True)
    ]


def either(call: LayerCall, x: Arrays, mask: Sequence[Any] | None) -> np.ndarray | None:
    """Return Keras's mask of a merged output: where any input counts; None unless all have one."""
    if mask is None or any(part is None for part in mask):
        return None
    merged = mask[0]
    for part in mask[1:]:
        merged = np.logical_or(merged, part)
    return merged
