"""Matrix products, contractions and matrix equations."""

import numpy as np

from gradaudit.rules.primitives import matmul as products
from gradaudit.rules.primitives.broadcasting import unbroadcast
from gradaudit.rules.primitives.contraction import contract
from gradaudit.tracing.tf_ops.table import op


def _swapped(x, is_swapped):
    return np.swapaxes(x, -1, -2) if is_swapped else x


@op("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
def matmul(node, a, b):
    """Compute Y = A B, each transposed where the op says so; dA = dY Bᵀ, dB = Aᵀ dY."""
    names = ("transpose_a", "transpose_b") if node.op.kind == "MatMul" else ("adj_x", "adj_y")
    turn_a, turn_b = map(node.attribute, names)
    y, vjp = products.matmul(_swapped(a, turn_a), _swapped(b, turn_b))

    def turned_vjp(dy):
        da, db = vjp(dy)
        return _swapped(da, turn_a), _swapped(db, turn_b)

    return y, turned_vjp


@op("Einsum")
def einsum(node, *xs):
    """Compute y = Σ a b over the letters that the equation leaves out of y.

    VJP: da = Σ b dy and db = Σ a dy, contracted to their letters.

    Raises:
        UnsupportedModelError: it contracts more than two tensors, or takes a diagonal.
    """
    equation = node.attribute("equation").decode()
    if len(xs) == 1:
        y, vjp = contract(equation.replace("->", ",->"), xs[0], node.array(np.ones(())))
        return y, lambda dy: vjp(dy)[0]
    if len(xs) != 2:
        raise node.unsupported("contracts other than two tensors: write it in steps of two")
    return contract(equation, *xs)


def _solve(a, b, turned):
    return np.linalg.solve(_swapped(a, turned), b)


@op("MatrixSolve", "MatrixTriangularSolve")
def solve(node, a, b):
    """Compute X = A⁻¹ B, or A⁻ᵀ B (adjoint); of A only a triangle may count.

    VJP: dB = A⁻ᵀ dX, dA = −dB Xᵀ, or its transpose.
    """
    turned, part = node.attribute("adjoint"), _whole
    if node.op.kind == "MatrixTriangularSolve":
        part = _lower if node.attribute("lower") else _upper
    a = part(a)
    x = _solve(a, b, turned)

    def vjp(dx):
        db = _solve(a, dx, not turned)
        da = -(x @ _swapped(db, True)) if turned else -(db @ _swapped(x, True))
        return unbroadcast(part(da), a.shape), unbroadcast(db, b.shape)

    return x, vjp


def _whole(a):
    return a


def _lower(a):
    return np.where(np.tri(*a.shape[-2:], dtype=bool), a, 0.0)


def _upper(a):
    return np.where(np.tri(*a.shape[-2:], dtype=bool).T, a, 0.0)


@op("MatrixInverse")
def inverse(node, a):
    """Compute Y = A⁻¹, or A⁻ᵀ (adjoint); dA = −Yᵀ dY Yᵀ."""
    adjoint = node.attribute("adjoint")
    y = np.linalg.inv(_swapped(a, adjoint))

    def vjp(dy):
        turned = _swapped(y, True)
        return _swapped(-(turned @ dy @ turned), adjoint)

    return y, vjp


@op("MatrixDeterminant")
def determinant(node, a):
    """Compute y = det A; dA = dy y A⁻ᵀ."""
    y = np.linalg.det(a)
    return y, lambda dy: _lifted(dy * y) * _swapped(np.linalg.inv(a), True)


@op("LogMatrixDeterminant")
def log_determinant(node, a):
    """Compute sign(det A), and y = log |det A|; dA = dy A⁻ᵀ."""
    sign, y = np.linalg.slogdet(a)
    return (sign, y), lambda _, dy: _lifted(dy) * _swapped(np.linalg.inv(a), True)


def _lifted(y):
    return np.expand_dims(y, (-1, -2))


@op("Cholesky")
def cholesky(node, a):
    """Compute L with A = L Lᵀ.

    VJP: dA = the symmetric part of L⁻ᵀ Φ(Lᵀ dL) L⁻¹, Φ the lower triangle with half of the
    diagonal. Source: I. Murray, Differentiation of the Cholesky decomposition, 2016.
    """
    factor = np.linalg.cholesky(a)

    def vjp(dfactor):
        turned = _swapped(factor, True)
        half = node.array(np.tri(a.shape[-1]) - np.eye(a.shape[-1]) / 2)
        middle = (turned @ _lower(dfactor)) * half
        right = np.linalg.solve(turned, middle)
        whole = _swapped(np.linalg.solve(turned, _swapped(right, True)), True)
        return (whole + _swapped(whole, True)) / 2

    return factor, vjp


@op("Cross")
def cross(node, a, b):
    """Compute y = a × b; da = b × dy, db = dy × a."""
    return _cross(a, b), lambda dy: (_cross(b, dy), _cross(dy, a))


def _cross(a, b):
    return np.roll(a, -1, -1) * np.roll(b, -2, -1) - np.roll(a, -2, -1) * np.roll(b, -1, -1)
