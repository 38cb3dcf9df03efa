"""Errors planted in every rule: from a right rule to wrong ones, and which checks refuse them.

An error is planted where it is one: in the first case of the rule in which it changes what the rule
computes. The sign of a gradient that is 0 would be no error.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np

from gradaudit.checks.check import CHECKS
from gradaudit.checks.planted import Changed, Planted
from gradaudit.checks.subject import Subject, subject
from gradaudit.checks.updates import KINDS, updates
from gradaudit.errors import CheckFailure
from gradaudit.models.precision import floats
from gradaudit.numerics import Plain
from gradaudit.numerics.arithmetic import Array
from gradaudit.rules import Case, Rule

CHEAP = (
    "forward_equals_keras",
    "vjp_equals_tape",
    "vjp_equals_differences",
    "vjp_is_linear",
    "every_weight_has_a_cotangent",
    "kinks_as_keras",
)
"""Checks that are quick enough to be run on a thousand wrong rules."""

FEWEST = 3
"""Errors that are planted in each rule, at least."""

FACTOR = 1.0001
"""Of errors that are a factor: 1 in 10,000."""

_REAL = 1e-9
"""What an error changes at least, as a part of the largest value: 1,000 times a tolerance."""

_DOUBLE = Plain(np.float64)


class Fault(NamedTuple):
    """An error that can be planted. make: from the function of a right rule to a wrong one."""

    name: str
    make: Callable[[Callable], Callable]


@dataclass(frozen=True)
class Trial:
    """What checks said of one planted error. refused: check to whether it refuses the wrong rule.

    error: its name. case: that on which it was tried.
    """

    rule: Rule
    error: str
    case: str
    refused: Mapping[str, bool]

    @property
    def is_refused(self) -> bool:
        """Whether at least one check refuses it."""
        return any(self.refused.values())


def trials(rule: Rule, checks: Iterable[str] = CHEAP) -> list[Trial]:
    """Return what checks say of each error that is planted in a rule.

    Raises:
        CheckFailure: a check refuses the rule as it is, so that its refusals would say nothing.
    """
    found = []
    for case, planted in itertools.groupby(mutations(rule), lambda wrong: wrong.rule.cases[0]):
        switch = _Switch(rule.function)
        switched = dataclasses.replace(rule, function=switch)
        for name in checks:
            try:
                CHECKS[name](switched, case)
            except CheckFailure as failure:
                raise CheckFailure(
                    f"{rule.kind} rule {rule.name}, case {case.name!r}, is refused by {name} "
                    f"as it is, with no planted error: {failure}"
                ) from failure
        for wrong in planted:
            switch.function = wrong.rule.function
            refused = {name: _refuses(name, switched, case) for name in checks}
            found.append(Trial(rule, wrong.name, case.name, refused))
    return found


class _Switch:
    """A rule's function that is replaced by others.

    subjects: what the checks have made of Keras's object, which stays the same for all of them.
    """

    def __init__(self, function: Callable) -> None:
        self.function = function
        self.subjects: dict[tuple, Subject] = {}

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)


def _refuses(check: str, rule: Rule, case: Case) -> bool:
    try:
        CHECKS[check](rule, case)
    except CheckFailure:
        return True
    return False


def mutations(rule: Rule) -> list[Planted]:
    """Return wrong rules of one case each, in which the planted error is one."""
    found: dict[str, Planted] = {}
    for case in rule.cases:
        with floats("float64"):
            faults, run = (_of_update if rule.kind in KINDS else _of_gradient)(rule, case)
            right = run(rule.function)
            for fault in faults:
                function = fault.make(rule.function)
                if fault.name not in found and _differ(right, run(function)):
                    wrong = dataclasses.replace(rule, function=function, cases=(case,))
                    found[fault.name] = Planted(fault.name, wrong, ())
        every_weight = all(f"d{name} negated" in found for name in rule.weights)
        if every_weight and found.keys() >= {fault.name for fault in faults}:
            break
    return list(found.values())


def _differ(right: Mapping[str, Any], wrong: Mapping[str, Any]) -> bool:
    """Return whether two results differ by more than rounding errors and tolerances do."""
    if right.keys() != wrong.keys():
        return True
    for name, value in right.items():
        expected = np.asarray(value, np.float64)
        size = max(1e-3, float(np.max(np.abs(expected), initial=0.0)))
        if np.max(np.abs(np.asarray(wrong[name]) - expected), initial=0.0) > _REAL * size:
            return True
    return False


Run = Callable[[Callable], dict[str, Any]]
"""From the function of a rule, right or wrong, to what it makes of a case, by name."""


def _of_gradient(rule: Rule, case: Case) -> tuple[list[Fault], Run]:
    """Return the errors that can be planted in a rule with a VJP, and what runs it on a case."""
    switch = _Switch(rule.function)
    switched = dataclasses.replace(rule, function=switch)
    keras.utils.set_random_seed(4)
    found = subject(switched, case, "float64", np.random.default_rng(4))
    y, vjp, assigned = found.rule(_DOUBLE, found.primals)
    rng = np.random.default_rng(5)
    dy = {name: rng.standard_normal(value.shape) for name, value in y.items()}
    cotangents = vjp(dy)

    def run(other: Callable) -> dict[str, Any]:
        switch.function = other
        ys, other_vjp, new = found.rule(_DOUBLE, found.primals)
        dys = {f"d{name}": value for name, value in other_vjp(dy).items()}
        return {**ys, **dys, **{f"new {name}": value for name, value in new.items()}}

    faults = [
        Fault("the output times 1.0001", _on_output(lambda y: y * FACTOR)),
        Fault("the output negated", _on_output(lambda y: -y)),
    ]
    if assigned:
        faults.append(Fault("what is assigned times 1.0001", _on_assigned))
    for place, (name, value) in enumerate(cotangents.items()):
        d = f"d{name.rpartition('/')[2]}"
        faults += [
            Fault(f"{d} negated", _on_cotangent(place, lambda c, again: -c)),
            Fault(f"{d} times 1.0001", _on_cotangent(place, lambda c, again: c * FACTOR)),
            Fault(f"{d} without the last row of dy", _on_cotangent(place, _without_last_term)),
            *(
                Fault(f"{d} rolled along an axis", _on_cotangent(place, _rolled(axis)))
                for axis in reversed(range(value.ndim))
            ),
        ]
        if name in found.variables:
            faults.append(Fault(f"{d} left out", _left_out(place)))
    return faults, run


def _on_output(change: Callable[[Array], Array]) -> Callable[[Callable], Callable]:
    """Return what changes each output, and leaves the VJP."""

    def make(right: Callable) -> Callable:
        def wrong(*arguments: Any) -> Any:
            y, vjp = right(*arguments)
            return tuple(map(change, y)) if isinstance(y, tuple) else change(y), vjp

        return wrong

    return make


def _on_assigned(right: Callable) -> Callable:
    """Return a layer's rule whose new values of variables are too large."""

    def wrong(call: Any, x: Any) -> Any:
        def assign(variable: Any, value: Array) -> None:
            call.step.assign(variable, value * FACTOR)

        return right(dataclasses.replace(call, step=Changed(call.step, assign=assign)), x)

    return wrong


