"""Dropout as layers apply it: to their input, to whole channels, to attention weights."""

from collections.abc import Callable, Sequence

import numpy as np

from gradaudit.numerics.arithmetic import Array
from gradaudit.rules.context import LayerCall

Vjp = Callable[[Array], tuple[Array, dict[str, Array]]]


def dropped(
    call: LayerCall, x: Array, rate: float, noise_shape: Sequence[int | None] | None = None
) -> tuple[Array, Vjp]:
    """Return y = x / (1 − rate) where the step's mask keeps x, 0 elsewhere, and the VJP.

    noise_shape: of the mask, which is broadcast to x; x's own if left out.
    VJP: dx = dy / (1 − rate) where x was kept, 0 elsewhere.
    """
    if not call.training or rate == 0:
        return x, lambda dy: (dy, {})
    if rate == 1:
        return np.zeros_like(x), lambda dy: (np.zeros_like(dy), {})
    kept = call.draw(call.layer, "dropout", x.shape, rate=rate, noise_shape=noise_shape) != 0
    scale = 1 / (1 - rate)
    return np.where(kept, x * scale, 0.0), lambda dy: (np.where(kept, dy * scale, 0.0), {})
