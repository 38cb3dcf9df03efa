"""The checks by name, and `check_rule`, which runs them all."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from gradaudit.errors import CheckFailure, UnknownNameError
from gradaudit.rules import Case, Rule, all_rules, find_rule
from gradaudit.testing.audited import audit_passes
from gradaudit.testing.derivatives import (
    every_weight_has_a_cotangent,
    forward_equals_keras,
    kinks_as_keras,
    rule_equals_trace,
    rule_is_pure,
    vjp_equals_differences,
    vjp_equals_tape,
    vjp_is_linear,
)
from gradaudit.testing.rounding import (
    bound_is_below_sigma,
    rounding_is_calibrated,
    stays_float32,
)
from gradaudit.testing.singular import (
    nan_makes_nan,
    tie_gives_a_subgradient,
    zero_cotangent_makes_zero,
)
from gradaudit.testing.subjects import Subjects
from gradaudit.testing.updates import KINDS

CHECKS: dict[str, Callable[[Rule, Case, Subjects], None]] = {
    check.__name__: check
    for check in (
        forward_equals_keras,
        vjp_equals_tape,
        rule_equals_trace,
        vjp_equals_differences,
        vjp_is_linear,
        rule_is_pure,
        every_weight_has_a_cotangent,
        kinks_as_keras,
        zero_cotangent_makes_zero,
        nan_makes_nan,
        tie_gives_a_subgradient,
        stays_float32,
        bound_is_below_sigma,
        rounding_is_calibrated,
        audit_passes,
    )
}
"""Every check, by name: a function (rule, case, subjects) that raises `CheckFailure`."""

_OF_UPDATES = (
    forward_equals_keras, rule_is_pure, stays_float32, rounding_is_calibrated, audit_passes,
)  # fmt: skip


@dataclass(frozen=True)
class CheckResult:
    """What one check says of one case of a rule.

    rule: the rule's kind and name, such as "layer Dense".
    case: the case's name.
    check: the check's name, of `CHECKS`.
    passed: whether the rule satisfies it.
    message: what differs, or what the rule raised; "" where it passed.
    """

    rule: str
    case: str
    check: str
    passed: bool
    message: str

    def __str__(self) -> str:
        kind, name = self.rule.split(" ", 1)
        said = "passed" if self.passed else self.message
        return f"{kind} rule {name}, case {self.case!r}, check {self.check}: {said}"


def check_rule(
    target: Any, checks: Iterable[str] | None = None, *, raises: bool = True
) -> list[CheckResult]:
    """Run every check on every case of the rule that is registered for a Keras class or function.

    All checks run, whatever the earlier ones say. A rule that raises an error fails the check. A
    check that does not apply to a case is left out: see `applicable`.

    Args:
        target: the class or function, or a `Rule`.
        checks: names of those to run, of `CHECKS`; all where left out.
        raises: whether a failed check raises `CheckFailure` in the end. If not, look at `passed`
            of each result.

    Returns:
        One result for each case and check.

    Raises:
        UnknownNameError: no rule is registered for the target, or there is no such check.
        CheckFailure: one check or more failed; the message lists each with case and values, and
            its cause, an ExceptionGroup, has the tracebacks.

    Example:
        >>> import keras
        >>> from gradaudit.testing import check_rule
        >>> len(check_rule(keras.activations.tanh, ["forward_equals_keras", "vjp_equals_tape"]))
        2
        >>> for result in check_rule(keras.activations.tanh, ["vjp_is_linear"], raises=False):
        ...     print(result)
        activation rule tanh, case 'default', check vjp_is_linear: passed
    """
    rule = rule_of(target)
    results = []
    errors: list[Exception] = []
    for case in rule.cases:
        subjects = Subjects()
        for name in applicable(rule, case, checks):
            message = ""
            try:
                CHECKS[name](rule, case, subjects)
            except CheckFailure as failure:
                errors.append(failure)
                message = str(failure)
            except Exception as error:
                errors.append(error)
                message = f"raised {type(error).__name__}: {error}"
            title = f"{rule.kind} {rule.name}"
            results.append(CheckResult(title, case.name, name, not message, message))
    failed = [str(result) for result in results if not result.passed]
    if failed and raises:
        if len(failed) > 1:
            failed.insert(0, f"{len(failed)} of {len(results)} checks failed:")
        raise CheckFailure("\n".join(failed)) from ExceptionGroup("failed checks", errors)
    return results


def applicable(rule: Rule, case: Case, checks: Iterable[str] | None = None) -> list[str]:
    """Return the names of the checks that apply to a case, in their order in `CHECKS`.

    An optimizer and a constraint have no VJP; `kinks_as_keras` needs kinks; where inputs are tied
    there is no derivative that differences could show.

    Args:
        rule: the rule.
        case: one of its cases.
        checks: names to choose from, of `CHECKS`; all where left out.

    Raises:
        UnknownNameError: there is no such check.
    """
    chosen = list(CHECKS if checks is None else checks)
    for name in chosen:
        if name not in CHECKS:
            raise UnknownNameError("check", name, CHECKS)

    def applies(check: Callable) -> bool:
        if rule.kind in KINDS:
            return check in _OF_UPDATES or (check is bound_is_below_sigma and rule.elementwise)
        if check is kinks_as_keras:
            return bool(case.kinks)
        return check is not vjp_equals_differences or not case.ties

    return [name for name, check in CHECKS.items() if name in chosen and applies(check)]


def rule_of(target: Any) -> Rule:
    """Return the rule that is registered for a Keras class or function; a `Rule` as it is.

    Raises:
        UnknownNameError: there is none.
    """
    if isinstance(target, Rule):
        return target
    rule = find_rule(target)
    if rule is None:
        name = getattr(target, "__name__", str(target))
        raise UnknownNameError("rule for", name, (known.name for known in all_rules()))
    return rule
