"""The checks of a rule in float32: it stays float32, and its rounding errors are calibrated."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gradaudit.errors import CheckFailure
from gradaudit.nets.precision import floats
from gradaudit.numerics import (
    PRECISIONS,
    Arithmetic,
    Plain,
    Reordering,
    Rounded,
    Rounding,
    as_rounded,
    exact,
    numbers,
)
from gradaudit.records import Arrays, Estimate, Oracle
from gradaudit.reference.kappa import beside, refined
from gradaudit.rules import Case, Rule
from gradaudit.testing.agreement import random_cotangents
from gradaudit.testing.subject import Primals, Subject
from gradaudit.testing.subjects import Subjects
from gradaudit.testing.updates import KINDS, updates, updates_and_bounds

HALF_THRESHOLD = 4.0
"""Errors of correct float32 code stay below this many σ: half the default threshold of an audit."""

CORRELATED = 8.0
"""And below this many of the σ of independent errors, without the further twins of an audit."""

LEAST_RMS = 0.02
"""σ is useless where real rounding errors are below this part of it."""


def stays_float32(rule: Rule, case: Case, subjects: Subjects) -> None:
    """Run in float32, the rule makes no float64 array, so that the twin runs are float32 runs."""
    for arithmetic in (Plain(np.float32), Reordering(0)):
        arrays: dict[str, Any] = {}
        if rule.kind in KINDS:
            for ours, _ in updates(rule, case, "float32", arithmetic):
                arrays |= ours
        else:
            with floats("float32"):
                found = subjects.of(rule, case, "float32")
                y, vjp, assigned, *_ = found.run(rule, arithmetic, found.primals)
                cotangents = vjp(random_cotangents(y))
                arrays = {**y, **assigned, **{f"d{name}": d for name, d in cotangents.items()}}
        for name, value in arrays.items():
            if value.dtype != np.float32:
                raise CheckFailure(
                    f"{name} is {value.dtype}. Expected float32: an array constant promoted it to "
                    f"{value.dtype}; use a Python float, or call.array(constant)"
                )


def bound_is_below_sigma(rule: Rule, case: Case, subjects: Subjects) -> None:
    """The lower bound of σ, by which most steps of an audit are judged, is at most σ.

    The values are the same. Elements next to a kink are left out: a bound has no kinks. The bound
    of an update is that of `reference.bounds`, for rules that move each element by itself.
    """
    if rule.kind in KINDS:
        for made, least in updates_and_bounds(rule, case):
            _require_below(made, least)
        return
    with floats("float32"), np.errstate(all="ignore"):
        found = subjects.of(rule, case, "float32")
        made, least = (
            _errors(found, rule, arithmetic) for arithmetic in (Rounding(), Rounding(bound=True))
        )
    _require_below(made, least)


def _require_below(made: Mapping[str, Any], least: Mapping[str, Any]) -> None:
    """Compare values and σ with values and lower bounds, by name.

    Raises:
        CheckFailure: the values are others, or a bound is above σ.
    """
    for name, value in made.items():
        each, bound = as_rounded(value), least[name]
        apart = np.zeros(each.shape, bool) if each.kink is None else each.kink > 0
        slack = 1e-6 * each.sigma + 1e-12 * np.abs(each.value)
        away = np.abs(bound.value - each.value) > slack
        above = bound.sigma > each.sigma * (1 + 1e-5)  # a bound is made of float32 numbers
        for what, which in (("the value", away), ("σ", above)):
            if (which & ~apart).any():
                raise CheckFailure(
                    f"{what} of {name} is another one where a lower bound of σ will do. Expected "
                    "the same values, and at most σ"
                )


def _errors(found: Subject, rule: Rule, arithmetic: Rounding) -> dict[str, Rounded]:
    """Return each output and cotangent by name, with its rounding error."""
    run = found.run(rule, arithmetic, found.primals)
    dys = {n: np.asarray(dy, np.float32) for n, dy in random_cotangents(run.y).items()}
    back = run.vjp({name: exact(arithmetic.array(dy, "float32")) for name, dy in dys.items()})
    made = {**run.y, **run.assigned, **_named(back)}
    return {name: as_rounded(value) for name, value in made.items()}


def rounding_is_calibrated(rule: Rule, case: Case, subjects: Subjects) -> None:
    """Keras's float32 errors are at most HALF_THRESHOLD σ each, and LEAST_RMS σ or more in rms.

    Twelve draws of inputs and weights; the rms is taken over all elements and draws of an array.
    Where one is larger, but at most CORRELATED σ, σ is that of further twins of the rule, as in an
    audit.
    """
    scores: dict[int, list[np.ndarray]] = {}  # by place: Keras numbers the names of parts anew
    names: dict[int, str] = {}
    for seed in range(12):
        theirs, ours, errors = _float32_runs(rule, case, subjects, seed)
        for place, (name, each) in enumerate(ours.items()):
            names.setdefault(place, name)
            z = _scores(theirs[name], each)
            if errors is not None and HALF_THRESHOLD < np.max(z, initial=0.0) <= CORRELATED:
                each = refined({name: each}, theirs, errors)[name]
                z = _scores(theirs[name], each)
            if not np.max(z, initial=0.0) <= HALF_THRESHOLD:  # nor is NaN
                raise CheckFailure(
                    f"{name} is off by {np.max(z):.2f} σ in correct code. Expected at most "
                    f"{HALF_THRESHOLD}: the rule is better conditioned than Keras's computation"
                )
            if (each.sigma > 0).any():
                scores.setdefault(place, []).append(z[each.sigma > 0].ravel())
    for place, found in scores.items():
        z = np.concatenate(found)
        rms = float(np.sqrt(np.mean(z**2)))
        if z.any() and not rms >= LEAST_RMS:
            raise CheckFailure(
                f"errors of {names[place]} are {rms:.3f} σ in rms. Expected {LEAST_RMS} or more: "
                "the rule is worse conditioned than Keras's computation, and would hide errors"
            )


def _float32_runs(
    rule: Rule, case: Case, subjects: Subjects, seed: int
) -> tuple[dict[str, Any], dict[str, Estimate], Callable[[int], Arrays] | None]:
    """Return Keras's float32 values and the rule's estimates, of each output and cotangent by name.

    The third makes the errors of further twins; None for rules of updates, which an audit judges
    without.
    """
    rounding = Rounding()
    if rule.kind in KINDS:
        theirs, ours = {}, {}
        for step, (of_rule, of_keras) in enumerate(updates(rule, case, "float32", rounding, seed)):
            for name, value in of_rule.items():
                theirs[f"{name} after step {step}"] = of_keras[name]
                ours[f"{name} after step {step}"] = _estimate(value)
        return theirs, ours, None
    with floats("float32"):
        found = subjects.of(rule, case, "float32", seed)
        run, keras_run = found.run(rule, rounding, found.primals), found.tape(found.primals)
        dys = {n: np.asarray(dy, np.float32) for n, dy in random_cotangents(run.y, seed).items()}
        tape = keras_run.vjp(dys)
        exact = {name: Rounded(dy, None, None, PRECISIONS["float32"]) for name, dy in dys.items()}
        made = {**run.y, **run.assigned, **_named(run.vjp(exact))}
        known = {**keras_run.y, **keras_run.assigned, **_named(tape)}
        ours = {name: _estimate(value) for name, value in made.items()}

    def errors(number: int) -> Arrays:
        primals = {name: beside(value, number) for name, value in found.primals.items()}
        moved = {name: beside(dy, number) for name, dy in dys.items()}
        with floats("float32"):
            right = _plain(found, rule, primals, moved, Plain(np.float64))
            twin = _plain(found, rule, primals, moved, Reordering(number))
        return {name: numbers(twin[name]) - value for name, value in right.items()}

    return {name: known[name] for name in ours}, ours, errors


def _scores(theirs: np.ndarray, ours: Estimate) -> np.ndarray:
    """Return by how many σ Keras's values are off, where no kink explains it."""
    kink = 0.0 if ours.kink is None else ours.kink
    with np.errstate(all="ignore"):
        beyond = np.maximum(np.abs(theirs - ours.value) - kink, 0.0)
        return np.where(beyond == 0, 0.0, beyond / ours.sigma)


def _plain(
    found: Subject, rule: Rule, primals: Primals, dys: Arrays, arithmetic: Arithmetic
) -> Arrays:
    """Return each output and cotangent by name, in an arithmetic without rounding errors."""
    run = found.run(rule, arithmetic, primals)
    back = run.vjp({name: arithmetic.array(dy, "float32") for name, dy in dys.items()})
    return {**run.y, **run.assigned, **_named(back)}


def _named(cotangents: Mapping[str, Any]) -> dict[str, Any]:
    return {f"d{name}": value for name, value in cotangents.items()}


def _estimate(value: Any) -> Estimate:
    rounded = as_rounded(value)
    return Estimate(rounded.value, rounded.sigma, rounded.kink, 1.0, Oracle.DERIVED)
