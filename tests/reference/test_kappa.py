import numpy as np
import pytest

from gradaudit.numerics import PRECISIONS, Rounded
from gradaudit.reference.kappa import kappa, mean_multiplicity

FLOAT32 = PRECISIONS["float32"]


def reference(sigma, kink=None):
    variance = np.asarray(sigma, np.float64) ** 2
    return Rounded(np.zeros(len(variance)), variance, kink, FLOAT32)


@pytest.mark.parametrize(
    ("twin", "sigma", "kink", "expected"),
    [
        ([3.0, 3.0], [1.0, 1.0], None, 3.0),
        ([3.0, 4.0], [1.0, 1.0], None, np.sqrt(12.5)),
        ([0.1, 0.1], [1.0, 1.0], None, 1.0),
        ([3.0, 500.0], [1.0, 1.0], [0.0, 9e4], 3.0),  # another branch was taken
        ([3.0, 3.0], [1.0, 1.0], [0.0, 0.5], 3.0),  # a kink that hardly matters
        ([3.0, np.inf], [1.0, 1.0], None, 3.0),
        ([3.0, 7.0], [1.0, 0.0], None, 3.0),
        ([5.0], [0.0], None, 1.0),
        ([], [], None, 1.0),
    ],
)
def test_kappa_is_the_rms_of_the_twin_s_errors_and_at_least_1(twin, sigma, kink, expected):
    kink = None if kink is None else np.asarray(kink)
    assert kappa(np.asarray(twin, np.float32), reference(sigma, kink)) == pytest.approx(expected)


def test_the_mean_multiplicity_of_rows():
    x = np.array([[0, 1], [0, 1], [0, 1], [1, 1]])
    assert mean_multiplicity(x) == 10 / 4
    assert mean_multiplicity({"a": x, "b": np.arange(4)}) == 1
    assert mean_multiplicity([x, np.zeros(4)]) == 10 / 4
    assert mean_multiplicity(x[:0]) == 0
