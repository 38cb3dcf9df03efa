import keras
import numpy as np
import pytest

import gradaudit
from gradaudit.numerics import PRECISIONS, Rounded, SumOfSteps

_SINGLE = PRECISIONS["float32"]


def widened(signs):
    """Return σ of the sum of terms ±a, over that of a plain sum of the same terms."""
    terms = [Rounded(np.array([s * 0.7]), np.array([1e-4]), None, _SINGLE) for s in signs]
    steps, plain = SumOfSteps(), terms[0]
    for term in terms:
        steps.add(term)
    for term in terms[1:]:
        plain = plain + term
    total = steps.total()
    assert total.value == plain.value
    return float(total.sigma[0] / plain.sigma[0])


def test_errors_of_equal_terms_are_alike():
    for n in (2, 9, 50):
        assert widened([1] * n) == pytest.approx(np.sqrt(n), rel=1e-6)


def test_errors_of_terms_that_alternate_are_independent():
    for n in (2, 9, 50):
        assert widened([(-1) ** k for k in range(n)]) == pytest.approx(1.0, rel=1e-6)


def test_an_array_without_errors_is_just_added():
    steps = SumOfSteps()
    for k in range(4):
        steps.add(np.array([k, 2.0 * k]))
    np.testing.assert_array_equal(steps.total(), [6.0, 12.0])
