"""Rules that are wrong on purpose, each of which one check at least must refuse."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from gradaudit.numerics import Rounded
from gradaudit.rules import Rule, all_rules
from gradaudit.rules.optimizers.base import decayed
from gradaudit.testing.check import rule_of
from gradaudit.testing.planted_singular import SINGULAR


@dataclass(frozen=True)
class Planted:
    """A wrong rule.

    name: what is wrong.
    rule: the wrong rule, with the cases on which it is tried.
    refused_by: names of the checks that must refuse it, of `CHECKS`.
    """

    name: str
    rule: Rule
    refused_by: tuple[str, ...]


def _dense(change: Callable) -> Rule:
    """Return the rule of Dense with its (y, vjp) replaced by change(call, x, y, vjp)."""
    right = rule_of(keras.layers.Dense)

    def wrong(call, x):  # noqa: ANN001, ANN202
        return change(call, x, *right.function(call, x))

    return dataclasses.replace(right, function=wrong, cases=right.cases[:1])


def _on_cotangents(change: Callable) -> Callable:
    """Return a change that leaves y and lets change(dx, cotangents) replace the VJP's results."""
    return lambda call, x, y, vjp: (y, lambda dy: change(*vjp(dy)))


def _gradient_of_the_first_alone() -> Rule:
    right = rule_of(keras.layers.Maximum)

    def wrong(call, x):  # noqa: ANN001, ANN202
        y, vjp = right.function(call, x)
        return y, lambda dy: ((vjp(dy)[0][0], *(None for _ in x[1:])), {})

    ties = tuple(case for case in right.cases if case.ties)
    return dataclasses.replace(right, function=wrong, cases=ties)


def _relu_with_slope_at_0() -> Rule:
    right = rule_of(keras.activations.relu)

    def wrong(call, z):  # noqa: ANN001, ANN202
        y, _ = right.function(call, z)
        return y, lambda dy: np.where(z >= 0, dy, 0.0)

    return dataclasses.replace(right, function=wrong, cases=right.cases[:1])


def _l1(change: Callable) -> Rule:
    """Return the rule of L1 with its (penalty, vjp) replaced by change(w, penalty, vjp)."""
    right = rule_of(keras.regularizers.L1)

    def wrong(call, w):  # noqa: ANN001, ANN202
        return change(w, *right.function(call, w))

    return dataclasses.replace(right, function=wrong, cases=right.cases[:1])


def _half_epsilon_adam() -> Rule:
    right = rule_of(keras.optimizers.Adam)

    def wrong(call, weight, gradient, slots):  # noqa: ANN001, ANN202
        new, new_slots = right.function(call, weight, gradient, slots)
        return new, {**new_slots, "velocity": new_slots["velocity"] * 1.0001}

    return dataclasses.replace(right, function=wrong, cases=right.cases[:1])


class Changed:
    """An object with some of its attributes replaced."""

    def __init__(self, of: Any, **attributes: Any) -> None:
        self._of = of
        vars(self).update(attributes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)


def _update(target: type, change: Callable) -> Rule:
    """Return an optimizer's rule with its arguments changed."""
    right = rule_of(target)

    def wrong(call, weight, gradient, slots):  # noqa: ANN001, ANN202
        return right.function(*change(call, weight, gradient, slots))

    return dataclasses.replace(right, function=wrong, cases=right.cases[:1])


def _with(**attributes: float) -> Callable:
    """Return a change of the optimizer's hyperparameters."""
    return lambda call, *arrays: (
        dataclasses.replace(call, optimizer=Changed(call.optimizer, **attributes)),
        *arrays,
    )


def _late(call, *arrays):  # noqa: ANN001, ANN002, ANN202
    return dataclasses.replace(call, step=10_000), *arrays


def _uphill(call, weight, gradient, slots):  # noqa: ANN001, ANN202
    return call, weight, -gradient, slots


def _decayed_again(call, weight, gradient, slots):  # noqa: ANN001, ANN202
    decay = call.number(call.optimizer.weight_decay)
    return call, decayed(weight, decay, call.learning_rate), gradient, slots


def _unconstrained() -> Rule:
    right = rule_of(keras.constraints.UnitNorm)

    def wrong(call, w):  # noqa: ANN001, ANN202
        return w * 1.0

    return dataclasses.replace(right, function=wrong, cases=right.cases[:1])


def _in_place(call, x, y, vjp):  # noqa: ANN001, ANN202
    def wrong(dy):  # noqa: ANN001, ANN202
        if isinstance(dy, np.ndarray):
            dy *= 2
            return vjp(dy / 2)
        return vjp(dy)

    return y, wrong


def _forgotten_error(array):  # noqa: ANN001, ANN202
    if not isinstance(array, Rounded):
        return array
    return Rounded(
        array.value, None if array.variance is None else array.variance / 1e4, None, array.precision
    )


def _wide_bound(array):  # noqa: ANN001, ANN202
    if not isinstance(array, Rounded) or not array.precision.bound or array.variance is None:
        return array
    return Rounded(array.value, array.variance * 4, None, array.precision)


def _detour(array):  # noqa: ANN001, ANN202
    return (array + 1e6) - 1e6 if isinstance(array, Rounded) else array


def _double(array):  # noqa: ANN001, ANN202
    return array * np.ones(1) if isinstance(array, np.ndarray) else array


