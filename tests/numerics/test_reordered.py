"""Sums and products in a random order: the same values, with roundings of their own."""

import numpy as np
import pytest

from gradaudit.numerics import Plain, Reordering, contraction

RNG = np.random.default_rng(0)
A, B = (RNG.standard_normal(shape).astype(np.float32) for shape in ((2, 6, 300), (2, 300, 5)))

OF_ONE = {
    "sum over an axis": lambda a: a.sum(axis=1),
    "sum over several axes, kept": lambda a: np.sum(a, axis=(0, 2), keepdims=True),
    "sum over all": lambda a: a.sum(),
    "mean": lambda a: a.mean(axis=-1),
    "product with a vector": lambda a: a @ a[0, 0],
    "vector with a vector": lambda a: a[0, 0] @ a[1, 0],
    "after other functions": lambda a: np.where(a > 0, np.concatenate([a])[:], 0.1).sum(axis=-1),
}


@pytest.mark.parametrize("name", OF_ONE)
def test_the_values_are_those_in_any_order(name):
    function = OF_ONE[name]
    right = np.asarray(function(Plain(np.float64).array(A, "float32")))
    found = [np.asarray(function(Reordering(i).array(A, "float32"))) for i in range(6)]
    for each in found:
        assert each.dtype == np.float32
        np.testing.assert_allclose(each, right, rtol=1e-4, atol=1e-4)
    assert any((each != found[0]).any() for each in found[1:])
    again = np.asarray(function(Reordering(3).array(A, "float32")))
    np.testing.assert_array_equal(again, found[3])


def test_products_take_their_terms_in_another_order_for_each_number():
    right = A.astype(np.float64) @ B
    errors = []
    for i in range(40):
        a, b = (Reordering(i).array(x, "float32") for x in (A, B))
        errors.append(np.asarray(contraction(a, b)) - right)
    correlation = np.corrcoef(np.reshape(errors, (40, -1)))
    assert np.abs(correlation[np.triu_indices(40, 1)]).mean() < 0.2


def test_equal_rows_stay_equal():
    rows = Reordering(1).array(np.repeat(A[0, :1], 4, axis=0), "float32")
    made = np.asarray(rows @ Reordering(1).array(B[0], "float32"))
    assert (made == made[0]).all()


def test_what_is_no_float_stays_what_it_is():
    held = Reordering(1).array(A, "float32")
    assert (held > 0).dtype == bool
    assert np.argmax(held, -1).dtype == np.argmax(A, -1).dtype
    assert isinstance(held.shape[0], int)
