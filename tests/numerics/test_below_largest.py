"""The largest element of a Rounded array, and the differences to it."""

import numpy as np

from gradaudit.numerics import PRECISIONS, Plain, Rounded, below_largest

_SINGLE = PRECISIONS["float32"]


def test_the_largest_has_the_largest_error_of_all_that_may_be_largest():
    value = np.array([[3.0, 2.0, -1e9], [3.0, 3.0 - 1e-7, 0.0]])
    variance = np.array([[1e-14, 1e-14, 1e3], [1e-14, 4e-14, 9e-14]])
    largest = Rounded(value, variance, None, _SINGLE).max(axis=-1)
    np.testing.assert_array_equal(largest.value, [3.0, 3.0])
    np.testing.assert_array_equal(largest.variance, [1e-14, 4e-14])


def test_a_unique_largest_element_has_no_error():
    value = np.array([[3.0, 2.0], [3.0, 3.0]])
    below = below_largest(Rounded(value, np.full((2, 2), 1e-14), None, _SINGLE), -1)
    np.testing.assert_array_equal(below.value, [[0.0, -1.0], [0.0, 0.0]])
    assert below.variance[0, 0] == 0.0
    assert (below.variance.ravel()[1:] >= 2e-14).all()


def test_bare_arrays_are_subtracted():
    z = Plain(np.float32).array([[1.0, 4.0], [2.0, 0.5]], "float32")
    below = below_largest(z, (0, 1))
    assert below.dtype == np.float32
    np.testing.assert_array_equal(below, [[-3.0, 0.0], [-2.0, -3.5]])