_OPTIMIZERS = [known.target for known in all_rules() if known.kind == "optimizer"]
_COUNTING = [
    getattr(keras.optimizers, name)
    for name in "Adafactor Adam AdamW Adamax Lamb Nadam ScheduleFreeAdamW".split()
]
_HYPERPARAMETERS = [
    (getattr(keras.optimizers, name), changed)
    for name, changed in (
        ("Adadelta", {"rho": 0.9501}),
        ("Adafactor", {"beta_2_decay": -0.8001}),
        ("Adagrad", {"epsilon": 1e-5}),
        ("Adam", {"beta_1": 0.9001}),
        ("AdamW", {"beta_2": 0.9991}),
        ("Adamax", {"beta_1": 0.9001}),
        ("Ftrl", {"learning_rate_power": -0.5001}),
        ("Lamb", {"beta_1": 0.9001}),
        ("Lion", {"beta_2": 0.9901}),
        ("Muon", {"momentum": 0.9501}),
        ("Nadam", {"beta_1": 0.9001}),
        ("RMSprop", {"rho": 0.9001}),
        ("ScheduleFreeAdamW", {"beta_2": 0.9991}),
    )
]
_NUMERIC = ("vjp_equals_tape", "rule_equals_trace", "vjp_equals_differences", "audit_passes")

PLANTED: tuple[Planted, ...] = (
    Planted(
        "forward with a factor",
        _dense(lambda call, x, y, vjp: (y * 1.0001, vjp)),
        ("forward_equals_keras", "audit_passes"),
    ),
    Planted("sign of dx", _dense(_on_cotangents(lambda dx, c: (-dx, c))), _NUMERIC[:3]),
    Planted(
        "kernel gradient off by 1e-4",
        _dense(_on_cotangents(lambda dx, c: (dx, {**c, "kernel": c["kernel"] * 1.0001}))),
        _NUMERIC,
    ),
    Planted(
        "bias gradient a mean in place of a sum",
        _dense(_on_cotangents(lambda dx, c: (dx, {**c, "bias": c["bias"] / 4}))),
        _NUMERIC,
    ),
    Planted(
        "bias gradient dropped",
        _dense(_on_cotangents(lambda dx, c: (dx, {"kernel": c["kernel"]}))),
        ("every_weight_has_a_cotangent", "vjp_equals_tape"),
    ),
    Planted(
        "Maximum without the gradients of all inputs but the first",
        _gradient_of_the_first_alone(),
        ("every_weight_has_a_cotangent", "vjp_equals_tape"),
    ),
    Planted(
        "constant added to the VJP",
        _dense(_on_cotangents(lambda dx, c: (dx + 0.001, c))),
        ("vjp_is_linear", "vjp_equals_tape"),
    ),
    Planted("cotangent changed in place", _dense(_in_place), ("rule_is_pure",)),
    Planted(
        "float64 in the float32 run",
        _dense(lambda call, x, y, vjp: (_double(y), vjp)),
        ("stays_float32",),
    ),
    Planted(
        "rounding error forgotten",
        _dense(lambda call, x, y, vjp: (_forgotten_error(y), vjp)),
        ("rounding_is_calibrated",),
    ),
    Planted(
        "lower bound of the rounding error twice too large",
        _dense(lambda call, x, y, vjp: (_wide_bound(y), vjp)),
        ("bound_is_below_sigma",),
    ),
    Planted(
        "rounding error of a detour",
        _dense(lambda call, x, y, vjp: (_detour(y), vjp)),
        ("rounding_is_calibrated",),
    ),
    Planted("slope 1 at the kink of relu", _relu_with_slope_at_0(), ("kinks_as_keras",)),
    Planted(
        "penalty of L1 off by 1e-4",
        _l1(lambda w, penalty, vjp: (penalty * 1.0001, vjp)),
        ("forward_equals_keras", "rounding_is_calibrated", "audit_passes"),
    ),
    Planted(
        "gradient of L1 off by 1e-4",
        _l1(lambda w, penalty, vjp: (penalty, lambda dp: vjp(dp) * 1.0001)),
        _NUMERIC,
    ),
    Planted(
        "slope 1 at the kink of L1",
        _l1(lambda w, penalty, vjp: (penalty, lambda dp: vjp(dp) + np.where(w == 0, 0.01, 0.0))),
        ("kinks_as_keras",),
    ),
    Planted(
        "velocity of Adam off by 1e-4",
        _half_epsilon_adam(),
        ("forward_equals_keras", "rounding_is_calibrated", "audit_passes"),
    ),
    *(
        Planted(f"{target.__name__} uphill", _update(target, _uphill), ("forward_equals_keras",))
        for target in _OPTIMIZERS
    ),
    *(
        Planted(
            f"{target.__name__} with another {' and '.join(changed)}",
            _update(target, _with(**changed)),
            ("forward_equals_keras",),
        )
        for target, changed in _HYPERPARAMETERS
    ),
    *(
        Planted(
            f"{target.__name__} without its early steps",
            _update(target, _late),
            ("forward_equals_keras", "audit_passes"),
        )
        for target in _COUNTING
    ),
    Planted(
        "decay of AdamW applied twice",
        _update(keras.optimizers.AdamW, _decayed_again),
        ("forward_equals_keras", "rounding_is_calibrated", "audit_passes"),
    ),
    Planted(
        "SGD at half the rate",
        _update(
            keras.optimizers.SGD,
            lambda call, *arrays: (
                dataclasses.replace(call, learning_rate=call.learning_rate * 0.5),
                *arrays,
            ),
        ),
        ("forward_equals_keras", "audit_passes"),
    ),
    *(Planted(*each) for each in SINGULAR),
    Planted("no unit norm", _unconstrained(), ("forward_equals_keras", "audit_passes")),
)
