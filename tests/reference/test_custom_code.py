"""Layers and losses as users write them: right ones pass, and one wrong line fails and is named."""

import inspect
import itertools
import random
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import custom_nets
import gradaudit
from custom_nets import NETS, right, wrong
from gradaudit.audit.single_step import recorded
from gradaudit.reference import derive
from matrix.distribution import two_replicas
from suite import by_default


@pytest.mark.parametrize(
    ("name", "jit"),
    by_default(
        itertools.product(NETS, [False, True]),
        chosen=[
            ("gated residual block", True),
            ("differentiable top-k", False),
            ("neural ODE", False),
            ("mixture density loss", False),
            ("map_fn", False),
        ],
    ),
)
def test_a_right_one_passes(name, jit):
    build, _ = NETS[name]
    model, x, y = build(right)
    model.compile(model.optimizer, model.loss, jit_compile=jit)
    run = gradaudit.check(model, x, y)
    assert run.verdict == "pass", run.run["failures"] or run.run["unjudged"]
    gradients = run.tensors.query("stage == 'gradient'")
    assert "traced" in set(gradients["oracle"])
    assert gradients["max_z"].max() < 4


@pytest.mark.parametrize(
    "name",
    by_default(NETS, chosen=["gated residual block", "neural ODE", "contrastive loss", "map_fn"]),
)
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


@pytest.mark.parametrize("jit", by_default([False, True], [False]))
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


EXPECT = {
    "none": ({}, "fail"),
    "one": ({"gradient_reversal": "custom"}, "fail"),
    "both": ({"gradient_reversal": "custom", "clipped_gradient": "custom"}, "pass"),
    "the layer": ({"reversing": "custom"}, "pass"),
}


@pytest.mark.parametrize(
    ("case", "jit"),
    by_default(
        itertools.product(EXPECT, [False, True]),
        chosen=[("none", False), ("one", True), ("both", False), ("the layer", False)],
    ),
)
def test_a_custom_gradient_that_is_meant_is_taken_and_told(case, jit):
    expect, verdict = EXPECT[case]
    keras.utils.set_random_seed(0)
    middle = [layers.Dense(5, name="before"), Reversing(name="reversing"), layers.Dense(2)]
    model = keras.Sequential([keras.Input((4,)), *middle])
    model.compile("sgd", "mse", jit_compile=jit)
    x = np.random.default_rng(0).standard_normal((8, 4))
    run = gradaudit.check(model, x, x[:, :2], expect=expect)
    assert run.verdict == verdict
    bias = run.tensors.query("stage == 'gradient' and path.str.endswith('before/bias')")
    (cause,), (kinds,) = bias["cause"], bias["provenance"]
    both = "reversing" in expect or len(expect) == 2
    assert kinds == ("expected" if both else "custom expected" if expect else "custom")
    for name in ("gradient_reversal", "clipped_gradient"):
        meant = ", as expected," if {name, "reversing"} & expect.keys() else ""
        words = rf"the custom gradient of '{name}'{meant} in reversing at .*:\d+.* stands"
        assert re.search(words, cause)


def test_expectations_that_are_none_are_refused():
    with pytest.raises(gradaudit.errors.UsageError, match='Expected "custom"'):
        gradaudit.check(NETS["map_fn"][0](right)[0], None, expect={"f": "straight through"})
    with pytest.raises(gradaudit.errors.UsageError, match="Expected one of derived"):
        gradaudit.check(NETS["map_fn"][0](right)[0], None, oracle="numeric")


class Shuffled(layers.Layer):
    """Draws from Python and NumPy as it is traced, once for all steps."""

    def __init__(self, **options):
        super().__init__(**options)
        self.dense = layers.Dense(4)

    def call(self, x):
        factor = random.choice([2.0, 3.0, 5.0, 7.0]) + np.random.random()  # noqa: NPY002
        return self.dense(x) * factor


@pytest.mark.parametrize(
    "mode", by_default([{}, {"jit_compile": True}, {"run_eagerly": True}], [{}])
)
def test_what_is_drawn_while_a_step_is_traced_is_drawn_again(mode, tmp_path):
    keras.utils.set_random_seed(0)
    middle = [layers.Dense(4, name=f"dense{i}") for i in range(3)]
    model = keras.Sequential([keras.Input((4,)), *middle, Shuffled(), Shuffled()])
    model.compile("sgd", "mse", **{"jit_compile": False, **mode})
    x = np.random.default_rng(0).standard_normal((12, 4))
    audit = gradaudit.GradientAudit(tmp_path, verbose=0)
    model.fit(x, x, batch_size=4, verbose=0, callbacks=[audit])
    run = gradaudit.report.load(tmp_path)
    assert run.verdict == "pass", run.run["failures"] or run.run["unjudged"]


