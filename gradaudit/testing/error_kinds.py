"""The kinds of planted errors: each turns the function of a right rule into a wrong one."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from gradaudit.numerics import numbers
from gradaudit.numerics.arithmetic import Array
from gradaudit.rules import Rule
from gradaudit.testing.planted import Changed

FACTOR = 1.0001
"""Of errors that are a factor: 1 in 10,000."""

Make = Callable[[Callable], Callable]
"""From the function of a right rule to that of a wrong one."""


class ErrorKind(NamedTuple):
    """An error that can be planted.

    name: what is wrong, such as "dx negated".
    make: from the function of the right rule to that of the wrong one.
    sort: "sign", "factor", "term" or "axis" of a cotangent or an update; "" for any other.
    """

    name: str
    make: Make
    sort: str = ""


def of_output() -> list[ErrorKind]:
    """Return errors of the output of a rule with a VJP."""
    return [
        ErrorKind("the output times 1.0001", _on_output(lambda y: y * FACTOR)),
        ErrorKind("the output negated", _on_output(lambda y: -y)),
    ]


def of_assigned() -> list[ErrorKind]:
    """Return errors of the values that a layer assigns to its variables."""
    return [ErrorKind("what is assigned times 1.0001", _on_assigned)]


def of_cotangent(d: str, place: int, axes: int) -> list[ErrorKind]:
    """Return errors of one of the cotangents that a VJP returns.

    Args:
        d: its name, for messages.
        place: its place among all that the VJP returns.
        axes: how many axes it has.
    """
    kinds = [
        ErrorKind(f"{d} negated", _on_cotangent(place, lambda c, again: -c), "sign"),
        ErrorKind(f"{d} times 1.0001", _on_cotangent(place, lambda c, again: c * FACTOR), "factor"),
        ErrorKind(
            f"{d} without the last row of dy", _on_cotangent(place, _without_last_term), "term"
        ),
        *(
            ErrorKind(f"{d} rolled along an axis", _on_cotangent(place, _rolled(axis)), "axis")
            for axis in reversed(range(axes))
        ),
    ]
    if place == 0:
        kinds.append(ErrorKind(f"{d} plus 0.001", _on_cotangent(place, lambda c, again: c + 0.001)))
    return kinds


def of_one_of_several(d: str, place: int) -> list[ErrorKind]:
    """Return errors that leave out the cotangent d, at a place among those of a layer's VJP."""
    return [ErrorKind(f"{d} left out", _left_out(place))]


def of_kinks(d: str, place: int, kinks: tuple[ArrayLike, ...]) -> list[ErrorKind]:
    """Return errors of the cotangent d, at a place among all, at the kinks of its input."""
    return [ErrorKind(f"{d} off at a kink", _on_kinks(place, kinks))] if kinks else []


def of_constraint() -> list[ErrorKind]:
    """Return errors of the new weight that a constraint returns."""

    def made_of(change: Callable[[Array, Array], Array]) -> Make:
        return lambda right: lambda call, weight: change(weight, right(call, weight))

    return [
        ErrorKind("the weight negated", made_of(lambda w, new: -new), "sign"),
        ErrorKind("the weight times 1.0001", made_of(lambda w, new: new * FACTOR), "factor"),
        ErrorKind(
            "the last row unconstrained",
            made_of(lambda w, new: np.concatenate([new[:-1], w[-1:]])),
            "term",
        ),
        ErrorKind(
            "the weight rolled along an axis",
            made_of(lambda w, new: np.roll(new, 1, axis=0)),
            "axis",
        ),
    ]


def of_optimizer(rule: Rule) -> list[ErrorKind]:
    """Return errors of the arguments and of the results of an optimizer's rule."""

    def given(change: Callable) -> Make:
        return lambda right: lambda *arguments: right(*change(*arguments))

    def made(change: Callable) -> Make:
        return lambda right: (
            lambda call, weight, gradient, slots: change(
                weight, slots, *right(call, weight, gradient, slots)
            )
        )

    def of_gradient(change: Callable[[Array], Array]) -> Make:
        return given(lambda call, w, g, slots: (call, w, change(g), slots))

    def of_slot(name: str, change: Callable[[Array, Array], Array]) -> Callable:
        def changed(weight: Array, slots: dict, new: Array, new_slots: dict) -> tuple:
            if name in new_slots:
                new_slots = {**new_slots, name: change(slots[name], new_slots[name])}
            return new, new_slots

        return made(changed)

    def of_call(change: Callable) -> Make:
        return given(lambda call, *arrays: (dataclasses.replace(call, **change(call)), *arrays))

    kinds = [
        ErrorKind("uphill", of_gradient(lambda g: -g), "sign"),
        ErrorKind("gradient times 1.0001", of_gradient(lambda g: g * FACTOR), "factor"),
        ErrorKind("gradient without its last row", of_gradient(_without_last_row), "term"),
        ErrorKind(
            "gradient rolled along an axis", of_gradient(lambda g: np.roll(g, 1, axis=0)), "axis"
        ),
        ErrorKind(
            "step times 1.0001",
            made(lambda w, slots, new, new_slots: (w + (new - w) * FACTOR, new_slots)),
            "factor",
        ),
        ErrorKind(
            "learning rate times 1.0001",
            of_call(lambda call: {"learning_rate": call.learning_rate * FACTOR}),
            "factor",
        ),
        ErrorKind("a step too many counted", of_call(lambda call: {"step": call.step + 1})),
    ]
    for name, _ in rule.slots:
        kinds += [
            ErrorKind(f"{name} not updated", of_slot(name, lambda old, new: old), "term"),
            ErrorKind(
                f"{name} times 1.0001", of_slot(name, lambda old, new: new * FACTOR), "factor"
            ),
        ]
    return kinds


