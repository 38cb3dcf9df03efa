"""When two computations of the same arrays agree, and random cotangents to compare them with."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gradaudit.errors import CheckFailure

RELATIVE = 1e-12
"""Two float64 computations of the same thing agree to this part of the largest value."""


def random_cotangents(ys: Mapping[str, Any], seed: int = 5) -> dict[str, np.ndarray]:
    """Return a standard normal cotangent for each output, in the dtype of the output.

    Args:
        ys: arrays of any arithmetic by name.
        seed: of the generator.
    """
    rng = np.random.default_rng(seed)
    return {
        name: np.asarray(rng.standard_normal(y.shape), getattr(y, "dtype", np.float64))
        for name, y in ys.items()
    }


def with_zeros(cotangents: Mapping[str, Any], primals: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cotangents, with zeros for each primal for which a VJP returned none."""
    return {**{name: np.zeros(value.shape) for name, value in primals.items()}, **cotangents}


def copied(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of each array."""
    return {name: array.copy() for name, array in arrays.items()}


def require_close(
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    our_name: str,
    their_name: str,
    tolerance: float = RELATIVE,
    vanishing: tuple[str, ...] = (),
) -> None:
    """Compare arrays by name.

    Args:
        ours: arrays by name.
        theirs: arrays of the same names and shapes.
        our_name: what `ours` is, for the message.
        their_name: what `theirs` is.
        tolerance: largest difference, as a part of the largest value of `theirs` or of 0.001.
        vanishing: how the names of those arrays end that are 0 in theory. What remains of them is
            the rounding error of terms of about 1 that cancel (attention's key bias: up to 3e-14
            in float64), so the tolerance is a part of 1 and not of the largest value.

    Raises:
        CheckFailure: names, shapes or values differ.
    """
    if ours.keys() != theirs.keys():
        raise CheckFailure(f"{our_name} has {sorted(ours)}, {their_name} has {sorted(theirs)}")
    for name, value in ours.items():
        expected = np.asarray(theirs[name])
        least = 1.0 if name.endswith(vanishing) else 1e-3
        size = max(least, float(np.max(np.abs(expected), initial=0.0)))
        if value.shape != expected.shape:
            raise CheckFailure(
                f"{our_name} ({name}) has shape {value.shape}, {their_name} has {expected.shape}"
            )
        worst = float(np.max(np.abs(value - expected), initial=0.0))
        if not worst <= tolerance * size:
            raise CheckFailure(
                f"{our_name} ({name}) differs by {worst:.3g} from {their_name}, whose largest "
                f"value is {size:.3g}. Expected a difference of at most {tolerance * size:.3g}"
            )
