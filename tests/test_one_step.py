"""One audited step outside of `fit`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradaudit
from custom_nets import outside
from gradaudit.errors import AuditFailure, FolderError, UsageError
from suite import by_default


def net(*middle, **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), *middle, layers.Dense(3, "softmax", name="out")])
    options.setdefault("optimizer", keras.optimizers.Adam(0.01, name="adam"))
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"], **options)
    return model


def batch(rows=20):
    rng = np.random.default_rng(0)
    return rng.standard_normal((rows, 4)).astype(np.float32), rng.integers(0, 3, rows)


def values(model):
    variables = (*model.variables, *model.metrics_variables, *model.optimizer.variables)
    return [np.array(v.value.numpy()) for v in variables]


def wrong(layer, factor=2.0):
    scaled = tf.custom_gradient(lambda k: (tf.identity(k), lambda dk: factor * dk))
    layer.call = lambda x, training=None: keras.ops.softmax(
        x @ scaled(tf.identity(layer.kernel.value)) + layer.bias
    )
    return layer


@pytest.mark.parametrize(
    "mode", by_default([{}, {"jit_compile": True}, {"run_eagerly": True}], chosen=[{}])
)
def test_a_right_model_passes_and_stays_as_it_was(mode):
    model = net(layers.Dense(5, "tanh"), layers.Dropout(0.4), **mode)
    model.fit(*batch(), verbose=0)
    before = values(model)
    run = gradaudit.check(model, *batch(), sample_weight=np.linspace(0.5, 2, 20))
    assert run.verdict == "pass"
    for mine, expected in zip(values(model), before, strict=True):
        np.testing.assert_array_equal(mine, expected)
    assert list(run.steps["batch_size"]) == [20]
    assert set(run.tensors["stage"]) == {"gradient", "update"}
    assert run.weights["z"].max() < 4
    assert run.run["optimizer"]["class"] == "Adam"
    run.raise_for_failure()


@pytest.mark.parametrize("order", ["shuffled", "sorted"])
def test_a_right_model_passes_on_repeated_rows(order):
    rows = np.random.default_rng(0).integers(0, 4, 4096)
    rows = np.sort(rows) if order == "sorted" else rows
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)[rows]
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((2,)), layers.Dense(8, "tanh"), layers.Dense(1, "sigmoid")]
    )
    model.compile("sgd", "binary_crossentropy")
    run = gradaudit.check(model, x, (x[:, :1] != x[:, 1:]).astype(np.float32))
    assert run.verdict == "pass"
    assert run.run["max_z"] < 4
    gradients = run.tensors[run.tensors["stage"] == "gradient"]
    assert gradients["detectable_rel"].max() < 0.01


@pytest.mark.parametrize("seed", [1, 2])
def test_a_right_model_passes_on_one_input_with_many_targets(seed):
    rng = np.random.default_rng(seed)
    kernels = [rng.standard_normal(shape).astype(np.float32) for shape in ((8, 16), 16, (16, 1))]
    x = np.repeat(rng.standard_normal((1, 8)).astype(np.float32), 1024, axis=0)
    mean = np.tanh(x @ kernels[0] + kernels[1]) @ kernels[2]
    y = mean * (1 + 0.01 * rng.standard_normal((1024, 1)))
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(16, "tanh"), layers.Dense(1, use_bias=False)]
    )
    model.set_weights(kernels)
    model.compile("sgd", "mse")
    assert gradaudit.check(model, x, y.astype(np.float32)).verdict == "pass"


def test_the_training_after_a_check_is_the_training_without_it():
    checked, plain = (net(layers.Dropout(0.4, seed=1)) for _ in range(2))
    gradaudit.check(checked, *batch())
    for model in (checked, plain):
        keras.utils.set_random_seed(2)  # of the shuffling
        model.fit(*batch(), epochs=2, verbose=0)
    for mine, expected in zip(values(checked), values(plain), strict=True):
        np.testing.assert_array_equal(mine, expected)


def test_a_wrong_gradient_is_found():
    model = net(layers.Dense(4, "tanh"))
    wrong(model.get_layer("out"))
    run = gradaudit.check(model, *batch())
    assert run.verdict == "fail"
    with pytest.raises(AuditFailure, match=r"gradient of sequential.*/out/kernel: twice too large"):
        run.raise_for_failure(allow_unjudged=True)


def test_a_step_that_raises_leaves_the_model_as_it_was():
    model = net()
    gradaudit.check(model, *batch())
    before = values(model)
    x, _ = batch()
    with pytest.raises(Exception, match="label"):
        gradaudit.check(model, x, np.full(20, 7))
    for mine, expected in zip(values(model), before, strict=True):
        np.testing.assert_array_equal(mine, expected)


def test_what_cannot_be_judged_raises_unless_it_is_allowed():
    run = gradaudit.check(net(layers.Dense(4), layers.Lambda(outside)), *batch())
    assert run.verdict == "unjudged"
    run.raise_for_failure(allow_unjudged=True)
    with pytest.raises(AuditFailure, match=r"unjudged: gradient of .* has no derived rule"):
        run.raise_for_failure()


def test_only_the_layers_that_are_chosen():
    run = gradaudit.check(net(layers.Dense(5, name="first")), *batch(), layers="first")
    assert set(run.tensors.query("stage == 'gradient'")["layer"].str[-5:]) == {"first"}


def test_a_model_that_cannot_be_checked_is_told(two_replicas):
    with pytest.raises(UsageError, match="is not compiled"):
        gradaudit.check(keras.Sequential([keras.Input((4,)), layers.Dense(3)]), *batch())
    with pytest.raises(UsageError, match=r"no weight is asked for by layers='encoder'.*out/kernel"):
        gradaudit.check(net(), *batch(), layers="encoder")
    with pytest.raises(UsageError, match="Expected one batch of arrays"):
        gradaudit.check(net(), tf.data.Dataset.from_tensor_slices(batch()).batch(4))
    with two_replicas.scope():
        model = net()
    with pytest.raises(UsageError, match="distributed over several replicas"):
        gradaudit.check(model, *batch())


@pytest.mark.long
def test_many_audits_of_dropout_are_not_taken_for_retracing(caplog):
    model = net(layers.Dropout(0.4))
    for _ in range(7):
        gradaudit.check(model, *batch())
    assert "retracing" not in caplog.text


def test_a_report_is_shown_in_notebooks_and_saved(tmp_path):
    run = gradaudit.check(net(), *batch())
    assert repr(run) == "<gradaudit.Run: pass, 1 step audited>"
    html = run._repr_html_()
    assert "<b>PASS, 1 step audited</b>" in html
    assert "/out/kernel" in html
    run.save(tmp_path / "run")
    again = gradaudit.load(tmp_path / "run")
    assert again.verdict == "pass"
    for table in ("steps", "tensors", "weights"):
        assert getattr(again, table).shape == getattr(run, table).shape
    with pytest.raises(FolderError, match="holds a run already"):
        run.save(tmp_path / "run")


def tape_gradients(model, loss_fn, x, y, scale=1.0):
    with tf.GradientTape() as tape:
        loss = loss_fn(y, model(x, training=True))
        loss = scale * (loss + sum(model.losses))
    return tape.gradient(loss, model.trainable_variables)


@pytest.mark.parametrize("in_graph", [False, True])
def test_gradients_of_a_loop_of_one_s_own(in_graph):
    model = net(layers.Dense(5, "relu", kernel_regularizer="l2"), layers.Dropout(0.5))
    loss_fn = keras.losses.SparseCategoricalCrossentropy()
    x, y = batch()
    step = tf.function(tape_gradients) if in_graph else tape_gradients
    for _ in range(3):  # each with another mask
        gradients = step(model, loss_fn, x, y)
        run = gradaudit.audit_gradients(
            loss_fn, model.trainable_variables, gradients, model=model, x=x, y=y
        )
        assert run.verdict == "pass"
        assert set(run.tensors["stage"]) == {"gradient"}
        assert run.weights["z"].max() < 4
        model.optimizer.apply(gradients, model.trainable_variables)


def test_a_wrong_gradient_of_one_s_own_is_found_and_named():
    model = net(layers.Dense(5, "tanh"))
    loss_fn = keras.losses.SparseCategoricalCrossentropy()
    gradients = tape_gradients(model, loss_fn, *batch())
    x, y = batch()
    wrong_ones = [-gradients[0], *gradients[1:]]
    run = gradaudit.audit_gradients(
        loss_fn, model.trainable_variables, wrong_ones, model=model, x=x, y=y
    )
    assert run.run["failures"] == [
        f"step 0, gradient of {model.trainable_variables[0].path}: the wrong sign"
    ]
    none = [None, *gradients[1:]]
    run = gradaudit.audit_gradients(loss_fn, model.trainable_variables, none, model=model, x=x, y=y)
    assert "no gradient arrives" in run.run["failures"][0]


def test_gradients_of_some_variables_and_a_scaled_loss():
    model = net(layers.Dense(5, "tanh"))
    loss_fn = keras.losses.SparseCategoricalCrossentropy()
    x, y = batch()
    some = model.trainable_variables[2:]
    gradients = tape_gradients(model, loss_fn, x, y, scale=64.0)[2:]
    run = gradaudit.audit_gradients(
        loss_fn, some, gradients, model=model, x=x, y=y, loss_scale=64.0
    )
    assert run.verdict == "pass"
    assert set(run.tensors["path"]) == {v.path for v in some}


class Mine(keras.Model):
    """Has code of its own, draws in two layers, and adds to the loss."""

    def __init__(self):
        super().__init__()
        self.first = layers.Dense(8, "tanh", kernel_regularizer="l2")
        self.drop = layers.Dropout(0.3, seed=1)
        self.out = layers.Dense(3)

    def call(self, x, training=False):
        for _ in range(2):
            x = self.first(self.drop(x, training=training)) if x.shape[-1] == 4 else self.drop(x)
        self.add_loss(1e-2 * tf.reduce_mean(x**2))
        return self.out(x)


def test_a_loss_and_a_model_with_code_of_their_own_are_traced():
    def squared(y_true, y_pred):
        return keras.ops.mean((keras.ops.cast(y_true, "float32")[:, None] - y_pred) ** 2)

    x, y = batch()
    mine = Mine()
    mine(x)
    seeds = [v for v in mine.variables if "seed" in v.path]
    for model, factor, verdict in ((net(), 1, "pass"), (mine, 1, "pass"), (mine, 1.001, "fail")):
        gradients = [factor * g for g in tape_gradients(model, squared, x, y)]
        before = [v.numpy() for v in seeds]
        run = gradaudit.audit_gradients(
            squared, model.trainable_variables, gradients, model=model, x=x, y=y
        )
        assert run.verdict == verdict, run.run["unjudged"]
        assert set(run.tensors["oracle"]) == {"traced"}
        np.testing.assert_array_equal(before, [v.numpy() for v in seeds])


def test_gradients_that_do_not_belong_to_the_model_are_told():
    model, other = net(), net(layers.Dense(4, name="other"))
    x, y = batch()
    given = {"model": model, "x": x, "y": y}
    with pytest.raises(UsageError, match="1 gradients for 2 variables"):
        gradaudit.audit_gradients("mse", model.trainable_variables, [None], **given)
    with pytest.raises(UsageError, match="no trainable variable of the model"):
        gradaudit.audit_gradients("mse", other.trainable_variables, [None] * 4, **given)
    swapped = [tf.zeros(v.shape) for v in reversed(model.trainable_variables)]
    with pytest.raises(UsageError, match=r"out/kernel has the shape \(3,\). Expected \(4, 3\)"):
        gradaudit.audit_gradients("mse", model.trainable_variables, swapped, **given)
    fitting = [tf.zeros(v.shape) for v in model.trainable_variables]
    with pytest.raises(UsageError, match="x and y have 20 and 7 rows"):
        gradaudit.audit_gradients(
            "mse", model.trainable_variables, fitting, model=model, x=x, y=y[:7]
        )


def test_symbolic_gradients_are_told():
    model = net()
    x, y = batch()

    @tf.function
    def step():
        gradients = tape_gradients(model, keras.losses.SparseCategoricalCrossentropy(), x, y)
        gradaudit.audit_gradients(
            "mse", model.trainable_variables, gradients, model=model, x=x, y=y
        )

    with pytest.raises(UsageError, match=r"called within a tf\.function"):
        step()


def test_words_in_a_report_are_plain_text():
    run = gradaudit.check(net(), *batch())
    words = [run.verdict, *run.run["counts"], *run.run["counts"]["gradient"]]
    for table in (run.steps, run.tensors, run.weights):
        for name in set(table) & {"stage", "oracle", "verdict"}:
            words += list(table[name])
    assert {type(word) for word in words} == {str}
