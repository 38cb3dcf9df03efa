"""Losses as Keras compiles them: options, reductions, sample weights and unwrapped logits."""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.losses.loss import reduce_weighted_values

from gradaudit import GradientAudit, load
from gradaudit.numerics import Plain
from gradaudit.rules import LossCall
from gradaudit.rules.losses.half_squared_error import HalfSquaredError
from gradaudit.rules.losses.reduction import reduce_losses
from suite import by_default

CE, SPARSE, BCE, FOCAL, MSE = (
    keras.losses.CategoricalCrossentropy,
    keras.losses.SparseCategoricalCrossentropy,
    keras.losses.BinaryCrossentropy,
    keras.losses.BinaryFocalCrossentropy,
    keras.losses.MeanSquaredError,
)
FITS = {
    "ce string": ("softmax", 3, "categorical_crossentropy", "one_hot"),
    "ce function": ("softmax", 3, keras.losses.categorical_crossentropy, "one_hot"),
    "ce smoothed": ("softmax", 3, CE(label_smoothing=0.2), "one_hot"),
    "ce logits": ("linear", 3, CE(from_logits=True), "one_hot"),
    "ce of positive numbers": ("softplus", 3, CE(), "one_hot"),
    "ce summed": ("softmax", 3, CE(reduction="sum"), "one_hot"),
    "ce weighted mean": ("softmax", 3, CE(reduction="mean_with_sample_weight"), "one_hot"),
    "sparse": ("softmax", 3, "sparse_categorical_crossentropy", "integer"),
    "sparse logits": ("linear", 3, SPARSE(from_logits=True), "integer"),
    "sparse of numbers": ("hard_sigmoid", 3, SPARSE(), "integer"),
    "bce": ("sigmoid", 1, "binary_crossentropy", "binary"),
    "bce smoothed": ("sigmoid", 1, BCE(label_smoothing=0.1), "binary"),
    "bce logits": ("linear", 1, BCE(from_logits=True), "binary"),
    "bce of numbers": ("hard_sigmoid", 1, BCE(), "binary"),
    "bce of softmax": ("softmax", 3, "binary_crossentropy", "one_hot"),
    "mse": ("tanh", 2, "mse", "real"),
    "mse rows": ("linear", 1, "mse", "row"),
    "half squared error": ("linear", 2, HalfSquaredError(), "real"),
    "sparse, a class ignored": ("softmax", 3, SPARSE(ignore_class=1), "integer"),
    "sparse, strangers ignored": ("linear", 3, SPARSE(True, ignore_class=-1), "with strangers"),
    "sparse, all ignored": ("linear", 1, SPARSE(True, ignore_class=0), "integer"),
    "focal of sigmoid": ("sigmoid", 3, FOCAL(), "one_hot"),
    "focal of softmax": ("softmax", 3, FOCAL(apply_class_balancing=True), "one_hot"),
    "focal of numbers": ("hard_sigmoid", 1, FOCAL(), "binary"),
    "focal logits": ("linear", 1, FOCAL(from_logits=True), "binary"),
    "focal logits of sigmoid": ("sigmoid", 1, FOCAL(from_logits=True), "binary"),
    "categorical focal of softmax": ("softmax", 3, "categorical_focal_crossentropy", "one_hot"),
    "generalized ce": (
        "softmax", 3, keras.losses.CategoricalGeneralizedCrossEntropy(0.7), "integer"
    ),
    "kld": ("softmax", 3, "kld", "one_hot"),
    "poisson": ("softplus", 1, "poisson", "binary"),
    "mae rows": ("linear", 1, "mae", "row"),
    "mape": ("linear", 2, "mape", "real"),
    "msle": ("softplus", 2, "msle", "one_hot"),
    "msle in float16": (
        "softplus", 2, keras.losses.MeanSquaredLogarithmicError(dtype="float16"), "one_hot"
    ),
    "huber by a partial": (
        "linear", 2, functools.partial(keras.losses.huber, delta=0.4), "real"
    ),
    "hinge rows": ("tanh", 1, "hinge", "row"),
    "categorical hinge": ("linear", 3, "categorical_hinge", "one_hot"),
    "dice of all": ("sigmoid", 3, "dice", "one_hot"),
    "tversky of rows": ("sigmoid", 3, keras.losses.Tversky(0.3, 0.7, axis=-1), "one_hot"),
    "cosine": ("tanh", 3, keras.losses.CosineSimilarity(), "real"),
    "cosine of all": ("tanh", 3, keras.losses.CosineSimilarity(axis=None), "real"),
    "circle": ("tanh", 3, keras.losses.Circle(), "integer"),
    "circle, many classes": ("tanh", 9, keras.losses.Circle(gamma=3.0), "integer"),
}  # fmt: skip


def targets(kind, width, rng, rows=24):
    if kind == "real":
        return rng.standard_normal((rows, width))
    if kind == "row":
        return rng.standard_normal(rows)
    if kind == "binary":
        return rng.integers(0, 2, (rows, 1)).astype("float32")
    classes = rng.integers(-1 if kind == "with strangers" else 0, width, rows)
    return classes if kind in ("integer", "with strangers") else np.eye(width)[classes]


