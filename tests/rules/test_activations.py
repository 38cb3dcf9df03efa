"""Elementwise activations of NaN."""

import numpy as np
import pytest

from gradaudit.numerics import Plain, Rounding, Simulating, numbers
from gradaudit.rules import ActivationCall, all_rules

ELEMENTWISE = [
    rule
    for rule in all_rules()
    if rule.kind == "activation" and rule.function.__module__.endswith(".elementwise")
]


@pytest.mark.parametrize("arithmetic", [Plain(np.float32), Rounding(), Simulating()], ids=repr)
@pytest.mark.parametrize("rule", ELEMENTWISE, ids=lambda rule: rule.name)
def test_nan_comes_out_as_nan_forward_and_back(rule, arithmetic):
    options = getattr(rule.cases[0].build(), "keywords", {})
    z = arithmetic.array([np.nan, -2.0, 2.0, -9.0, np.nan], "float32")
    dy = arithmetic.array([1.0, np.nan, np.nan, 1.0, 0.0], "float32")
    with np.errstate(invalid="ignore"):
        y, vjp = rule.function(ActivationCall(options), z)
        dz = vjp(dy)
    assert np.isnan(numbers(y)).tolist() == [True, False, False, False, True]
    # In the last place no change reaches the loss: see `chained`.
    assert np.isnan(numbers(dz)).tolist() == [True, True, True, False, False]


def test_there_are_such_activations():
    assert len(ELEMENTWISE) > 20