Again = Callable[[Callable[[Array], Array]], Array]
"""From a change of dy to what the cotangent in question becomes by it."""


def _on_cotangent(
    place: int, change: Callable[[Array, Again], Array]
) -> Callable[[Callable], Callable]:
    """Return what changes one of the cotangents that a VJP returns, counted in their order."""

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


def _left_out(place: int) -> Callable[[Callable], Callable]:
    """Return what leaves out the cotangent of a weight."""

    def make(right: Callable) -> Callable:
        def wrong(*arguments: Any) -> Any:
            y, vjp = right(*arguments)

            def wrong_vjp(dy: Any) -> Any:
                dx, cotangents = made = vjp(dy)
                first = len(_leaves(made)) - len(cotangents)
                kept = [key for n, key in enumerate(cotangents, first) if n != place]
                return dx, {key: cotangents[key] for key in kept}

            return y, wrong_vjp

        return wrong

    return make


def _leaves(made: Any) -> list[Array]:
    """Return the cotangents that a VJP returned: dx, or (dx, cotangents of weights by name)."""
    if not isinstance(made, tuple):
        return [made]
    dx, cotangents = made
    dxs = dx if isinstance(dx, tuple) else (dx,)
    return [*(part for part in dxs if part is not None), *cotangents.values()]


