"""Every rule under every check, and planted wrong rules that the checks must refuse.

In the default run the cheap checks run on the first case of each rule, the expensive ones on that
of a few rules; the rest is marked `long`.
"""

import dataclasses
import inspect
import re
from pathlib import Path

import keras
import pytest

from families import REPRESENTATIVES, family, representatives
from gradaudit.errors import CheckFailure, UnknownNameError
from gradaudit.rules import all_rules, find_rule
from gradaudit.rules.registry import _RULES
from gradaudit.testing import CHECKS, PLANTED, check_rule, parametrize_with_checks
from gradaudit.testing.check import applicable
from gradaudit.tracing.tf_ops import arithmetic

EXPENSIVE = [
    "rule_equals_trace", "stays_float32", "bound_is_below_sigma", "rounding_is_calibrated",
    "audit_passes",
]  # fmt: skip
CHEAP = [name for name in CHECKS if name not in EXPENSIVE]
MOST = 1
"""Cases of a rule that go through the cheap checks in the default run.

The others are run there on the first case of some rules.
"""

# Other tests register rules of their own.
RULES = [rule for rule in all_rules() if rule.function.__module__.startswith("gradaudit.")]


def _with_cases(rules, chosen):
    return [dataclasses.replace(rule, cases=rule.cases[chosen]) for rule in rules]


BY_DEFAULT = [rule for rule in representatives() if rule in RULES][::6]
SOME, REST = _with_cases(RULES, slice(MOST)), _with_cases(RULES, slice(MOST, None))
AUDITED = _with_cases(BY_DEFAULT, slice(1))
NOT_AUDITED = _with_cases(BY_DEFAULT, slice(1, None)) + [r for r in RULES if r not in BY_DEFAULT]

pytestmark = [
    # Dropout(1) lets nothing through, rightly
    pytest.mark.filterwarnings("ignore:Gradients do not exist for variables:UserWarning"),
    # an option of LayerNormalization, which Keras warns of
    pytest.mark.filterwarnings("ignore:.*You passed `rms_scaling=True`:UserWarning"),
]


@parametrize_with_checks(SOME, CHEAP)
def test_every_rule(check):
    check()


@pytest.mark.long
@parametrize_with_checks(REST, CHEAP)
def test_the_further_cases_of_every_rule(check):
    check()


@parametrize_with_checks(AUDITED, EXPENSIVE)
def test_some_rules(check):
    check()


@pytest.mark.long
@parametrize_with_checks(NOT_AUDITED, EXPENSIVE)
def test_all_the_others(check):
    check()


def test_every_family_has_a_representative():
    assert {family(rule) for rule in RULES} == REPRESENTATIVES.keys()
    assert sorted(map(family, representatives())) == sorted(REPRESENTATIVES)


def test_every_case_is_in_one_of_the_runs():
    def pairs(rules, checks):
        return [
            (rule.kind, rule.name, id(case), check)
            for rule in rules
            for case in rule.cases
            for check in applicable(rule, case, checks)
        ]

    runs = [(SOME, CHEAP), (REST, CHEAP), (AUDITED, EXPENSIVE), (NOT_AUDITED, EXPENSIVE)]
    found = [pair for run in runs for pair in pairs(*run)]
    assert sorted(found) == sorted(pairs(RULES, CHECKS))


@pytest.mark.parametrize(
    ("planted", "check"),
    [
        pytest.param(
            p, c, id=f"{p.name}-{c}", marks=[pytest.mark.long] if c == "audit_passes" else []
        )
        for p in PLANTED
        for c in p.refused_by
    ],
)
def test_every_planted_rule_is_refused(planted, check):
    with pytest.raises(CheckFailure) as caught:
        check_rule(planted.rule, [check])
    assert f"check {check}: " in str(caught.value)
    assert f"check {check}: raised" not in str(caught.value)


def test_every_check_refuses_a_planted_rule():
    assert {check for planted in PLANTED for check in planted.refused_by} == set(CHECKS)


def planted(name):
    (found,) = [planted.rule for planted in PLANTED if planted.name == name]
    return found