def _on_output(change: Callable[[Array], Array]) -> Make:
    """Return a change of each output that leaves the VJP as it is."""

    def make(right: Callable) -> Callable:
        def wrong(*arguments: Any) -> Any:
            y, vjp = right(*arguments)
            return tuple(map(change, y)) if isinstance(y, tuple) else change(y), vjp

        return wrong

    return make


def _on_assigned(right: Callable) -> Callable:
    """Return a layer's rule that assigns values that are too large."""

    def wrong(call: Any, x: Any) -> Any:
        def assign(variable: Any, value: Array) -> None:
            call.step.assign(variable, value * FACTOR)

        return right(dataclasses.replace(call, step=Changed(call.step, assign=assign)), x)

    return wrong


Again = Callable[[Callable[[Array], Array]], Array]
"""From a change of dy to the cotangent that the VJP returns for the changed dy."""


def _on_cotangent(place: int, change: Callable[[Array, Again], Array]) -> Make:
    """Return a change of the cotangent at a place among those that a VJP returns."""

    def make(right: Callable) -> Callable:
        def wrong(*arguments: Any) -> Any:
            y, vjp = right(*arguments)

            def wrong_vjp(dy: Any) -> Any:
                def again(of_dy: Callable[[Array], Array]) -> Array:
                    changed = tuple(map(of_dy, dy)) if isinstance(dy, tuple) else of_dy(dy)
                    return _leaves(vjp(changed))[place]

                made = vjp(dy)
                leaves = _leaves(made)
                leaves[place] = change(leaves[place], again)
                return _with_leaves(made, leaves)

            return y, wrong_vjp

        return wrong

    return make


def _on_kinks(place: int, kinks: tuple[ArrayLike, ...]) -> Make:
    """Return a change that lowers a cotangent where the rule's last argument is at a kink.

    Lower: where TensorFlow's is no subgradient, rules take the one next to 0.
    """
    points = np.concatenate([np.ravel(kink) for kink in kinks])

    def make(right: Callable) -> Callable:
        def wrong(*arguments: Any) -> Any:
            x = arguments[-1][0] if isinstance(arguments[-1], tuple) else arguments[-1]
            there = np.isin(numbers(x), points)
            change = _on_cotangent(place, lambda c, again: np.where(there, c - 0.01, c))
            return change(right)(*arguments)

        return wrong

    return make


def _left_out(place: int) -> Make:
    """Return a change that leaves out the cotangent at a place among those of a VJP."""

    def make(right: Callable) -> Callable:
        def wrong(*arguments: Any) -> Any:
            y, vjp = right(*arguments)

            def wrong_vjp(dy: Any) -> Any:
                made = vjp(dy)
                leaves: list[Any] = _leaves(made)
                leaves[place] = None
                dx, cotangents = _with_leaves(made, leaves)
                return dx, {key: value for key, value in cotangents.items() if value is not None}

            return y, wrong_vjp

        return wrong

    return make


def _leaves(made: Any) -> list[Array]:
    """Return a flat list of what a VJP returned: dx, or (dx, cotangents of weights by name)."""
    if not isinstance(made, tuple):
        return [made]
    dx, cotangents = made
    dxs = dx if isinstance(dx, tuple) else (dx,)
    return [*(part for part in dxs if part is not None), *cotangents.values()]


def _with_leaves(made: Any, leaves: list[Array]) -> Any:
    """Return what a VJP returned, with its cotangents replaced: the inverse of `_leaves`."""
    if not isinstance(made, tuple):
        return leaves[0]
    dx, cotangents = made
    rest = iter(leaves)
    dxs = tuple(
        part if part is None else next(rest) for part in (dx if isinstance(dx, tuple) else (dx,))
    )
    return dxs if isinstance(dx, tuple) else dxs[0], dict(zip(cotangents, rest, strict=True))


def _without_last_term(cotangent: Array, again: Again) -> Array:
    """Leave out the contribution of dy's last row, or the cotangent's last row if dy is scalar."""
    scalar = False

    def of_dy(dy: Array) -> Array:
        nonlocal scalar
        scalar = dy.ndim == 0
        return dy if scalar else _without_last_row(dy)

    changed = again(of_dy)
    return _without_last_row(cotangent) if scalar else changed


def _without_last_row(array: Array) -> Array:
    """Return an array with 0 in its last row."""
    if array.ndim == 0:
        return 0.0 * array
    return np.concatenate([array[:-1], 0.0 * array[-1:]])


def _rolled(axis: int) -> Callable[[Array, Again], Array]:
    return lambda cotangent, again: np.roll(cotangent, 1, axis=axis)
