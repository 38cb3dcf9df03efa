"""Declares an elementwise activation: y = f(z), and dz from (z, y, dy), in one entry."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gradaudit.numerics import chained_through, nan_for_nan, numbers
from gradaudit.numerics.arithmetic import Array
from gradaudit.rules.context import ActivationCall
from gradaudit.rules.registry import Case, rule

SOURCE = "keras/src/activations/activations.py"


def elementwise(
    activation: Callable[..., Any],
    formula: str,
    dz: str,
    f: Callable[..., Any],
    vjp: Callable[..., Any],
    kinks: tuple[float, ...] = (),
    options: tuple[Mapping[str, Any], ...] = ({},),
    misled: Callable[..., tuple[np.ndarray, str]] | None = None,
) -> None:
    """Register the rule of an activation of each element by itself.

    Args:
        activation: the function of keras.activations.
        formula: of y, for the rule's docstring.
        dz: its formula, for the rule's docstring.
        f: (z, **options) to y.
        vjp: (z, y, dy, **options) to dz.
        kinks: where the derivative jumps; f and vjp take the side that TensorFlow takes.
        options: keyword arguments of the activation, a case for each.
        misled: (z in bare numbers, **options) to where TensorFlow's gradient is not the derivative,
            as a mask and in words.
    """

    def apply(call: ActivationCall, z: Array) -> tuple[Array, Callable[[Array], Array]]:
        if misled is not None:
            places, where = misled(numbers(z), **call.options)
            if np.any(places):
                call.misleads(activation.__name__, where)
        y = nan_for_nan(z, f(z, **call.options))

        def back(dy: Array) -> Array:
            return nan_for_nan(dy, chained_through(z, dy, vjp(z, y, dy, **call.options)))

        return y, back

    by_options = ", as the options of the cases make them" if kinks and len(options) > 1 else ""
    apply.__name__ = activation.__name__
    apply.__doc__ = (
        f"Apply y = {formula}, elementwise.\n\n"
        "Shapes: z, y, dy and dz alike.\n"
        f"VJP: dz = {dz}.\n"
        f"Kinks: {', '.join(map(str, kinks)) or 'none'}{by_options}."
    )
    cases = [
        Case(
            ",".join(f"{key}={value}" for key, value in chosen.items()) or "default",
            functools.partial(functools.partial, activation, **chosen),
            (3, 5),
            kinks,
        )
        for chosen in options
    ]
    rule(activation, cases=cases, source=SOURCE)(apply)


def as_held(number: float) -> float:
    """Return a constant as TensorFlow holds it in any precision: rounded to float32."""
    return float(np.float32(number))
