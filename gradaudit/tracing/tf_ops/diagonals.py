"""Ops that take or set the diagonal of matrices, or a band of it."""

import numpy as np

from gradaudit.tracing.tf_ops.moving import moving
from gradaudit.tracing.tf_ops.table import op


@moving("MatrixDiagPart", "MatrixDiagPartV2", "MatrixDiagPartV3")
def matrix_diag_part(node, x, *options):
    """Compute yᵢ = xᵢᵢ; dxᵢᵢ = dyᵢ, 0 elsewhere.

    Raises:
        UnsupportedModelError: another diagonal than the main one is asked for.
    """
    if options and np.any(options[0] != 0):
        raise node.unsupported("takes another diagonal than the main one")
    place = np.arange(min(x.shape[-2:]))
    return x[..., place, place]


@op("MatrixBandPart")
def matrix_band_part(node, x, lower, upper):
    """Compute yᵢⱼ = xᵢⱼ for −upper ≤ i − j ≤ lower, 0 elsewhere; dx = dy there, 0 elsewhere."""
    rows, columns = np.indices(x.shape[-2:])
    below, above = (
        (int(lower) < 0) | (rows - columns <= lower),
        (int(upper) < 0) | (columns - rows <= upper),
    )
    kept = below & above
    return np.where(kept, x, 0.0), lambda dy: (np.where(kept, dy, 0.0), None, None)


@op("MatrixDiag", "MatrixDiagV2", "MatrixDiagV3")
def matrix_diag(node, x, *options):
    """Compute yᵢᵢ = xᵢ, 0 elsewhere; dxᵢ = dyᵢᵢ.

    Raises:
        UnsupportedModelError: another diagonal is asked for, or y is no square.
    """
    n = x.shape[-1]
    if options and (np.any(options[0] != 0) or not np.isin(options[1:3], (-1, n)).all()):
        raise node.unsupported("makes another diagonal than the main one of a square")
    eye, place = np.eye(n, dtype=bool), np.arange(n)
    y = np.where(eye, np.expand_dims(x, -1), 0.0)
    return y, lambda dy: (dy[..., place, place], *[None] * len(options))


@op("MatrixSetDiag", "MatrixSetDiagV2", "MatrixSetDiagV3")
def matrix_set_diag(node, x, diagonal, *options):
    """Compute yᵢᵢ = diagonalᵢ, and x elsewhere; ddiagonalᵢ = dyᵢᵢ, dx = 0 there, dy elsewhere.

    Raises:
        UnsupportedModelError: another diagonal than the main one is set.
    """
    if options and np.any(options[0] != 0):
        raise node.unsupported("sets another diagonal than the main one")
    place, eye = np.arange(diagonal.shape[-1]), np.eye(*x.shape[-2:], dtype=bool)
    column = np.expand_dims(diagonal, -1 if x.shape[-2] <= x.shape[-1] else -2)

    def vjp(dy):
        return np.where(eye, 0.0, dy), dy[..., place, place], *[None] * len(options)

    return np.where(eye, column, x), vjp