def test_targets_whose_gradient_tensorflow_takes_for_another_are_told():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    model.compile("sgd", tf.nn.softmax_cross_entropy_with_logits, jit_compile=False)
    x = np.random.default_rng(0).standard_normal((8, 4))
    for total, verdict in ((1.0, "pass"), (2.0, "fail")):
        run = gradaudit.check(model, x, np.full((8, 3), total / 3, np.float32))
        assert run.verdict == verdict, run.run["unjudged"]
    assert run.tensors["cause"].str.contains("SoftmaxCross.* which is not its derivative").any()
    assert set(run.tensors.query("stage == 'gradient'")["provenance"]) == {"misled"}


class Counting(layers.Layer):
    """Counts its calls in whole numbers, and scales by a float that it has counted up before."""

    def build(self, shape):
        options = {"shape": (), "initializer": "zeros", "trainable": False}
        self.calls = self.add_weight(dtype="int32", name="calls", **options)
        self.scale = self.add_weight(dtype="float32", name="scale", **options)

    def call(self, x):
        self.calls.assign_add(1)
        y = x * (1.0 + self.scale)
        self.scale.assign(self.scale + 0.5)
        return y


@pytest.mark.parametrize("jit", [False, True])
def test_whole_numbers_that_a_layer_counts_are_judged(jit):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), Counting()])
    model.compile("sgd", "mse", jit_compile=jit)
    x = np.random.default_rng(0).standard_normal((8, 4))
    run = gradaudit.check(model, x, x[:, :3])
    assert run.verdict == "pass", run.run["failures"] or run.run["unjudged"]
    counted = run.weights.query("path.str.endswith('calls')")
    assert list(counted["reference"]) == [1.0]


def test_a_loop_s_gradients_are_unjudged_where_the_forward_has_changed_what_they_need():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), Counting()])
    x = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(x, training=True)))
    weights = model.trainable_variables
    run = gradaudit.audit_gradients(
        lambda y, p: ops.mean(p**2), weights, tape.gradient(loss, weights), model=model, x=x, y=x
    )
    assert run.verdict == "unjudged"
    assert "scale, which the forward has changed already" in run.run["unjudged"][0]


def test_a_penalty_on_a_convolution_in_groups_is_judged():  # which XLA alone can train
    keras.utils.set_random_seed(1)
    x = keras.Input((6, 6, 4))
    h = layers.Flatten()(layers.Conv2D(4, 3, groups=2, activation="tanh")(x))
    model = Penalized(x, layers.Dense(2)(h))
    model.compile("sgd", "mse", jit_compile=True)
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((6, 6, 6, 4)).astype(np.float32)
    run = gradaudit.check(model, rows, rng.standard_normal((6, 2)))
    assert run.verdict == "pass", run.run["failures"] or run.run["unjudged"]


@pytest.mark.parametrize(
    ("draw", "jit"),
    by_default(
        itertools.product(["normal", "uniform", "truncated_normal", "categorical"], [False, True]),
        chosen=[("normal", True), ("truncated_normal", False), ("categorical", False)],
    ),
)
def test_draws_are_those_of_the_step(draw, jit):
    keras.utils.set_random_seed(0)
    seed = keras.random.SeedGenerator(5)

    class Drawing(layers.Layer):
        def __init__(self):
            super().__init__()
            self.seed = seed

        def call(self, x):
            if draw == "categorical":
                return x * ops.cast(
                    keras.random.categorical(ops.ones((8, 3)), 3, seed=seed), x.dtype
                )
            return x * getattr(keras.random, draw)((8, 3), seed=seed)

    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), Drawing(), layers.Dense(2)])
    model.compile("sgd", "mse", jit_compile=jit)
    x = np.random.default_rng(0).standard_normal((8, 4))
    run = gradaudit.check(model, x, x[:, :2])
    assert run.verdict == "pass", run.run["failures"] or run.run["unjudged"]


class Chancy(layers.Layer):
    """Draws from a generator of its own as it is traced."""

    def __init__(self, generator):
        super().__init__()
        self.generator = generator

    def call(self, x):
        return x * self.generator.random()


def test_numbers_from_a_generator_of_a_layer_s_own_are_drawn_again():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), Chancy(np.random.default_rng(0))])
    model.compile("sgd", "mse", jit_compile=False)
    x = np.random.default_rng(0).standard_normal((8, 4))
    assert gradaudit.check(model, x, x[:, :3]).verdict == "pass"


def test_code_whose_traces_differ_is_unjudged():
    chancy = Chancy(random.SystemRandom())
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), chancy])
    model.compile("sgd", "mse", jit_compile=False)
    x = np.random.default_rng(0).standard_normal((8, 4))
    run = gradaudit.check(model, x, x[:, :3])
    assert run.verdict == "unjudged"
    assert "tracing the model's code twice gave different results" in run.run["unjudged"][0]
    gradients = run.tensors.query("stage == 'gradient'")
    assert set(gradients["gaps"]) == {"no-rule unsteady-trace"}


