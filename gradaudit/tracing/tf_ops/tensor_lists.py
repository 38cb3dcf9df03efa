"""Ops of lists of tensors: a loop reads its steps from them and puts its outputs there.

Optionals, in which a branch that is differentiated keeps its residuals, are lists, too.
"""

import numpy as np

from gradaudit.tracing.tf_ops.table import op
from gradaudit.tracing.tf_ops.tensor_list import TensorList


@op("TensorListReserve", always=True)
def reserve(node, shape, count):
    """Compute y = a list of so many items, none set. No gradient passes."""
    return TensorList([None] * int(count)), None


@op("EmptyTensorList", always=True)
def empty(node, shape, count):
    """Compute y = an empty list. No gradient passes."""
    return TensorList(), None


@op("TensorListFromTensor", always=True)
def from_tensor(node, x, shape):
    """Compute yᵢ = xᵢ, the items of a list; dxᵢ = dyᵢ."""

    def vjp(dys):
        rows = [np.zeros_like(row) if dy is None else dy for row, dy in zip(x, dys, strict=True)]
        return np.stack(rows), None

    return TensorList(x[i] for i in range(len(x))), vjp


@op("TensorListStack", always=True)
def stack(node, items, shape, *count):
    """Compute yᵢ = the items of a list, 0 where none is set; ditemᵢ = dyᵢ."""
    if not items or any(item is None for item in items):
        known = [item for item in items if item is not None]
        shape = known[0].shape if known else tuple(shape.tolist())
        items = [node.zeros(shape) if item is None else item for item in items]
    if not items:
        return node.zeros((0, *shape)), None
    return np.stack(items), lambda dy: (TensorList(dy[i] for i in range(len(dy))), None)


@op("TensorListGetItem", always=True)
def get_item(node, items, place, shape):
    """Compute y = the item at a place, 0 where none is set; ditem = dy."""
    place = int(place)
    item = items[place]
    if item is None:
        return node.zeros(tuple(shape.tolist())), None
    return item, lambda dy: (items.unset().with_item(place, dy), None, None)


@op("TensorListSetItem", always=True)
def set_item(node, items, place, item):
    """Compute y = the list with another item at a place; ditem = dy there."""
    place = int(place)

    def vjp(dys):
        return dys.with_item(place, None), None, dys[place]

    longer = TensorList([*items, *[None] * (place + 1 - len(items))])
    return longer.with_item(place, item), vjp


@op("TensorListPushBack", always=True)
def push_back(node, items, item):
    """Compute y = the list with an item more at its end; ditem = the last of dy."""
    return TensorList([*items, item]), lambda dys: (TensorList(dys[:-1]), dys[-1])


@op("TensorListPopBack", always=True)
def pop_back(node, items, shape):
    """Compute y = the list without its last item, and that item; ditem = its cotangent."""

    def vjp(ditems, ditem):
        return TensorList([*ditems, ditem]), None

    return (TensorList(items[:-1]), items[-1]), vjp


@op("TensorListLength", always=True)
def length(node, items):
    """Compute y = the number of items. No gradient passes."""
    return np.array(len(items), np.int32), None


@op("TensorListElementShape", always=True)
def element_shape(node, items):
    """Compute y = the shape of an item, −1 where none is set. No gradient passes."""
    known = [item for item in items if item is not None]
    return np.array(known[0].shape if known else -1, node.op.dtypes[0].as_numpy_dtype), None


@op("OptionalFromValue", always=True)
def optional(node, *xs):
    """Compute y = an optional that holds the xᵢ; dxᵢ = its cotangent's items."""
    return TensorList(xs), lambda dys: tuple(dys)


@op("OptionalNone", always=True)
def no_optional(node):
    """Compute y = an optional that holds nothing. No gradient passes."""
    return TensorList(), None


@op("OptionalGetValue", always=True)
def optional_value(node, items):
    """Compute yᵢ = what an optional holds; ditemᵢ = dyᵢ."""
    return tuple(items), lambda *dys: TensorList(dys)