@pytest.mark.parametrize(
    ("case", "weighted"),
    by_default(
        itertools.product(FITS, [False, True]),
        chosen=[
            ("ce string", False),
            ("ce logits", True),
            ("bce of softmax", False),
            ("sparse, a class ignored", True),
            ("msle in float16", False),
            ("dice of all", False),
        ],
    ),
)
def test_a_fit_with_the_loss_passes(tmp_path, case, weighted):
    activation, width, loss, kind = FITS[case]
    rng = np.random.default_rng(0)
    layers = [keras.layers.Dense(5, "tanh"), keras.layers.Dense(width, activation)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile(keras.optimizers.SGD(0.05), loss)
    x, y = rng.standard_normal((24, 4)), targets(kind, width, rng)
    weight = rng.uniform(0.2, 3, 24) if weighted else None
    audit = GradientAudit(tmp_path)
    model.fit(x, y, 10, 2, verbose=0, sample_weight=weight, callbacks=[audit])
    run = load(tmp_path)
    assert run.verdict == "pass"
    assert run.weights["z"].max() < 4
    assert run.steps["loss_z"].max() < 4


def test_class_weights_are_sample_weights(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    x, y = np.random.default_rng(0).standard_normal((12, 4)), np.arange(12) % 3
    weights = {0: 0.2, 1: 1.0, 2: 5.0}
    model.fit(x, y, verbose=0, class_weight=weights, callbacks=[GradientAudit(tmp_path)])
    assert load(tmp_path).verdict == "pass"


def test_targets_that_do_not_sum_to_1_show_tensorflow_s_wrong_gradient(tmp_path):
    """TensorFlow's fused kernel gives p − t where p Σt − t is the derivative of its own loss."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "categorical_crossentropy")
    x, y = np.random.default_rng(0).standard_normal((12, 4)), np.full((12, 3), 0.5)
    model.fit(x, y, verbose=0, callbacks=[GradientAudit(tmp_path)])
    run = load(tmp_path)
    assert run.verdict == "fail"
    assert run.steps["loss_z"].max() < 4


@pytest.mark.parametrize(
    ("activation", "dtype", "loss", "taken"),
    [
        ("softmax", "float32", "categorical_crossentropy", True),
        ("sigmoid", "float32", "binary_crossentropy", True),
        ("softmax", "mixed_float16", "categorical_crossentropy", False),
        ("softmax", "float64", "categorical_crossentropy", False),
        ("softplus", "float32", "categorical_crossentropy", False),
        ("softmax", "float32", "mse", False),
    ],
)
def test_logits_are_taken_where_keras_takes_them(tmp_path, activation, dtype, loss, taken):
    """A saturated output has no gradient where the loss clips it, and one where it does not."""
    last = keras.layers.Dense(3, activation, use_bias=False, dtype=dtype)
    model = keras.Sequential([keras.Input((3,)), last])
    model.compile("sgd", loss)
    last.kernel.assign(np.eye(3) * 60 - 30)
    x, y = np.eye(3), np.eye(3)[[1, 2, 0]]
    model.fit(x, y, verbose=0, callbacks=[GradientAudit(tmp_path)])
    gradient = load(tmp_path).weights.query("stage == 'gradient'")
    assert bool(gradient["tape"].abs().max() > 0.1) is taken
    assert gradient["z"].max() < 4
    assert set(gradient["verdict"]) <= ({"pass"} if taken else {"pass", "unresolved"})


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
@pytest.mark.parametrize("weight_shape", [None, (4,), (4, 1), (4, 3)])
@pytest.mark.parametrize("loss_shape", [(4,), (4, 1), (4, 3), ()])
@pytest.mark.parametrize("masked", [None, "some", "all"])
def test_losses_are_reduced_as_keras_does(loss_shape, weight_shape, reduction, masked):
    rng = np.random.default_rng(0)
    losses = rng.standard_normal(loss_shape)
    weight = None if weight_shape is None else rng.uniform(0.5, 2, weight_shape)
    mask = {"some": rng.random(loss_shape) < 0.6, "all": np.zeros(loss_shape, bool)}.get(masked)
    taped = tf.constant(losses)
    try:
        with tf.GradientTape() as tape:
            tape.watch(taped)
            theirs = reduce_weighted_values(taped, weight, mask, reduction, "float64")
    except tf.errors.InvalidArgumentError:
        pytest.skip("Keras cannot multiply these shapes")
    call = LossCall(None, {}, "float64", Plain(np.float64), 1e-7)
    ours, vjp = reduce_losses(call, losses, weight, reduction, mask=mask)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    dy = rng.standard_normal(theirs.shape)
    np.testing.assert_allclose(
        vjp(dy), tape.gradient(theirs, taped, tf.constant(dy)), rtol=1e-12, atol=1e-15
    )
