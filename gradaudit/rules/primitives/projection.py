"""The product of rows and a kernel whose columns belong to several gates."""

from collections.abc import Callable, Sequence

import numpy as np

from gradaudit.numerics.arithmetic import Array


def project(
    x: Array, kernel: Array, masks: Sequence[Array] | None
) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """Return z = x @ kernel, where each gate's columns see x times the gate's mask, and the VJP.

    Shapes: x (N, I), kernel (I, G U), masks: None, one for all gates or G of (N, I); z (N, G U).
    VJP: dz to (dx, dkernel); for gate g with mask m: dx = Σ_g m (dz_g kernel_gᵀ),
    dkernel_g = (m x)ᵀ dz_g.
    """
    if masks is None:
        return x @ kernel, lambda dz: (dz @ kernel.T, x.T @ dz)
    width = kernel.shape[1] // len(masks)
    columns = [slice(k * width, (k + 1) * width) for k in range(len(masks))]
    kept = [x * mask for mask in masks]

    def vjp(dz: Array) -> tuple[Array, Array]:
        parts = [dz[:, c] @ kernel[:, c].T * mask for c, mask in zip(columns, masks, strict=True)]
        dkernel = [k.T @ dz[:, c] for k, c in zip(kept, columns, strict=True)]
        return sum(parts[1:], parts[0]), np.concatenate(dkernel, axis=1)

    z = [k @ kernel[:, c] for k, c in zip(kept, columns, strict=True)]
    return np.concatenate(z, axis=1), vjp
