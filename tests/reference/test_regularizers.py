"""Regularizers of weights and of the outputs of layers, as Keras adds them to the loss."""

import keras
import numpy as np
import pytest
from keras import layers, regularizers

from gradaudit import GradientAudit, load
from suite import by_default

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((12, 4)), RNG.integers(0, 3, 12)
EVERYWHERE = {
    "kernel_regularizer": "l2",
    "bias_regularizer": regularizers.L1(0.02),
    "activity_regularizer": regularizers.L1L2(0.01, 0.03),
}


def audited(folder, model, x=X, y=Y, **options):
    model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy", **options)
    audit = GradientAudit(folder)
    model.fit(x, y, 8, 2, verbose=0, callbacks=[audit])
    return load(folder)


def require_pass(run):
    assert run.verdict == "pass"
    assert set(run.weights.query("stage == 'gradient'")["verdict"]) <= {"pass", "kink"}
    assert run.weights["z"].max() < 4
    assert run.steps["loss_z"].max() < 4


def regularized(**last):
    hidden = layers.Dense(5, "relu", bias_initializer="normal", **EVERYWHERE)
    return keras.Sequential([keras.Input((4,)), hidden, layers.Dense(3, "softmax", **last)])


@pytest.mark.parametrize("mode", by_default(["graph", "XLA", "eager", "float64"], chosen=["graph"]))
def test_a_regularized_fit_passes(tmp_path, mode):
    if mode == "float64":
        keras.config.set_floatx("float64")
        keras.config.set_dtype_policy("float64")
    options = {"jit_compile": mode == "XLA", "run_eagerly": mode == "eager"}
    require_pass(audited(tmp_path, regularized(**EVERYWHERE), **options))


@pytest.mark.long
def test_a_regularized_fit_in_mixed_precision(tmp_path):
    """Keras itself refuses the activity regularizer of a layer that computes in float16."""
    keras.config.set_dtype_policy("mixed_float16")
    hidden = layers.Dense(5, "tanh", kernel_regularizer="l2", bias_regularizer="l1")
    last = layers.Dense(3, "softmax", dtype="float32", **EVERYWHERE)
    run = audited(tmp_path, keras.Sequential([keras.Input((4,)), hidden, last]))
    assert run.verdict in ("pass", "unresolved")
    assert "unjudged" not in set(run.weights["verdict"])
    assert run.weights["z"].max() < 4
    assert run.steps["loss_z"].max() < 4


@pytest.mark.parametrize("mode", by_default(["rows", "columns"], ["rows"]))
def test_an_orthogonal_kernel(tmp_path, mode):
    orthogonal = regularizers.OrthogonalRegularizer(0.5, mode)
    require_pass(audited(tmp_path, regularized(kernel_regularizer=orthogonal)))


@pytest.mark.long
def test_a_layer_that_is_called_twice_is_penalized_twice(tmp_path):
    shared = layers.Dense(4, "tanh", **EVERYWHERE)
    inner = keras.Sequential([keras.Input((4,)), shared])
    inner.activity_regularizer = regularizers.L2(0.2)
    inputs = keras.Input((4,))
    output = layers.Dense(3, "softmax")(inner(shared(inner(inputs))))
    require_pass(audited(tmp_path, keras.Model(inputs, output)))


def test_a_model_s_own_activity_regularizer(tmp_path):
    model = regularized()
    model.activity_regularizer = regularizers.L2(0.2)
    require_pass(audited(tmp_path, model))


def test_penalties_can_be_all_of_the_loss(tmp_path):
    model = regularized(**EVERYWHERE)
    model.compile("sgd")
    model.fit(X, verbose=0, callbacks=[GradientAudit(tmp_path)])
    require_pass(load(tmp_path))


def test_a_frozen_weight_is_not_penalized(tmp_path):
    model = regularized(**EVERYWHERE)
    model.layers[0].trainable = False
    require_pass(audited(tmp_path, model))


WRONG = [regularizers.L1, regularizers.L2, regularizers.L1L2]


@pytest.mark.long
@pytest.mark.parametrize("wrong", by_default(WRONG, WRONG[-1:]))
def test_a_wrong_factor_is_found(tmp_path, monkeypatch, wrong):
    """Of the kernel's, the bias's and the activity regularizer, as Keras computes them."""
    right = wrong.__call__
    monkeypatch.setattr(wrong, "__call__", lambda self, w: 1.01 * right(self, w))
    assert audited(tmp_path, regularized(**EVERYWHERE)).verdict == "fail"


def test_an_activity_regularizer_that_is_left_out_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("gradaudit.reference.walk.activity_penalties", lambda *given: [])
    assert audited(tmp_path, regularized()).verdict == "fail"
