"""Steps that are judged by a lower bound of σ: the verdicts are those of σ itself."""

import dataclasses
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradaudit import GradientAudit, load
from gradaudit.audit import sigma as module
from gradaudit.audit.sigma import Sigma
from gradaudit.records import Comparison, TensorComparison, Verdict
from suite import by_default


class Nudged(keras.layers.Dense):
    """Has a gradient that is wrong from the step on whose number it is given.

    kind: how: by a factor, in one weight alone, or by the sign.
    """

    def __init__(self, kind, since, **options):
        super().__init__(16, "tanh", **options)
        self.kind, self.since = kind, since

    def build(self, shape):
        super().build(shape)
        self.calls = self.add_weight(shape=(), dtype="int32", trainable=False, name="calls")

    def call(self, x, training=None):
        self.calls.assign_add(1)
        is_wrong = tf.cast(self.calls.value > self.since, "float32")

        @tf.custom_gradient
        def nudged(kernel):
            def vjp(dkernel):
                one = tf.scatter_nd([[2, 3]], [1e-3], tf.shape(dkernel))
                error = {"factor": 1e-4 * dkernel, "one": one * dkernel, "sign": -2 * dkernel}
                return dkernel + is_wrong * error[self.kind]

            return tf.identity(kernel), vjp

        return self.activation(tf.matmul(x, nudged(self.kernel.value)) + self.bias)


