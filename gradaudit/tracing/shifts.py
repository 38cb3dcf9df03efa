"""Finds the maxima that shift log Σ exp(x) in a TensorFlow graph.

m + log Σ exp(x − m) does not depend on m = max x: an error of m cancels. m therefore counts as
exact there, as it does in `numerics.below_largest`. Otherwise the error of a recursion over
log Σ exp, such as CTC or a hidden Markov model, would grow by √3 in each step.
"""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

_PASSING = ("Identity", "Reshape", "Squeeze", "ExpandDims", "StopGradient")
_SAME_SHAPE = ("Identity", "StopGradient")
_IGNORED = ("IsFinite", "Shape")  # tf.reduce_logsumexp shifts by 0 where m is not finite


def shifts(graph: Any) -> frozenset[str]:
    """Return the names of the Max ops that compute such an m, as tf.reduce_logsumexp does."""
    outputs = set(map(id, graph.outputs))
    return frozenset(
        each.name
        for each in graph.get_operations()
        if each.type == "Max" and _is_shift(each.outputs[0], each.inputs[0], outputs)
    )


def _is_shift(m: Any, x: Any, outputs: set[int]) -> bool:
    axes = _axes(m.op)
    used = list(_users(m))
    taken = [op for op in used if op.type == "Sub" and op.inputs[0] is x]
    put_back = [op for op in used if op.type in ("Add", "AddV2")]
    logs = [log for op in taken for log in _logarithms(op.outputs[0], axes)]
    if axes is None or None in logs or len(taken) + len(put_back) < len(used):
        return False
    added = [op for log in logs for op in _users(log)]
    is_returned = any(id(tensor) in outputs for tensor in (m, *logs))
    is_each_own = all(_is_of_each(op, m, axes) for op in taken)
    return (
        bool(added)
        and not is_returned
        and is_each_own
        and set(map(id, added)) == set(map(id, put_back))
    )


def _is_of_each(taken: Any, m: Any, axes: set[int]) -> bool:
    """Return whether m of its own row is subtracted from x: reduced axes have length 1 in m."""
    x, shape = taken.inputs[0], taken.inputs[1].shape
    if m.op.get_attr("keep_dims") and any(op is taken for op in _users(m, _SAME_SHAPE)):
        return True
    if x.shape.rank is None or shape.rank != x.shape.rank:
        return False
    kept = [1 if axis in axes else size for axis, size in enumerate(x.shape.as_list())]
    return shape.as_list() == kept


def _axes(reduction: Any) -> set[int] | None:
    """Return the axes of a reduction; None where they are not constant.

    They count from the front where the rank is known, and are as given where it is not.
    """
    axes, rank = tf.get_static_value(reduction.inputs[1]), reduction.inputs[0].shape.rank
    return None if axes is None else {int(a) % rank if rank else int(a) for a in np.ravel(axes)}


def _users(tensor: Any, through: Collection[str] = ()) -> Iterator[Any]:
    """Yield the ops that read a tensor, directly or through ops that keep its elements.

    through: types of the ops to look through; all of `_PASSING` where it is left out.
    """
    for op in tensor.consumers():
        is_chosen = op.type == "SelectV2" and op.inputs[1] is tensor
        if is_chosen or op.type in (through or _PASSING):
            yield from _users(op.outputs[0], through)
        elif op.type not in _IGNORED:
            yield op


def _logarithms(difference: Any, axes: set[int] | None) -> Iterator[Any]:
    """Yield the tensors log Σ exp of a tensor along some axes, and None for any other use."""
    tensors = [difference]
    for kind in ("Exp", "Sum", "Log"):
        users = [op for tensor in tensors for op in _users(tensor)]
        if any(op.type != kind or (kind == "Sum" and _axes(op) != axes) for op in users):
            yield None
            return
        tensors = [op.outputs[0] for op in users]
    yield from tensors
