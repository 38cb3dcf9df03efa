"""Rules with planted errors, each of which a check must refuse; one rule a family by default."""

import dataclasses

import keras
import pytest

from families import representatives
from gradaudit.errors import CheckFailure
from gradaudit.rules import all_rules, find_rule
from gradaudit.testing import error_kinds
from gradaudit.testing.error_kinds import ErrorKind
from gradaudit.testing.subjects import Subjects
from gradaudit.testing.trials import FEWEST, refuses, trials, wrong_rules

RULES = {f"{known.kind} {known.name}": known for known in all_rules()}
OF_FAMILIES = {f"{known.kind} {known.name}" for known in representatives()}


@pytest.mark.filterwarnings("ignore:.*You passed `rms_scaling=True`:UserWarning")
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in OF_FAMILIES else [pytest.mark.long]) for n in RULES],
)
def test_every_error_that_is_planted_in_a_rule_is_refused(name):
    found = trials(RULES[name])
    assert len([trial for trial in found if trial.sort]) >= FEWEST
    assert [trial.error for trial in found if not trial.is_refused] == []


def errors(target):
    return {trial.error: trial for trial in trials(find_rule(target))}


def test_a_sign_a_factor_a_term_and_an_axis_of_each_gradient():
    assert errors(keras.layers.Dense).keys() == {
        "the output times 1.0001",
        "the output negated",
        "dx plus 0.001",
        *(
            f"d{name} {error}"
            for name in ("x", "kernel", "bias")
            for error in (
                "negated", "times 1.0001", "without the last row of dy", "rolled along an axis",
            )
        ),
        "dx left out",
        "dkernel left out",
        "dbias left out",
    }  # fmt: skip


def test_errors_of_the_output_are_not_among_those_that_are_counted():
    sorts = {error: trial.sort for error, trial in errors(keras.activations.relu).items()}
    assert sorts == {
        "the output times 1.0001": "",
        "the output negated": "",
        "dz negated": "sign",
        "dz times 1.0001": "factor",
        "dz without the last row of dy": "term",
        "dz rolled along an axis": "axis",
        "dz plus 0.001": "",
        "dz off at a kink": "",
    }


def test_an_error_is_refused_by_the_check_that_it_concerns():
    found = errors(keras.activations.relu)
    refused = {error: {c for c, no in t.refused.items() if no} for error, t in found.items()}
    assert refused["the output negated"] == {"forward_equals_keras", "vjp_equals_differences"}
    of_vjp = {"vjp_equals_tape", "vjp_equals_differences"}
    at_ties = {"kinks_as_keras", "tie_gives_a_subgradient"}
    assert of_vjp <= refused["dz negated"] <= {*of_vjp, *at_ties}
    assert "vjp_is_linear" in refused["dz plus 0.001"]
    assert refused["dz off at a kink"] == at_ties
    left_out = errors(keras.layers.Dense)["dbias left out"].refused
    assert left_out["every_weight_has_a_cotangent"]


def test_an_error_is_planted_where_it_is_one():
    cases = {trial.error: trial.case for trial in trials(find_rule(keras.optimizers.SGD))}
    assert cases["uphill"] == "plain"
    assert cases["momentum not updated"] == "momentum"
    assert "a step too many counted" not in cases  # SGD does not count
    assert "a step too many counted" in errors(keras.optimizers.Adam)


@pytest.mark.parametrize("check", ["rounding_is_calibrated", "audit_passes"])
def test_the_slow_checks_take_planted_errors_too(check):
    (first, *_) = wrong_rules(find_rule(keras.regularizers.L2))
    assert first.error.name == "the output times 1.0001"
    assert refuses(check, first.rule, first.rule.cases[0], Subjects())


def test_a_change_that_changes_nothing_is_no_error(monkeypatch):
    nothing = [ErrorKind("nothing", lambda right: right)]
    monkeypatch.setattr(error_kinds, "of_cotangent", lambda *which: nothing)
    found = errors(keras.activations.tanh)
    assert found.keys() == {"the output times 1.0001", "the output negated"}


def test_a_rule_that_is_wrong_by_itself_is_told():
    right = find_rule(keras.activations.tanh)

    def wrong(call, z):
        y, vjp = right.function(call, z)
        return y, lambda dy: -vjp(dy)

    with pytest.raises(CheckFailure, match=r"activation rule tanh, case .* with no planted error"):
        trials(dataclasses.replace(right, function=wrong))


def test_the_checks_that_are_not_asked_for_are_not_run():
    (trial, *_) = trials(find_rule(keras.activations.tanh), ["vjp_is_linear"])
    assert trial.refused.keys() == {"vjp_is_linear"}