def _anew():
    """Let the next model have the same names and weights as the one before."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)


def _net(kind, since):
    _anew()
    return keras.Sequential(
        [keras.Input((8,)), Nudged(kind, since), keras.layers.Dense(3, "softmax")]
    )


def _run(folder, model, sigma, steps=12, rows=32, **options):
    model.compile("adam", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(1)
    x = rng.standard_normal((steps * rows, *model.input_shape[1:])).astype(np.float32)
    audit = GradientAudit(folder, verbose=0, sigma=sigma, **options)
    model.fit(x, rng.integers(0, 3, len(x)), rows, shuffle=False, verbose=0, callbacks=[audit])
    return load(folder)


@pytest.mark.parametrize("kind", by_default(["factor", "one", "sign"], ["one"]))
def test_a_fault_is_found_at_the_same_step(tmp_path, kind):
    needed, always = (
        _run(tmp_path / sigma, _net(kind, since=7), sigma) for sigma in ("needed", "always")
    )
    assert needed.steps["verdict"].tolist() == always.steps["verdict"].tolist()
    assert needed.steps["verdict"].tolist() == ["pass"] * 7 + ["fail"] * 5
    assert needed.steps["judged_by"].tolist()[:7] == ["sigma"] + ["bound"] * 6
    assert set(needed.steps["judged_by"][7:]) == {"sigma"}
    same = ["step", "stage", "path", "verdict", "cause"]
    assert needed.tensors[same].equals(always.tensors[same])
    assert set(always.steps["judged_by"]) == {"sigma"}


def test_a_bound_that_overflows_hides_no_fault(tmp_path):
    runs = []
    for sigma in ("needed", "always"):
        _anew()
        # σ' is in float32, which holds no square of 10³⁰
        far = [keras.layers.Rescaling(scale) for scale in (1e15, 1e15, 1e-30)]
        wrong, last = Nudged("factor", since=4), keras.layers.Dense(3, "softmax")
        model = keras.Sequential([keras.Input((8,)), *far, wrong, last])
        runs.append(_run(tmp_path / sigma, model, sigma, steps=6))
    needed, always = runs
    assert needed.steps["verdict"].tolist() == ["pass"] * 4 + ["fail"] * 2
    assert needed.tensors["verdict"].equals(always.tensors["verdict"])


def _nets():
    layers = keras.layers
    yield "relu", lambda: [layers.Dense(64, "relu"), layers.Dense(64, "relu")]
    yield "convolutions", lambda: [
        layers.Reshape((4, 4, 1)), layers.Conv2D(4, 3), layers.BatchNormalization(),
        layers.ReLU(), layers.GlobalAveragePooling2D(),
    ]  # fmt: skip
    yield "recurrent", lambda: [layers.Reshape((8, 2)), layers.LSTM(8)]
    for mask in (False, True):
        yield f"attention, causal {mask}", lambda mask=mask: [
            layers.Reshape((4, 4)), _attention(use_causal_mask=mask), layers.Flatten()
        ]  # fmt: skip


def _attention(**options):
    x = keras.Input((4, 4))
    return keras.Model(x, x + keras.layers.MultiHeadAttention(2, 4)(x, x, **options))


NETS = dict(_nets())


@pytest.mark.parametrize("name", by_default(NETS, ["relu"]))
def test_the_verdicts_on_weights_are_the_same(tmp_path, name):
    runs = {}
    for sigma in ("needed", "always"):
        _anew()
        last = keras.layers.Dense(3, "softmax")
        model = keras.Sequential([keras.Input((16,)), *NETS[name](), last])
        runs[sigma] = _run(tmp_path / sigma, model, sigma, steps=8)
    needed, always = runs["needed"], runs["always"]
    assert (needed.steps["judged_by"] == "bound").mean() > 0.5
    columns = ["step", "stage", "path", "verdict", "cause"]
    pairs = itertools.zip_longest(
        needed.tensors[columns].itertuples(index=False),
        always.tensors[columns].itertuples(index=False),
    )
    assert [pair for pair in pairs if pair[0] != pair[1]] == []
    both = needed.tensors["detectable_rel"], always.tensors["detectable_rel"]
    known = (needed.tensors["verdict"] == "pass") & (both[1] > 0)
    assert np.allclose(np.log2(both[0][known] / both[1][known]), 0, atol=1)  # a factor of 2


@pytest.mark.long
def test_sigma_is_derived_again_now_and_then(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "EVERY", 3)
    run = _run(tmp_path, _net("factor", since=99), "needed", steps=9)
    assert run.steps["judged_by"].tolist() == (["sigma"] + ["bound"] * 3) * 2 + ["sigma"]


def _comparison(
    verdict=Verdict.PASS, max_z=1.0, detectable_rel=1e-6, kappa=1.0, loss_z=0.1, reference_norm=1.0
):
    tensor = TensorComparison(
        "gradient", "d/kernel", "d", (2,), "float32", "derived", 1.0, reference_norm, 0.0, 0.0,
        max_z, (0,), kappa, detectable_rel, 0, {verdict: 2}, verdict, "", 2,
    )  # fmt: skip
    return Comparison(
        0, 0, 0, 1, 1.0, 1.0, loss_z, (tensor,), max_z, "d/kernel", (0,), verdict, 1.0
    )


@pytest.mark.parametrize(
    ("found", "settles"),
    [
        ({}, True),
        ({"max_z": 7.9}, True),
        ({"max_z": 8.1}, False),
        ({"max_z": 8.1, "verdict": Verdict.FAIL}, False),
        ({"max_z": 3.9, "kappa": 30.0}, True),
        ({"max_z": 4.1, "kappa": 30.0}, False),
        ({"max_z": 4.1, "kappa": 1.5}, True),
        ({"max_z": np.nan}, False),
        ({"verdict": Verdict.UNRESOLVED}, True),
        ({"verdict": Verdict.UNRESOLVED, "reference_norm": np.nan}, False),  # it may be settled
        ({"verdict": Verdict.NONFINITE}, False),
        ({"verdict": Verdict.UNJUDGED}, False),
        ({"detectable_rel": 0.3}, False),  # σ itself may be a tenth of the values
        ({"loss_z": 9.0}, False),
        ({"loss_z": np.nan}, False),
    ],
)
def test_a_bound_settles_what_passes_by_it(found, settles):
    sigma = Sigma("needed")
    assert not sigma.settles(_comparison(), 8.0)  # nothing tells how strong the test is
    sigma.measured(_comparison(detectable_rel=2e-6), _comparison())
    by_bound = _comparison(**found)
    assert sigma.settles(by_bound, 8.0) is settles
    if settles:
        told = sigma.told(by_bound)
        assert told.judged_by == "bound"
        assert told.tensors[0].detectable_rel == 2 * by_bound.tensors[0].detectable_rel


def test_a_tensor_of_zeros_and_rounding_errors_needs_no_ratio():
    sigma = Sigma("needed")
    zeros = _comparison(verdict=Verdict.UNRESOLVED, detectable_rel=np.inf)
    sigma.measured(_with(zeros, _comparison()), _with(zeros, _comparison()))
    by_bound = _with(zeros, _comparison())
    assert sigma.settles(by_bound, 8.0)
    assert sigma.told(by_bound).tensors[0].detectable_rel == np.inf
    passes = dataclasses.replace(zeros.tensors[0], verdict=Verdict.PASS)
    assert not sigma.settles(dataclasses.replace(zeros, tensors=(passes,)), 8.0)


def _with(first, second):
    others = [dataclasses.replace(tensor, path="d/bias") for tensor in second.tensors]
    return dataclasses.replace(first, tensors=(*first.tensors, *others))


def test_bounds_that_settle_nothing_are_tried_with_a_twin_and_then_less_often():
    sigma, asked = Sigma("needed"), []
    for _ in range(40):
        wants = sigma.wants_bound()
        asked.append((wants, sigma.wants_twin))
        by_bound = _comparison(max_z=99.0, verdict=Verdict.FAIL) if wants else None
        assert by_bound is None or not sigma.settles(by_bound, 8.0)
        sigma.measured(_comparison(), by_bound)
    assert [twin for _, twin in asked[:3]] == [False, False, True]
    tried = [step for step, (wants, _) in enumerate(asked) if wants]
    assert np.diff(tried).tolist() == [1, 1, 2, 4, 8, 16]
    assert not Sigma("always").wants_bound()