def test_check_rule_reports_every_failure():
    right = find_rule(keras.layers.Dense)
    wrong = dataclasses.replace(planted("bias gradient dropped"), cases=right.cases[:2])
    checks = [name for name in CHECKS if name != "audit_passes"]
    results = check_rule(wrong, checks, raises=False)
    assert {(r.case, r.check) for r in results if not r.passed} == {
        (case.name, check)
        for case in right.cases[:2]
        for check in (
            "vjp_equals_tape", "rule_equals_trace", "vjp_equals_differences",
            "every_weight_has_a_cotangent",
        )
    }  # fmt: skip
    passed = [r for r in results if r.passed]
    assert {r.message for r in passed} == {""}
    assert {r.check for r in passed} == {
        "forward_equals_keras", "vjp_is_linear", "rule_is_pure", "zero_cotangent_makes_zero",
        "nan_makes_nan", "tie_gives_a_subgradient", "stays_float32", "rounding_is_calibrated",
        "bound_is_below_sigma",
    }  # fmt: skip
    with pytest.raises(CheckFailure) as caught:
        check_rule(wrong, checks)
    head, *lines = str(caught.value).splitlines()
    assert head == f"8 of {len(results)} checks failed:"
    assert lines == [str(result) for result in results if not result.passed]
    assert lines[2].startswith("layer rule Dense, case 'linear', check vjp_equals_differences: db")
    assert len(caught.value.__cause__.exceptions) == 8


def test_check_rule_returns_a_result_for_each_check_of_a_right_rule():
    rule = find_rule(keras.activations.relu)
    results = check_rule(rule, CHEAP)
    assert all(result.passed for result in results)
    expected = [(c.name, check) for c in rule.cases for check in applicable(rule, c, CHEAP)]
    assert [(result.case, result.check) for result in results] == expected
    assert str(results[0]) == (
        f"activation rule relu, case {rule.cases[0].name!r}, check forward_equals_keras: passed"
    )


def test_a_rule_that_raises_fails_the_check_and_the_others_run():
    right = find_rule(keras.activations.tanh)

    def wrong(call, z):
        y, _ = right.function(call, z)
        return y, lambda dy: {}["dz"]

    results = check_rule(dataclasses.replace(right, function=wrong), CHEAP, raises=False)
    said = {result.check: result.message for result in results}
    assert said["forward_equals_keras"] == ""
    assert said["vjp_equals_tape"] == "raised KeyError: 'dz'"


def test_checks_that_do_not_apply_are_left_out():
    def names(target, case=0):
        rule = find_rule(target)
        return applicable(rule, rule.cases[case])

    assert names(keras.optimizers.SGD) == [
        "forward_equals_keras", "rule_is_pure", "stays_float32", "bound_is_below_sigma",
        "rounding_is_calibrated", "audit_passes",
    ]  # fmt: skip
    assert set(CHECKS) - set(names(keras.activations.tanh)) == {"kinks_as_keras"}
    ties = find_rule(keras.layers.Maximum)
    assert "vjp_equals_differences" not in applicable(ties, next(c for c in ties.cases if c.ties))


def test_a_check_names_the_case():
    right = find_rule(keras.layers.Dense)
    wrong = dataclasses.replace(planted("forward with a factor"), cases=right.cases[1:2])
    with pytest.raises(CheckFailure, match=r"^layer rule Dense, case 'tanh', check forward_equals"):
        check_rule(wrong, ["forward_equals_keras"])


def test_an_array_constant_is_named():
    with pytest.raises(CheckFailure, match="an array constant promoted it to float64"):
        check_rule(planted("float64 in the float32 run"), ["stays_float32"])


def test_what_there_is_not_is_named():
    with pytest.raises(UnknownNameError, match="there is no rule for 'Lambda'"):
        check_rule(keras.layers.Lambda)
    with pytest.raises(UnknownNameError, match=r"Did you mean 'vjp_equals_tape'\?"):
        check_rule(keras.layers.Dense, ["vjp_equals_tapes"])


@pytest.mark.parametrize(
    "checks",
    [
        pytest.param([name for name in CHECKS if name != "audit_passes"], id="without an audit"),
        pytest.param(["audit_passes"], id="audited", marks=pytest.mark.long),
    ],
)
def test_the_examples_in_contributing_are_rules(checks):
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    scope = {}
    try:
        for code in re.findall(r"```python\n(.*?)```", text, re.S):
            if code.startswith("@op("):
                assert code in inspect.getsource(arithmetic)
            else:
                exec(code, scope)
        assert scope["test_rules"].pytestmark[0].args[0] == "check"
        for name in ("Scale", "GatedResidual"):
            check_rule(scope[name], checks)
    finally:
        for name in ("Scale", "GatedResidual"):
            _RULES.pop(scope.get(name), None)