def _with_leaves(made: Any, leaves: list[Array]) -> Any:
    """Return what a VJP returned with other cotangents."""
    if not isinstance(made, tuple):
        return leaves[0]
    dx, cotangents = made
    rest = iter(leaves)
    dxs = tuple(
        part if part is None else next(rest) for part in (dx if isinstance(dx, tuple) else (dx,))
    )
    return dxs if isinstance(dx, tuple) else dxs[0], dict(zip(cotangents, rest, strict=True))


def _without_last_term(cotangent: Array, again: Again) -> Array:
    """Leave out what the last row of dy gives; or the last row itself, where dy is one number."""
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


def _of_update(rule: Rule, case: Case) -> tuple[list[Fault], Run]:
    """Return the errors that can be planted in an optimizer or a constraint, and what runs it."""

    def run(function: Callable) -> dict[str, Any]:
        other = dataclasses.replace(rule, function=function)
        steps = updates(other, case, "float64", _DOUBLE)
        return {
            f"{name} {number}": value
            for number, (ours, _) in enumerate(steps)
            for name, value in ours.items()
        }

    return _faults_of_constraint() if rule.kind == "constraint" else _faults_of_optimizer(rule), run


def _faults_of_constraint() -> list[Fault]:
    def made_of(change: Callable[[Array, Array], Array]) -> Callable[[Callable], Callable]:
        return lambda right: lambda call, weight: change(weight, right(call, weight))

    return [
        Fault("the weight negated", made_of(lambda w, new: -new)),
        Fault("the weight times 1.0001", made_of(lambda w, new: new * FACTOR)),
        Fault(
            "the last row unconstrained",
            made_of(lambda w, new: np.concatenate([new[:-1], w[-1:]])),
        ),
        Fault("the weight rolled along an axis", made_of(lambda w, new: np.roll(new, 1, axis=0))),
    ]


def _faults_of_optimizer(rule: Rule) -> list[Fault]:
    def given(change: Callable) -> Callable[[Callable], Callable]:
        return lambda right: lambda *arguments: right(*change(*arguments))

    def made(change: Callable) -> Callable[[Callable], Callable]:
        return lambda right: (
            lambda call, weight, gradient, slots: change(
                weight, slots, *right(call, weight, gradient, slots)
            )
        )

    def of_gradient(change: Callable[[Array], Array]) -> Callable[[Callable], Callable]:
        return given(lambda call, w, g, slots: (call, w, change(g), slots))

    def of_slot(name: str, change: Callable[[Array, Array], Array]) -> Callable:
        def changed(weight: Array, slots: dict, new: Array, new_slots: dict) -> tuple:
            if name in new_slots:
                new_slots = {**new_slots, name: change(slots[name], new_slots[name])}
            return new, new_slots

        return made(changed)

    def of_call(change: Callable) -> Callable[[Callable], Callable]:
        return given(lambda call, *arrays: (dataclasses.replace(call, **change(call)), *arrays))

    faults = [
        Fault("uphill", of_gradient(lambda g: -g)),
        Fault("gradient times 1.0001", of_gradient(lambda g: g * FACTOR)),
        Fault("gradient without its last row", of_gradient(_without_last_row)),
        Fault("gradient rolled along an axis", of_gradient(lambda g: np.roll(g, 1, axis=0))),
        Fault(
            "step times 1.0001",
            made(lambda w, slots, new, new_slots: (w + (new - w) * FACTOR, new_slots)),
        ),
        Fault(
            "learning rate times 1.0001",
            of_call(lambda call: {"learning_rate": call.learning_rate * FACTOR}),
        ),
        Fault("a step too many counted", of_call(lambda call: {"step": call.step + 1})),
    ]
    for name, _ in rule.slots:
        faults += [
            Fault(f"{name} not updated", of_slot(name, lambda old, new: old)),
            Fault(f"{name} times 1.0001", of_slot(name, lambda old, new: new * FACTOR)),
        ]
    return faults
