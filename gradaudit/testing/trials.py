"""Errors planted in every rule: each makes a wrong rule, on which the checks are tried.

An error is planted in the first case of the rule in which it changes a result: the sign of a
gradient that is 0 would be no error.
"""

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gradaudit.errors import CheckFailure
from gradaudit.nets.precision import floats
from gradaudit.numerics import Plain
from gradaudit.rules import Case, Rule
from gradaudit.testing import error_kinds
from gradaudit.testing.check import CHECKS, applicable
from gradaudit.testing.error_kinds import ErrorKind
from gradaudit.testing.subjects import Subjects
from gradaudit.testing.updates import KINDS, updates

CHEAP = (
    "forward_equals_keras",
    "vjp_equals_tape",
    "vjp_equals_differences",
    "vjp_is_linear",
    "every_weight_has_a_cotangent",
    "kinks_as_keras",
    "tie_gives_a_subgradient",
)
"""Checks that are quick enough to run on thousands of wrong rules."""

FEWEST = 3
"""Errors that are planted in each rule, at least: of a sign, a factor, a term or an axis."""

_REAL = 1e-9
"""Least change by an error, as a part of the largest value: 1,000 times a tolerance."""

_DOUBLE = Plain(np.float64)


@dataclass(frozen=True)
class Trial:
    """What the checks said of one planted error.

    rule: the right rule.
    error: the name of the error.
    sort: see `ErrorKind`.
    case: the name of the case on which it was tried.
    refused: names of checks to whether they refuse the wrong rule; False where one does not apply.
    """

    rule: Rule
    error: str
    sort: str
    case: str
    refused: Mapping[str, bool]

    @property
    def is_refused(self) -> bool:
        """Whether at least one check refuses it."""
        return any(self.refused.values())


def trials(rule: Rule, checks: Iterable[str] = CHEAP) -> list[Trial]:
    """Return what the checks say of each error that is planted in a rule.

    Args:
        rule: the right rule.
        checks: names of the checks to run, of `CHECKS`.

    Raises:
        CheckFailure: a check refuses the rule as it is, so that its refusals would say nothing.
    """
    checks = list(checks)
    found = []
    for case, planted in itertools.groupby(wrong_rules(rule), lambda wrong: wrong.rule.cases[0]):
        subjects = Subjects()
        for name in applicable(rule, case, checks):
            try:
                CHECKS[name](rule, case, subjects)
            except CheckFailure as failure:
                raise CheckFailure(
                    f"{rule.kind} rule {rule.name}, case {case.name!r}, is refused by {name} "
                    f"as it is, with no planted error: {failure}"
                ) from failure
        for wrong in planted:
            refused = {name: refuses(name, wrong.rule, case, subjects) for name in checks}
            found.append(Trial(rule, wrong.error.name, wrong.error.sort, case.name, refused))
    return found


def refuses(check: str, rule: Rule, case: Case, subjects: Subjects) -> bool:
    """Return whether a check refuses a rule on a case; False where the check does not apply.

    An error other than `CheckFailure` is raised: it comes from the check and not from its verdict.

    Args:
        check: the check's name, of `CHECKS`.
        rule: a right or a wrong rule.
        case: the case on which it is tried.
        subjects: those that earlier checks of the case have built.
    """
    if not applicable(rule, case, [check]):
        return False
    try:
        CHECKS[check](rule, case, subjects)
    except CheckFailure:
        return True
    return False


class Wrong(NamedTuple):
    """A rule with a planted error, and with the one case on which it is tried."""

    error: ErrorKind
    rule: Rule


def wrong_rules(rule: Rule) -> list[Wrong]:
    """Return wrong rules of one case each: the first in which the error changes a result."""
    found: dict[str, Wrong] = {}
    for case in rule.cases:
        with floats("float64"):
            errors, run = (_of_update if rule.kind in KINDS else _of_gradient)(rule, case)
            right = run(rule.function)
            for error in errors:
                function = error.make(rule.function)
                if error.name not in found and _differ(right, run(function)):
                    wrong = dataclasses.replace(rule, function=function, cases=(case,))
                    found[error.name] = Wrong(error, wrong)
        every_weight = all(f"d{name} negated" in found for name in rule.weights)
        if every_weight and found.keys() >= {error.name for error in errors}:
            break
    return list(found.values())


def _differ(right: Mapping[str, Any], wrong: Mapping[str, Any]) -> bool:
    """Return whether two results differ by more than rounding errors and tolerances."""
    if right.keys() != wrong.keys():
        return True
    for name, value in right.items():
        expected = np.asarray(value, np.float64)
        size = max(1e-3, float(np.max(np.abs(expected), initial=0.0)))
        if np.max(np.abs(np.asarray(wrong[name]) - expected), initial=0.0) > _REAL * size:
            return True
    return False


Compute = Callable[[Callable], dict[str, Any]]
"""From the function of a rule, right or wrong, to all its results on a case, by name."""


def _of_gradient(rule: Rule, case: Case) -> tuple[list[ErrorKind], Compute]:
    """Return the errors that can be planted in a rule with a VJP, and a function that runs it."""
    found = Subjects().of(rule, case)
    y, vjp, assigned, *_ = found.run(rule, _DOUBLE, found.primals)
    rng = np.random.default_rng(5)
    dy = {name: rng.standard_normal(value.shape) for name, value in y.items()}
    first = next(iter(found.primals))
    at_kinks = {
        f" at {kink!r}": {**found.primals, first: np.full(case.shapes[0], kink)}
        for kink in case.kinks
    }

    def run(function: Callable) -> dict[str, Any]:
        other = dataclasses.replace(rule, function=function)
        made: dict[str, Any] = {}
        for where, primals in {"": found.primals, **at_kinks}.items():
            ys, vjp, new, *_ = found.run(other, _DOUBLE, primals)
            made |= {f"{name}{where}": value for name, value in ys.items()}
            made |= {f"d{name}{where}": value for name, value in vjp(dy).items()}
            made |= {f"new {name}{where}": value for name, value in new.items()}
        return made

    errors = error_kinds.of_output() + (error_kinds.of_assigned() if assigned else [])
    cotangents = vjp(dy)
    for place, (label, name) in enumerate(zip(_labels(cotangents), cotangents, strict=True)):
        errors += error_kinds.of_cotangent(f"d{label}", place, cotangents[name].ndim)
        if rule.kind in ("layer", "operation") and name in found.differentiable:
            errors += error_kinds.of_one_of_several(f"d{label}", place)
        if name == first:
            errors += error_kinds.of_kinks(f"d{label}", place, case.kinks)
    return errors, run


def _labels(names: Iterable[str]) -> list[str]:
    """Return short and different names of weights, without the numbers that Keras adds."""
    counts: Counter[str] = Counter()
    labels = []
    for name in names:
        label = "/".join(re.sub(r"_\d+$", "", part) for part in name.split("/")[-2:])
        counts[label] += 1
        labels.append(label if counts[label] == 1 else f"{label} ({counts[label]})")
    return labels


def _of_update(rule: Rule, case: Case) -> tuple[list[ErrorKind], Compute]:
    """Return the errors of an optimizer or a constraint, and a function that runs it."""

    def run(function: Callable) -> dict[str, Any]:
        other = dataclasses.replace(rule, function=function)
        steps = updates(other, case, "float64", _DOUBLE)
        return {
            f"{name} {number}": value
            for number, (ours, _) in enumerate(steps)
            for name, value in ours.items()
        }

    constraint = rule.kind == "constraint"
    return error_kinds.of_constraint() if constraint else error_kinds.of_optimizer(rule), run
