"""What a rule declares of its class, in rules of a user's own: nothing else knows a class."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

import gradaudit
from gradaudit.backends.tensorflow import Replay, present_config
from gradaudit.errors import CheckFailure, GapCode, RuleDefinitionError, UnsupportedModelError
from gradaudit.numerics import Plain
from gradaudit.reference.arguments import Tensor
from gradaudit.reference.walk import Walk
from gradaudit.rules import Case, Rule, find_rule
from gradaudit.rules.registry import registered
from gradaudit.testing import check_rule


class MyDense(layers.Dense):
    """A subclass, which has no part in the rule of Dense."""


class MySoftmax(layers.Softmax):
    """A subclass, which has no part in the rule of Softmax."""


class Halved(layers.Layer):
    """Halves its weight in each step, before it multiplies by it."""

    def build(self, shape):
        self.gain = self.add_weight(shape=shape[-1:], initializer="ones", name="gain")

    def call(self, x):
        self.gain.assign(self.gain * 0.5)
        return x * self.gain


def halved(call, x):
    gain = call.weights["gain"] * 0.5
    call.assign("gain", gain)
    return x * gain, lambda dy: (dy * gain, {"gain": (x * dy).sum(axis=0)})


HALVED = Rule(Halved, "layer", halved, (Case("", Halved, (4, 3)),), "", ("gain",), None, (),
              assigns=("gain",))  # fmt: skip


class MyDecay(keras.optimizers.SGD):
    """SGD that decays each weight by a number of its own."""

    def _apply_weight_decay(self, variables):
        for variable in variables:
            decay = my_decay(self, variable)
            variable.assign(variable - variable * decay * self.learning_rate)


def my_decay(optimizer, variable):
    return 0.25 if "kernel" in variable.path else 0.125


def as_mine(target, mine, **declared):
    """Return the rule of a Keras class as one of a class of the user's own."""
    return dataclasses.replace(find_rule(target), target=mine, **declared)


def fit(last, loss="categorical_crossentropy"):
    """Fit three saturated rows, whose gradient is lost unless the loss has the logits."""
    model = keras.Sequential([keras.Input((3,)), *last])
    model.compile("sgd", loss)
    model.layers[0].kernel.assign(np.eye(3) * 60 - 30)
    x, y = np.eye(3, dtype="float32"), np.eye(3)[[1, 2, 0]]
    return gradaudit.check(model, x, y)


def oracles(run):
    return set(run.tensors.query("stage == 'gradient'").oracle)


def test_an_activation_at_the_end_of_a_user_s_rule_leaves_its_logits():
    last = [MyDense(3, "softmax", use_bias=False)]
    with registered(as_mine(layers.Dense, MyDense)):
        run = fit(last)
    assert run.verdict == "pass"
    assert oracles(run) == {"derived"}
    assert run.weights.query("stage == 'gradient'").tape.abs().max() > 0.1


def silent():
    """Return a rule that calls `call.activate`, and does not declare it."""
    case = Case("one", lambda: MyDense(2, "tanh"), (3, 4))
    return as_mine(layers.Dense, MyDense, ends_with_activation=False, cases=(case,))


def test_a_step_is_traced_where_a_rule_does_not_declare_its_activation(tmp_path, capsys):
    last = [MyDense(3, "softmax", use_bias=False, name="mine")]
    with registered(silent()):
        run = fit(last)
        model = keras.Sequential([keras.Input((3,)), MyDense(2, "tanh", name="mine")])
        model.compile("sgd", "mse")
        audit = gradaudit.GradientAudit(tmp_path / "run")
        model.fit(np.eye(3), np.ones((3, 2)), verbose=0, callbacks=[audit])
    assert (run.verdict, oracles(run)) == ("pass", {"traced"})
    assert gradaudit.load(tmp_path / "run").verdict == "pass"
    assert "the auditor failed" not in "".join(capsys.readouterr())


def test_an_activation_that_is_not_declared_is_refused_by_the_checks():
    words = "raised UnsupportedModelError: .*Add ends_with_activation=True"
    with registered(silent()), pytest.raises(CheckFailure, match=words):
        check_rule(MyDense)


def test_what_a_rule_must_declare_is_told_with_the_layer():
    model = keras.Sequential([keras.Input((3,)), MyDense(2, "tanh", name="mine")])
    walk = Walk(
        {v.path: v.numpy() for v in model.variables},
        Plain(np.float64),
        Replay(jit=False),
        config=present_config(),
    )
    with registered(silent()), pytest.raises(UnsupportedModelError) as caught:
        walk.model(model, [Tensor(np.eye(3), "float64")])
    assert (caught.value.code, caught.value.part) == (GapCode.OPTION, "mine")


def test_a_user_s_softmax_has_its_input_as_logits():
    last = [layers.Dense(3, use_bias=False), MySoftmax()]
    with registered(as_mine(layers.Softmax, MySoftmax)):
        run = fit(last)
    assert (run.verdict, oracles(run)) == ("pass", {"derived"})


@pytest.mark.parametrize(("declared", "verdict"), [("unknown", "pass"), (None, "fail")])
def test_logits_that_a_user_s_rule_does_not_return_are_traced(declared, verdict):
    last = [layers.Dense(3, use_bias=False), MySoftmax()]
    mine = as_mine(layers.Softmax, MySoftmax, output_logits=lambda layer, place: declared)
    with registered(mine):
        run = fit(last)
    assert run.verdict == verdict
    assert oracles(run) == ({"traced"} if declared else {"derived"})


@pytest.mark.parametrize("use", ["takes", None])
def test_a_loss_declares_that_it_takes_logits(use):
    right = find_rule(keras.losses.categorical_crossentropy)
    last = [layers.Dense(3, "softmax", use_bias=False)]
    with registered(dataclasses.replace(right, uses_logits=lambda options: use)):
        run = fit(last)
    assert run.verdict == ("pass" if use else "fail")


def halving(rule):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((3,)), Halved(), layers.Dense(2)])
    model.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    with registered(rule):
        return gradaudit.check(model, rng.standard_normal((12, 3)), rng.standard_normal((12, 2)))


def test_a_user_s_rule_may_assign_to_a_trainable_weight():
    run = halving(HALVED)
    assert run.verdict == "pass"
    assert oracles(run) == {"derived"}


def test_an_assignment_that_is_not_declared_is_refused():
    with pytest.raises(RuleDefinitionError, match=r"assigns=\('gain',\)"):
        halving(dataclasses.replace(HALVED, assigns=()))


def one_decay(optimizer, variable):
    return 0.25


@pytest.mark.parametrize(("declared", "verdict"), [(my_decay, "pass"), (one_decay, "fail")])
def test_an_optimizer_declares_its_weight_decay(declared, verdict):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, bias_initializer="ones")])
    model.compile(MyDecay(0.1, weight_decay=0.5), "mse")
    rng = np.random.default_rng(0)
    with registered(as_mine(keras.optimizers.SGD, MyDecay, weight_decay=declared)):
        run = gradaudit.check(model, rng.standard_normal((12, 3)), rng.standard_normal((12, 2)))
    assert run.verdict == verdict
