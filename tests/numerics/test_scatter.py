import numpy as np
import pytest

from gradaudit.numerics import Rounding, scatter_add

INDICES = np.array([3, 0, 3, 5, 3, 0, 1])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_rows_are_added_by_index(dtype):
    rows = np.random.default_rng(0).standard_normal((7, 2)).astype(dtype)
    expected = np.zeros((6, 2), dtype)
    np.add.at(expected, INDICES, rows)
    found = scatter_add(rows, INDICES, 6)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, rtol=1e-6 if dtype == np.float32 else 1e-14)
    assert not scatter_add(rows[:0], INDICES[:0], 6).any()


def test_sums_carry_their_rounding_errors():
    rows = Rounding().array(np.full((7, 2), 0.1, np.float32), "float32")
    sigma = scatter_add(rows, INDICES, 6).sigma
    assert (sigma[[0, 3]] > 0).all()  # of two and three terms
    assert not sigma[[1, 2, 4, 5]].any()  # of one term, or none: exact
    summed = rows[INDICES == 3].sum(axis=0)
    np.testing.assert_array_equal(sigma[3], summed.sigma)
