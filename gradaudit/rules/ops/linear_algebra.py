"""Matrix products and contractions."""

import numpy as np
from keras.src.ops import numpy as operations  # not exported: x @ y makes an instance of Matmul

from gradaudit.rules.layers.contraction import contract
from gradaudit.rules.operations import products  # noqa: F401 - declares its rules
from gradaudit.rules.ops.table import op
from gradaudit.rules.registry import declared


def _swapped(x, is_swapped):
    return np.swapaxes(x, -1, -2) if is_swapped else x


@op("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
def matmul(node, a, b):
    """Apply y = A B, each transposed where the op says so."""
    names = ("transpose_a", "transpose_b") if node.op.kind == "MatMul" else ("adj_x", "adj_y")
    turn_a, turn_b = map(node.attribute, names)
    given = _swapped(a, turn_a), _swapped(b, turn_b)
    y, vjp = declared(operations.Matmul).function(node, given)

    def turned_vjp(dy):
        da, db = vjp(dy)[0]
        return _swapped(da, turn_a), _swapped(db, turn_b)

    return y, turned_vjp


@op("Einsum")
def einsum(node, *xs):
    equation = node.attribute("equation").decode()
    if len(xs) != 2:
        raise node.unsupported("contracts other than two tensors: write it in steps of two")
    return contract(equation, *xs)
