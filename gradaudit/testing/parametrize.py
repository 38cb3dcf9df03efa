"""`parametrize_with_checks`: a pytest decorator, one test for each rule, case and check."""

import functools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gradaudit.errors import CheckFailure, UsageError
from gradaudit.rules import Case, Rule
from gradaudit.testing.check import CHECKS, applicable, rule_of
from gradaudit.testing.subjects import Subjects

if TYPE_CHECKING:
    import pytest


@dataclass(frozen=True)
class RuleCheck:
    """One check of one case of a rule; call it to run it.

    rule: the rule.
    case: one of its cases.
    check: the name of the check, of `CHECKS`.
    """

    rule: Rule
    case: Case
    check: str

    def __call__(self) -> None:
        """Run the check.

        Raises:
            CheckFailure: the rule does not satisfy it.
        """
        try:
            CHECKS[self.check](self.rule, self.case, _subjects(self.case))
        except CheckFailure as failure:
            raise CheckFailure(
                f"{self.rule.kind} rule {self.rule.name}, case {self.case.name!r}, "
                f"check {self.check}: {failure}"
            ) from failure

    def __repr__(self) -> str:
        return f"RuleCheck({self.rule.name!r}, {self.case.name!r}, {self.check!r})"


@functools.lru_cache(maxsize=1)  # the checks of one case follow each other
def _subjects(case: Case) -> Subjects:
    return Subjects()


def parametrize_with_checks(
    targets: Iterable[Any],
    checks: Iterable[str] | None = None,
    *,
    expected_failures: Mapping[tuple[str, str, str], str] = MappingProxyType({}),
) -> "pytest.MarkDecorator":
    """Parametrize a test with the checks of rules: one test for each rule, case and check.

    The decorated test takes one argument, `check`, and calls it. Its id has the names of the rule,
    the case and the check: `test_rules[Scale-one row-vjp_equals_tape]`.

    Args:
        targets: Keras classes and functions that have a rule, or `Rule`s.
        checks: names of the checks to run, of `CHECKS`; all where left out.
        expected_failures: (rule, case, check), the three names of an id, to the reason why the
            check is expected to fail. Such a test is a strict xfail: it fails where the check
            passes, or where the rule raises another error than CheckFailure.

    Returns:
        A decorator for a test function.

    Raises:
        ModuleNotFoundError: pytest is not installed.
        UnknownNameError: no rule is registered for a target, or there is no such check.
        UsageError: a failure is expected of a check that is not among those that run.

    Example:
        >>> import keras
        >>> from gradaudit.testing import parametrize_with_checks
        >>> @parametrize_with_checks(
        ...     [keras.layers.Dense, keras.activations.tanh],
        ...     expected_failures={
        ...         ("tanh", "default", "rounding_is_calibrated"): "9 ulp on this libm",
        ...     },
        ... )
        ... def test_rules(check):
        ...     check()
    """
    try:
        import pytest
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "parametrize_with_checks needs pytest, which is not installed. Run `pip install "
            "pytest`, or use gradaudit.testing.check_rule, which needs nothing else."
        ) from error

    rules = [rule_of(target) for target in targets]
    wanted = None if checks is None else list(checks)
    names = Counter(rule.name for rule in rules)
    parameters = []
    unused = set(expected_failures)
    for rule in rules:
        name = rule.name if names[rule.name] == 1 else f"{rule.kind} {rule.name}"
        for case in rule.cases:
            for check in applicable(rule, case, wanted):
                key = (name, case.name, check)
                marks = []
                if key in expected_failures:
                    unused.discard(key)
                    reason = expected_failures[key]
                    marks = [pytest.mark.xfail(reason=reason, raises=CheckFailure, strict=True)]
                test = RuleCheck(rule, case, check)
                parameters.append(pytest.param(test, id="-".join(key), marks=marks))
    if unused:
        unknown = ", ".join(map(repr, sorted(unused)))
        raise UsageError(
            f"expected_failures has {unknown}, of which no check is run. Expected the names of a "
            "rule, a case and a check, as they stand in the id of a test."
        )
    return pytest.mark.parametrize("check", parameters)
