import numpy as np
import pytest

from gradaudit.numerics import Plain, Rounding, Simulating, numbers
from gradaudit.rules.primitives.arithmetic import ADD, POWER
from gradaudit.rules.primitives.constants import constant
from gradaudit.rules.primitives.matmul import matmul
from gradaudit.rules.primitives.reductions import product

ARITHMETICS = {
    "float64": (Plain(np.float64), "float64"),
    "float32": (Plain(np.float32), "float32"),
    "rounding": (Rounding(), "float32"),
    "half": (Simulating(), "bfloat16"),
}


@pytest.mark.parametrize(("arithmetic", "dtype"), ARITHMETICS.values(), ids=ARITHMETICS)
def test_a_constant_is_held_in_the_precision_of_the_array_beside_it(arithmetic, dtype):
    x, third = arithmetic.array(np.ones(3), dtype), np.full(3, 1 / 3)
    found, expected = constant(third, like=x), arithmetic.array(third, dtype)
    assert type(found) is type(expected)
    assert numbers(found).dtype == numbers(expected).dtype
    np.testing.assert_array_equal(numbers(found), numbers(expected))
    if dtype == "float32" and arithmetic == Rounding():
        np.testing.assert_array_equal(found.sigma, expected.sigma)
        assert (found.sigma > 0).all()


def test_a_cotangent_that_is_not_asked_for_is_not_computed():
    base, power = np.array([-2.0, 3.0]), np.array([2.0, 3.0])
    _, vjp = POWER(base, power, (True, False))
    da, db = vjp(np.ones(2))  # the logarithm of -2 in db would warn
    np.testing.assert_allclose(da, [-4.0, 27.0])
    assert db is None
    dx, dy = matmul(np.eye(2), base, (False, True))[1](base)
    assert dx is None
    np.testing.assert_allclose(dy, base)


def test_a_python_number_has_no_cotangent():
    assert ADD(np.ones(2), 3.0)[1](np.ones(2))[1] is None


def test_the_vjp_of_a_product_is_finite_where_factors_are_zero():
    x = np.array([[0.0, 2.0, 3.0], [0.0, 0.0, 5.0]])
    y, vjp = product(x, -1)
    np.testing.assert_array_equal(y, [0.0, 0.0])
    np.testing.assert_array_equal(vjp(np.array([1.0, 1.0])), [[6.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
