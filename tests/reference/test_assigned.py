"""What layers assign to in a step is audited with the weights that the optimizer moves."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers, ops

import gradaudit
from gradaudit.rules import Case, Rule
from gradaudit.rules.registry import registered


class RunningMean(layers.Layer):
    """Takes the batch's mean away, and keeps a running one."""

    def build(self, shape):
        self.mean = self.add_weight(shape=shape[-1:], trainable=False, name="mean")

    def call(self, x):
        mean = ops.mean(x, axis=0)
        self.mean.assign(0.75 * self.mean + 0.25 * mean)
        return x - ops.stop_gradient(mean)


def running_mean(call, x, kept=0.75):
    mean = x.mean(axis=0)
    call.assign("mean", kept * call.weights["mean"] + 0.25 * mean)
    return x - call.array(call.numbers(mean)), lambda dy: (dy, {})


RIGHT = Rule(RunningMean, "layer", running_mean, (Case("", RunningMean, (4, 3)),), "", ("mean",),
             None, ())  # fmt: skip
WRONG = dataclasses.replace(RIGHT, function=lambda call, x: running_mean(call, x, kept=0.7501))
SILENT = dataclasses.replace(
    RIGHT, function=lambda call, x: running_mean(dataclasses.replace(call, step=Deaf()), x)
)


class Deaf:
    """A step that takes no notice of what is assigned."""

    def assign(self, variable, value):
        pass


def audited(rule, *, calls=1, jit=False):
    keras.utils.set_random_seed(3)
    x = inputs = keras.Input((3,))
    layer = RunningMean(name="running")
    for _ in range(calls):
        x = layer(layers.Dense(3)(x))
    model = keras.Model(inputs, layers.Dense(2, name="last")(x))
    model.compile("sgd", "mse", jit_compile=jit)
    rng = np.random.default_rng(0)
    data = rng.standard_normal((12, 3)) + 5, rng.standard_normal((12, 2))
    with registered(rule):
        run = gradaudit.check(model, *data)
    return run, run.tensors.set_index(["stage", "path"])


@pytest.mark.parametrize("calls", [1, 2])  # a second call reads what the first has assigned
@pytest.mark.parametrize("jit", [False, True])
def test_a_running_mean_is_judged_as_an_update(calls, jit):
    run, tensors = audited(RIGHT, calls=calls, jit=jit)
    assert run.verdict == "pass"
    row = tensors.loc["update", "running/mean"]
    assert (row["verdict"], row["count"]) == ("pass", 3)
    assert row["detectable_rel"] < 1e-4
    assert ("gradient", "running/mean") not in tensors.index


def test_a_wrong_running_mean_fails():
    run, tensors = audited(WRONG, calls=2)
    assert run.verdict == "fail"
    assert tensors.loc["update", "running/mean"]["verdict"] == "fail"
    assert set(tensors.loc["gradient"]["verdict"]) == {"pass"}


def test_a_weight_that_nothing_moves_must_stay():
    run, tensors = audited(SILENT)
    assert run.verdict == "fail"
    assert tensors.loc["update", "running/mean"]["verdict"] == "fail"


def test_of_frozen_weights_that_stay_nothing_is_said():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(3), layers.Dense(2)])
    model.layers[0].trainable = False
    model.compile("sgd", "mse")
    run = gradaudit.check(model, np.ones((4, 3)), np.ones((4, 2)))
    assert run.verdict == "pass"
    assert not run.tensors["path"].str.contains("/dense/").any()
