import numpy as np
import pytest

from gradaudit.numerics import PRECISIONS, Rounded
from gradaudit.records import Estimate, Oracle
from gradaudit.reference.kappa import TWINS, UNITS, beside, kappa, refined

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


def test_numbers_beside_differ_by_at_most_one_unit_and_equal_ones_alike():
    rng = np.random.default_rng(0)
    array = rng.standard_normal((400, 30)).astype(np.float32)
    array[1] = array[0]
    moves = [(beside(array, n) - array) / np.spacing(np.abs(array)) for n in range(40)]
    assert set(np.unique(np.rint(np.abs(moves)))) == {0.0, 1.0}
    assert all(np.array_equal(move[0], move[1]) for move in moves)
    assert np.all(np.any(np.array(moves) != moves[0], axis=0))  # each number moves, in some twin
    assert np.array_equal(beside(array, 3), beside(array, 3))
    correlation = np.corrcoef(np.array(moves).reshape(40, -1)[:, 30:])
    assert np.abs(correlation[~np.eye(40, dtype=bool)]).max() < 0.05


def test_what_may_be_an_index_or_a_mark_stays():
    stays = np.array([0.0, -0.0, 1.0, -1.0, 7.0, 1e9, np.inf, -np.inf, np.nan], np.float32)
    assert np.array_equal(beside(stays, 5), stays, equal_nan=True)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_numbers_beside_in_a_half_precision_are_other_numbers_of_that_precision(name):
    array = PRECISIONS[name].nearest(np.random.default_rng(0).uniform(0.1, 1.0, 1000))
    moved = beside(array, 2, UNITS[name]).astype(np.float64)
    assert np.array_equal(PRECISIONS[name].nearest(moved), moved)
    assert 0.5 < np.mean(moved != array) < 0.8


class Twins:
    """Makes errors of given σ by path, and counts the twins."""

    def __init__(self, **sigma):
        self.sigma, self.count = {p: np.asarray(s) for p, s in sigma.items()}, 0

    def __call__(self, number):
        assert number == self.count
        self.count += 1
        rng = np.random.default_rng(number)
        return {path: s * rng.standard_normal(s.shape) for path, s in self.sigma.items()}


def estimate(sigma, kink=None):
    sigma = np.asarray(sigma, np.float64)
    kink = None if kink is None else np.asarray(kink, np.float64)
    return Estimate(np.zeros(sigma.shape), sigma, kink, 1.5, Oracle.DERIVED)


def test_what_is_near_costs_no_further_twins():
    given, twins = {"w": estimate([1.0, 1.0])}, Twins(w=[9.0, 9.0])
    assert refined(given, {"w": [3.9, -3.9]}, twins)["w"] is given["w"]
    assert refined(given, {}, twins)["w"] is given["w"]
    assert refined(given, {"w": [np.nan, 2.0]}, twins)["w"] is given["w"]
    assert twins.count == 0


def test_one_bad_channel_gets_the_sigma_of_its_twins_and_the_others_keep_theirs():
    sigma = np.ones((20, 6))
    true = sigma * [1, 1, 10, 1, 1, 0.1]
    twins = Twins(w=true, b=[5.0])
    given = {"w": estimate(sigma), "b": estimate([1.0])}
    tape = true
    found = refined(given, {"w": tape, "b": [2.0]}, twins)
    assert found["b"] is given["b"]
    assert twins.count == TWINS[0]
    ratio = found["w"].sigma / sigma
    assert 5 < np.median(ratio[:, 2]) < 15
    assert np.all(ratio[:, 5] == 1)  # never below the model
    assert found["w"].kappa == pytest.approx(
        1.5 * np.linalg.norm(found["w"].sigma) / np.linalg.norm(sigma)
    )
    assert np.array_equal(found["w"].value, given["w"].value)


@pytest.mark.parametrize(("off", "count"), [(30.0, 32), (1e3, 4), (2e4, 0)])
def test_an_error_of_the_framework_does_not_raise_sigma(off, count):
    """The twins are as they are: what the framework computed only decides how many there are."""
    twins = Twins(w=np.ones(50))
    tape = np.zeros(50)
    tape[7] = off
    found = refined({"w": estimate(np.ones(50))}, {"w": tape}, twins)["w"]
    assert twins.count == count
    assert np.max(np.abs(tape) / found.sigma) > 8
    assert np.max(found.sigma) < 3


def test_where_a_kink_outweighs_sigma_twins_do_not_count():
    twins = Twins(w=[50.0, 50.0, 50.0])
    given = {"w": estimate([1.0, 1.0, 1.0], [200.0, 0.5, 0.0])}
    found = refined(given, {"w": [150.0, 3.0, 20.0]}, twins)["w"]
    assert found.sigma[0] == 1.0
    assert np.all(found.sigma[1:] > 10)