def test_tracing_leaves_python_s_random_generators_alone():
    model = keras.Sequential([keras.Input((4,)), Shuffled()])
    model.compile("sgd", "mse", jit_compile=False)
    x = np.random.default_rng(0).standard_normal((8, 4))
    step = recorded(model, x, x)
    before = random.getstate(), np.random.get_state()[1]  # noqa: NPY002
    derive(*step)
    assert random.getstate() == before[0]
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


class Penalized(keras.Model):
    """Its loss holds the slope of the output by the input near 1, as a WGAN's critic does."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(self(x, training=True))
        slope = tape.gradient(total, x)
        size = tf.sqrt(tf.reduce_sum(slope**2, list(range(1, slope.shape.rank))) + 1e-3)
        return loss + tf.reduce_mean((size - 1) ** 2)


CRITICS = {
    "dense": ((5,), [layers.Dense(6, "tanh"), layers.Dense(4, "elu")]),
    "convolutions": (
        (8, 8, 3),
        [
            layers.Conv2DTranspose(3, 3, activation="tanh"),
            layers.SeparableConv2D(4, 3, activation="softplus"),
            layers.MaxPooling2D(),
            layers.Conv2D(4, 3),
            layers.LeakyReLU(),
            layers.BatchNormalization(),
            layers.AveragePooling2D(2),
            layers.Flatten(),
        ],
    ),
    "a recurrence": ((6, 5), [layers.LSTM(4)]),
    "norms": ((6, 5), [layers.LayerNormalization(), layers.GlobalAveragePooling1D()]),
}


@pytest.mark.parametrize(
    ("name", "jit"),
    by_default(
        itertools.product(CRITICS, [False, True]),
        chosen=[("norms", False)],
    ),
)
def test_a_loss_with_a_gradient_within_is_judged(name, jit):
    keras.utils.set_random_seed(1)
    shape, parts = CRITICS[name]
    x = h = keras.Input(shape)
    for part in [part.__class__.from_config(part.get_config()) for part in parts]:
        h = part(h)
    model = Penalized(x, layers.Dense(2)(h))
    model.compile("sgd", "mse", jit_compile=jit)
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((6, *shape)).astype(np.float32)
    run = gradaudit.check(model, rows, rng.standard_normal((6, 2)))
    assert run.verdict == "pass", run.run["failures"] or run.run["unjudged"]
    assert run.run["max_z"] < 4


@tf.custom_gradient
def bent(x):
    return tf.tanh(x), lambda dy: dy * (1.01 - tf.tanh(x) ** 2)


def test_a_wrong_gradient_within_a_loss_is_found():
    keras.utils.set_random_seed(1)
    x = keras.Input((5,))
    h = layers.Lambda(bent, name="bent")(layers.Dense(6, name="first")(x))
    model = Penalized(x, layers.Dense(2, name="last")(h))
    model.compile("sgd", "mse", jit_compile=False)
    rows = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)
    run = gradaudit.check(model, rows, rows[:, :2])
    failed = run.tensors.query("stage == 'gradient' and verdict == 'fail'")
    assert failed["cause"].str.contains("the custom gradient of 'bent'").any()


@tf.recompute_grad
def remembered(x):
    return tf.sin(x) * tf.tanh(x)


def passing_through(x):
    return tf.grad_pass_through(tf.round)(x * 4) / 4


@pytest.mark.parametrize("jit", [False, True])
def test_recomputed_gradients_are_followed(jit):
    keras.utils.set_random_seed(0)
    middle = [layers.Dense(5), layers.Lambda(remembered), layers.Dense(2)]
    model = keras.Sequential([keras.Input((4,)), *middle])
    model.compile("sgd", "mse", jit_compile=jit)
    x = np.random.default_rng(0).standard_normal((8, 4))
    run = gradaudit.check(model, x, x[:, :2])
    assert run.verdict == "pass", run.run["failures"] or run.run["unjudged"]


@pytest.mark.parametrize("expect", [{}, {"grad_pass_through": "custom"}])
def test_a_gradient_that_is_passed_through_is_told(expect):
    keras.utils.set_random_seed(0)
    middle = [layers.Dense(5, name="before"), layers.Lambda(passing_through, name="step")]
    model = keras.Sequential([keras.Input((4,)), *middle, layers.Dense(2)])
    model.compile("sgd", "mse", jit_compile=False)
    x = np.random.default_rng(0).standard_normal((8, 4))
    run = gradaudit.check(model, x, x[:, :2], expect=expect)
    assert run.verdict == ("pass" if expect else "fail")
    meant = ", as expected," if expect else ""
    words = f"the custom gradient of 'grad_pass_through'{meant} in .*step at .*test_custom_code"
    before = run.tensors.query("stage == 'gradient' and path.str.contains('before')")
    assert before["cause"].str.contains(words).all()


def test_custom_gradients_within_tensorflow_are_not_the_user_s():
    middle = [layers.Dense(5), layers.Lambda(lambda x: tf.nn.silu(x)), layers.Dense(2)]
    model = keras.Sequential([keras.Input((4,)), *middle])
    model.compile("sgd", "mse", jit_compile=False)
    x = np.random.default_rng(0).standard_normal((8, 4))
    run = gradaudit.check(model, x, x[:, :2])
    assert run.verdict == "pass"
    assert not run.tensors["cause"].any()
    assert not run.tensors["provenance"].any()


class Scaled(layers.Layer):
    def build(self, shape):
        self.factor = self.add_weight(shape=shape[-1:], initializer="uniform", name="factor")

    def call(self, x):
        return ops.sin(x) * self.factor


class Nested(keras.Model):
    def __init__(self):
        super().__init__()
        self.first = layers.Dense(5, kernel_regularizer="l2")
        self.scaled, self.noisy = Scaled(name="scaled"), Noisy()
        self.last = layers.Dense(2)

    def call(self, x):
        return self.last(self.noisy(self.scaled(self.first(x))))


REPLICATED = {
    "a layer": lambda: keras.Sequential(
        [keras.Input((4,)), layers.Dense(5), Scaled(name="scaled"), layers.Dense(2)]
    ),
    "a model": Nested,
}


@pytest.mark.long
@pytest.mark.parametrize(
    ("function", "name"),
    by_default(
        itertools.product([right, wrong], REPLICATED),
        chosen=[(wrong, "a layer")],
    ),
)
def test_code_on_several_replicas_is_judged(name, function, tmp_path, monkeypatch):
    keras.utils.set_random_seed(0)
    monkeypatch.setattr(ops, "sin", lambda x: function(tf.sin(x)))
    with two_replicas().scope():
        model = REPLICATED[name]()
        model.compile("sgd", "mse", jit_compile=False)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((16, 4)), rng.standard_normal((16, 2))
    audit = gradaudit.GradientAudit(tmp_path, verbose=0)
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[audit])
    run = gradaudit.report.load(tmp_path)
    assert run.verdict == ("pass" if function is right else "fail"), run.run["unjudged"]
    assert set(run.tensors["replica"]) == {0, 1}


def _noisy():
    """Return layers that do something else in training, one of them inside another model."""
    layers = keras.layers
    inner = keras.Sequential([layers.Dense(4), layers.Dropout(0.5), layers.BatchNormalization()])
    return [layers.Dense(5, "tanh"), layers.Dropout(0.5), inner, layers.Dense(2)]


class WithoutMode(keras.Model):
    """Its `call` takes no `training`: Keras hands none on, and all in it runs as in inference."""

    def __init__(self):
        super().__init__()
        self.parts = _noisy()

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


class WithMode(WithoutMode):
    """The same, in training."""

    def call(self, x, training=None):
        return super().call(x)


class HalfFrozen(WithoutMode):
    """Runs its first parts in inference, and says nothing to the others: they follow them."""

    def call(self, x, training=None):
        for part in self.parts[:2]:
            x = part(x, training=False)
        for part in self.parts[2:]:
            x = part(x)
        return x


class Block(keras.layers.Layer):
    """A layer that takes no `training`: that of the model around it holds within."""

    def __init__(self, is_frozen=False):
        super().__init__()
        self.parts, self.is_frozen = _noisy(), is_frozen

    def call(self, x):
        for part in self.parts:
            x = part(x, training=False) if self.is_frozen else part(x)
        return x


def _functional(*blocks):
    inputs = outputs = keras.Input((3,))
    for block in blocks:
        outputs = block(outputs)
    return keras.Model(inputs, keras.layers.Dense(2)(outputs))


MODES = {
    "no argument": WithoutMode,
    "an argument": WithMode,
    "half frozen": HalfFrozen,
    "a functional model in one without": lambda: keras.Sequential([WithoutMode()]),
    "a layer without": lambda: _functional(Block()),
    "a model without in a functional one": lambda: _functional(WithoutMode()),
    "a frozen layer before one without": lambda: _functional(Block(True), Block()),
}


@pytest.mark.parametrize("name", by_default(MODES, [*MODES][:3]))
def test_layers_run_in_the_mode_that_they_have_in_the_step(name):
    keras.utils.set_random_seed(4)
    model = MODES[name]()
    model.compile("sgd", "mse")
    rng = np.random.default_rng(2)
    x, y = (rng.standard_normal((12, width)).astype(np.float32) for width in (3, 2))
    run = gradaudit.check(model, x, y)
    assert run.verdict == "pass", run.run["failures"]
