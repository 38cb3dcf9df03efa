import dataclasses
import functools
import inspect
import re
from pathlib import Path

import keras
import pytest

from gradaudit.errors import CheckFailure, UnknownNameError
from gradaudit.rules import all_rules, find_rule
from gradaudit.rules.registry import _RULES
from gradaudit.testing import CHECKS, PLANTED, check_rule
from gradaudit.testing.subject import Subjects
from gradaudit.tracing.tf_ops import arithmetic

RULES = {f"{known.kind} {known.name}": known for known in all_rules()}
NO_WEIGHTS_BEHIND = "ignore:Gradients do not exist for variables:UserWarning"
DEPRECATED = "ignore:.*You passed `rms_scaling=True`:UserWarning"


@functools.lru_cache(maxsize=2)  # the checks of one rule follow each other
def subjects(name):
    return Subjects()


@pytest.mark.filterwarnings(NO_WEIGHTS_BEHIND)  # Dropout(1) lets nothing through, rightly
@pytest.mark.filterwarnings(DEPRECATED)  # an option of LayerNormalization, which it warns of
@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", RULES)
def test_every_rule_satisfies_every_check(name, check):
    check_rule(RULES[name], {check: CHECKS[check]}, subjects(name))


@pytest.mark.parametrize(
    ("planted", "check"),
    [pytest.param(p, c, id=f"{p.name}-{c}") for p in PLANTED for c in p.refused_by],
)
def test_every_planted_rule_is_refused(planted, check):
    with pytest.raises(CheckFailure) as caught:
        check_rule(planted.rule, {check: CHECKS[check]})
    assert f"check {check}:" in str(caught.value)


def test_every_check_refuses_a_planted_rule():
    assert {check for planted in PLANTED for check in planted.refused_by} == set(CHECKS)


def test_a_check_names_the_case():
    right = RULES["layer Dense"]
    wrong = dataclasses.replace(PLANTED[0].rule, cases=right.cases[1:2])
    with pytest.raises(CheckFailure, match="layer rule Dense, case 'tanh', check"):
        check_rule(wrong, {"forward_equals_keras": CHECKS["forward_equals_keras"]})


def test_a_target_without_a_rule_is_named():
    with pytest.raises(UnknownNameError, match="Lambda"):
        check_rule(keras.layers.Lambda)


def test_the_examples_in_contributing_are_rules():
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    scope = {}
    try:
        for code in re.findall(r"```python\n(.*?)```", text, re.S):
            if code.startswith("@op("):
                assert code in inspect.getsource(arithmetic)
            else:
                exec(code, scope)
        for name in ("Scale", "GatedResidual"):
            check_rule(find_rule(scope[name]))
    finally:
        for name in ("Scale", "GatedResidual"):
            _RULES.pop(scope.get(name), None)
