"""`parametrize_with_checks` in a test file of a user's own."""

import sys

import keras
import pytest

from gradaudit.errors import UnknownNameError, UsageError
from gradaudit.rules import find_rule, registry
from gradaudit.testing import parametrize_with_checks

SUITE = '''
    from keras import layers
    from gradaudit import Case, rule
    from gradaudit.testing import parametrize_with_checks


    class Scale(layers.Layer):
        def build(self, shape):
            self.gamma = self.add_weight(name="gamma", shape=shape[-1:], initializer="ones")

        def call(self, inputs):
            return inputs * self.gamma


    class Doubled(Scale):
        """Has a wrong rule."""


    CASES = {name: shape for name, shape in (("three rows", (3, 4)), ("one row", (1, 2)))}

    @rule(
        Scale,
        cases=[Case(name, Scale, shape) for name, shape in CASES.items()],
        source="app/layers.py",
        weights=("gamma",),
    )
    def scale(call, x):
        """Apply y = gamma x.

        Shapes: x and y (N, F), gamma (F,).
        VJP:    dx = gamma dy; dgamma = sum x dy.
        Kinks:  none.
        """
        gamma = call.weights["gamma"]
        return x * gamma, lambda dy: (dy * gamma, {"gamma": (x * dy).sum(axis=0)})

    @rule(
        Doubled,
        cases=[Case(name, Doubled, shape) for name, shape in CASES.items()],
        source="app/layers.py",
        weights=("gamma",),
    )
    def doubled(call, x):
        """Apply y = gamma x, with a wrong cotangent of gamma.

        Shapes: x and y (N, F), gamma (F,).
        VJP:    dx = gamma dy; dgamma = 2 sum x dy.
        Kinks:  none.
        """
        y, vjp = scale(call, x)

        def wrong(dy):
            dx, cotangents = vjp(dy)
            return dx, {"gamma": 2 * cotangents["gamma"]}

        return y, wrong

    FAST = ["forward_equals_keras", "vjp_equals_tape", "vjp_is_linear"]

    @parametrize_with_checks(
        [Scale, Doubled],
        FAST,
        expected_failures={
            ("Doubled", "one row", "vjp_equals_tape"): "dgamma is doubled on purpose",
            ("Scale", "one row", "vjp_is_linear"): "this check passes",
        },
    )
    def test_rules(check):
        check()
'''


def test_a_test_file_with_right_and_wrong_rules(pytester, monkeypatch):
    monkeypatch.setattr(registry, "_RULES", dict(registry._RULES))  # those of SUITE go again
    pytester.makepyfile(SUITE)
    ran = pytester.runpytest_inprocess("-v", "-p", "no:cacheprovider", "-rx")
    ran.assert_outcomes(passed=9, failed=2, xfailed=1)
    ran.stdout.fnmatch_lines_random(
        [
            "*::test_rules[[]Scale-three rows-forward_equals_keras[]] PASSED*",
            "*::test_rules[[]Doubled-three rows-vjp_equals_tape[]] FAILED*",
            "*::test_rules[[]Doubled-one row-vjp_equals_tape[]] XFAIL*",
            "XFAIL *[[]Doubled-one row-vjp_equals_tape[]] - dgamma is doubled on purpose",
            "*::test_rules[[]Scale-one row-vjp_is_linear[]] FAILED*",
            "*CheckFailure: layer rule Doubled, case 'three rows', check vjp_equals_tape: *",
            "[[]XPASS(strict)[]] this check passes",
        ]
    )


def ids(decorator):
    return [parameter.id for parameter in decorator.args[1]]


def test_an_id_names_rule_case_and_check():
    decorator = parametrize_with_checks([keras.layers.Dense, keras.activations.tanh])
    assert decorator.args[0] == "check"
    assert "Dense-tanh-vjp_equals_tape" in ids(decorator)
    assert "tanh-default-audit_passes" in ids(decorator)


def test_two_rules_of_one_name_are_told_apart_by_their_kind():
    rules = [find_rule(keras.layers.Add), find_rule(keras.src.ops.numpy.Add)]
    found = ids(parametrize_with_checks(rules, ["vjp_is_linear"]))
    assert {name.split("-")[0] for name in found} == {"layer Add", "operation Add"}
    assert len(set(found)) == len(found)


def test_an_expected_failure_must_be_of_a_check_that_runs():
    key = ("Dense", "tanh", "kinks_as_keras")  # tanh has no kinks
    with pytest.raises(UsageError, match=r"\('Dense', 'tanh', 'kinks_as_keras'\), of which no"):
        parametrize_with_checks([keras.layers.Dense], expected_failures={key: "reason"})


def test_what_there_is_not_is_named():
    with pytest.raises(UnknownNameError, match="there is no rule for 'Lambda'"):
        parametrize_with_checks([keras.layers.Lambda])
    with pytest.raises(UnknownNameError, match="there is no check 'forward'"):
        parametrize_with_checks([keras.layers.Dense], ["forward"])


def test_pytest_is_asked_for_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytest", None)
    with pytest.raises(ModuleNotFoundError, match="needs pytest, which is not installed"):
        parametrize_with_checks([keras.layers.Dense])
