import keras
import numpy as np
import pytest

from gradaudit.numerics import PRECISIONS, Plain, Rounded, Rounding, newton_schulz

MUON = (3.4445, -4.7750, 2.0315)
FLOAT32 = PRECISIONS["float32"]


def unit(shape, rank=None, spread=0.0, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * np.exp(spread * rng.standard_normal(shape))
    if rank is not None:
        x = x[:, :rank] @ rng.standard_normal((rank, shape[1]))
    return (x / np.linalg.norm(x)).astype(np.float32)


def test_the_iterations_equal_keras_s():
    x = unit((3, 5)).astype(np.float64)
    muon = keras.optimizers.Muon()
    theirs = muon.zeropower_via_newtonschulz5(keras.ops.convert_to_tensor(x), 5)
    scaled = x / (np.linalg.norm(x) + 1e-7)
    ours = newton_schulz(Plain(np.float64).array(scaled, "float64"), 5, MUON)
    np.testing.assert_allclose(ours, np.asarray(theirs), rtol=1e-12)


@pytest.mark.parametrize("shape", [(2, 3), (3, 3), (16, 16), (5, 40), (40, 40)])
@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("spread", [0.0, 1.5])
def test_sigma_is_that_of_float32(shape, rank, spread):
    errors = []
    for seed in range(5):
        x = unit(shape, rank, spread, seed)
        found = newton_schulz(Rounding().array(x, "float32"), 5, MUON)
        single = newton_schulz(x, 5, MUON)
        assert single.dtype == np.float32
        errors.append((single - found.value) / found.sigma)
    assert np.max(np.abs(errors)) < 4
    assert np.sqrt(np.mean(np.square(errors))) > 0.02


@pytest.mark.parametrize("shape", [(3, 3), (4, 30)])
def test_an_error_of_the_input_is_propagated_through_all_iterations(shape):
    x, size = unit(shape).astype(np.float64), 1e-5  # far above the roundings
    given = Rounded(x, np.full(shape, size**2), None, FLOAT32)
    found = newton_schulz(given, 5, MUON)
    rng = np.random.default_rng(1)
    moved = [newton_schulz(x + size * rng.standard_normal(shape), 5, MUON) for _ in range(4000)]
    right = np.std(moved, axis=0)
    np.testing.assert_allclose(np.linalg.norm(found.sigma), np.linalg.norm(right), rtol=0.05)
    assert np.max(right / found.sigma) < 1.5


def test_an_overflow_in_one_element_is_a_kink_of_all():
    x = unit((2, 3))
    kink = np.zeros((2, 3))
    kink[0, 0] = np.inf
    found = newton_schulz(Rounded(x, None, kink, FLOAT32), 1, MUON)
    assert np.isinf(found.kink).all()
