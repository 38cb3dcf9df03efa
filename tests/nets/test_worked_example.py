"""The published 3-layer net, recomputed here from the decimals that its source prints."""

from decimal import Decimal, getcontext

import numpy as np
import pytest

from gradaudit import GradientAudit, load
from gradaudit.nets import NETS, Settings
from gradaudit.nets.catalogue import compiled
from gradaudit.nets.deep_tanh import KERNELS
from gradaudit.nets.precision import floats

getcontext().prec = 40


def tanh(x):
    e = (2 * x).exp()
    return (e - 1) / (e + 1)


def times(vector, kernel):
    return [sum(v * row[j] for v, row in zip(vector, kernel)) for j in range(len(kernel[0]))]  # noqa: B905


def decimal_gradient():
    """Return the gradient of the loss by the three kernels in 40-digit decimals, by hand."""
    w1, w2, w3 = ([[Decimal(repr(w)) for w in row] for row in kernel] for kernel in KERNELS)
    x = [Decimal(2), Decimal(5), Decimal(3)]
    h1 = [tanh(a) for a in times(x, w1)]
    h2 = [tanh(a) for a in times(h1, w2)]
    e = [a.exp() for a in times(h2, w3)]
    d3 = [e[0] / sum(e) - 1, e[1] / sum(e)]
    d2 = [(1 - h * h) * sum(w * d for w, d in zip(row, d3, strict=True)) for h, row in zip(h2, w3)]  # noqa: B905
    d1 = [(1 - h * h) * sum(w * d for w, d in zip(row, d2, strict=True)) for h, row in zip(h1, w2)]  # noqa: B905
    inputs_and_deltas = ((x, d1), (h1, d2), (h2, d3))
    return [np.array([[float(a * d) for d in ds] for a in xs]) for xs, ds in inputs_and_deltas]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("worked")
    with floats("float32"):  # puts back what `compiled` sets
        model = compiled(NETS["deep_tanh"], Settings("sgd", 1.0, "float64"))
        x, y = NETS["deep_tanh"].data["worked"]()
        model.fit(x, y, epochs=1, verbose=0, callbacks=[GradientAudit(folder)])
    return load(folder)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_step_0_has_the_published_net_s_gradient_to_12_digits(run, layer):
    rows = run.weights.query(f"stage == 'gradient' and path == 'deep_tanh/layer_{layer}/kernel'")
    expected = decimal_gradient()[layer - 1].ravel()
    # 1 − tanh² of the saturated third unit of layer 1 cancels four digits, in any float64.
    lost = 1e-12 * np.abs(expected).max() if layer == 1 else 0.0
    np.testing.assert_allclose(rows["reference"], expected, rtol=1e-12, atol=lost)
    np.testing.assert_allclose(rows["tape"], expected, rtol=1e-12, atol=lost)


def test_the_entries_that_the_issue_names(run):
    rows = run.weights.query("path == 'deep_tanh/layer_2/kernel' and stage == 'gradient'")
    reference = rows.set_index("index")["reference"]
    assert f"{reference['0,0']:.5f}" == "0.23377"
    assert f"{reference['2,0']:.5f}" == "-0.23957"


def test_the_update_is_minus_the_learning_rate_times_the_gradient(run):
    one = run.weights.set_index(["stage", "path", "index"])["tape"]
    key = ("deep_tanh/layer_2/kernel", "0,0")
    assert one[("update", *key)] == pytest.approx(-one[("gradient", *key)], rel=1e-14)
