"""Layers and losses as users write them: right ones pass, and one wrong line fails and is named."""

import inspect
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import custom_nets
import gradaudit
from custom_nets import NETS, right, wrong


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_a_right_one_passes(name, jit):
    build, _ = NETS[name]
    model, x, y = build(right)
    model.compile(model.optimizer, model.loss, jit_compile=jit)
    run = gradaudit.check(model, x, y)
    assert run.verdict == "pass", run.run["failures"] or run.run["unjudged"]
    gradients = run.tensors.query("stage == 'gradient'")
    assert "traced" in set(gradients["oracle"])
    assert gradients["max_z"].max() < 4


@pytest.mark.parametrize("name", NETS)
def test_one_wrong_line_is_found_and_named(name):
    build, layer = NETS[name]
    model, x, y = build(wrong)
    run = gradaudit.check(model, x, y)
    assert run.verdict == "fail", run.run["unjudged"]
    lines = inspect.getsource(custom_nets).splitlines()
    for cause in run.tensors.query("stage == 'gradient' and verdict == 'fail'")["cause"]:
        place = re.search(r"custom gradient .*custom_nets\.py:(\d+)", cause)
        assert "line(" in lines[int(place[1]) - 1]
        assert layer in cause


class Loud(layers.Layer):
    """Doubles x, adds a penalty, and masks the steps in which all is quiet."""

    def call(self, x, mask=None):
        self.add_loss(1e-2 * tf.reduce_mean(x**2))
        return 2.0 * x

    def compute_mask(self, x, mask=None):
        return keras.ops.any(keras.ops.abs(x) > 0.1, axis=-1)


class Noisy(layers.Layer):
    def __init__(self):
        super().__init__()
        self.seed = keras.random.SeedGenerator(5)

    def call(self, x):
        return x * keras.random.uniform(keras.ops.shape(x), seed=self.seed)


def test_a_variable_that_is_none_of_the_model_s_is_told():
    seed = keras.random.SeedGenerator(5)
    noisy = layers.Lambda(lambda x: x + keras.random.normal((3,), seed=seed))
    model = keras.Sequential([keras.Input((3,)), layers.Dense(3), noisy])
    model.compile("sgd", "mse")
    run = gradaudit.check(model, np.ones((2, 3)), np.ones((2, 3)))
    assert run.verdict == "unjudged"
    assert "reads a variable that is none of the model's" in run.run["unjudged"][0]


@pytest.mark.parametrize("jit", [False, True])
def test_masks_logits_penalties_and_draws_pass_between_traced_and_derived_layers(jit):
    keras.utils.set_random_seed(0)
    x = keras.Input((5, 3))
    h = Loud(name="loud")(layers.Dropout(0.2, seed=3)(x))
    h = Noisy()(layers.GRU(4)(h))
    y = layers.Lambda(tf.function(keras.ops.softmax))(layers.Dense(3, name="before")(h))
    model = keras.Model(x, y)
    model.compile("sgd", "categorical_crossentropy", jit_compile=jit)
    rows = np.random.default_rng(0).standard_normal((12, 5, 3)).astype(np.float32)
    rows[::3, 2:] = 0.0
    run = gradaudit.check(model, rows, np.eye(3)[np.arange(12) % 3])
    assert run.verdict == "pass", run.run["failures"] or run.run["unjudged"]
    assert run.run["max_z"] < 4


@tf.custom_gradient
def gradient_reversal(x):
    return tf.identity(x), lambda dx: -0.5 * dx


@tf.custom_gradient
def clipped_gradient(x, w):
    y = x * w
    return y, lambda dy: (tf.clip_by_value(dy * w, -1e-3, 1e-3), tf.reduce_sum(dy * x, 0))


class Reversing(layers.Layer):
    def build(self, shape):
        self.w = self.add_weight(shape=shape[-1:], name="w")

    def call(self, x):
        return clipped_gradient(gradient_reversal(x), self.w.value)


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    ("expect", "verdict"),
    [
        ({}, "fail"),
        ({"gradient_reversal": "custom"}, "fail"),
        ({"gradient_reversal": "custom", "clipped_gradient": "custom"}, "pass"),
        ({"reversing": "custom"}, "pass"),
    ],
)
def test_a_custom_gradient_that_is_meant_is_taken_and_told(expect, verdict, jit):
    keras.utils.set_random_seed(0)
    middle = [layers.Dense(5, name="before"), Reversing(name="reversing"), layers.Dense(2)]
    model = keras.Sequential([keras.Input((4,)), *middle])
    model.compile("sgd", "mse", jit_compile=jit)
    x = np.random.default_rng(0).standard_normal((8, 4))
    run = gradaudit.check(model, x, x[:, :2], expect=expect)
    assert run.verdict == verdict
    (cause,) = run.tensors.query("stage == 'gradient' and path.str.endswith('before/bias')")[
        "cause"
    ]
    for name in ("gradient_reversal", "clipped_gradient"):
        meant = ", as expected," if {name, "reversing"} & expect.keys() else ""
        words = rf"the custom gradient of '{name}'{meant} in reversing at .*:\d+.* stands"
        assert re.search(words, cause)


def test_expectations_that_are_none_are_refused():
    with pytest.raises(gradaudit.errors.UsageError, match='Expected "custom"'):
        gradaudit.check(NETS["map_fn"][0](right)[0], None, expect={"f": "straight through"})
    with pytest.raises(gradaudit.errors.UsageError, match="Expected one of derived"):
        gradaudit.check(NETS["map_fn"][0](right)[0], None, oracle="numeric")
