"""What a capture holds, against the same step made by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradaudit.backends.tensorflow import Capture, Replay, environment, peeked
from suite import by_default


def model_and_data(optimizer="sgd", **compile_options):
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(4, "tanh"), keras.layers.Dense(2, name="out")]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile(optimizer, "mse", **compile_options)
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((6, width)).astype(np.float32) for width in (3, 2))
    return model, x, y


def records(model, x, y, batch_size=4, weight=None, epochs=1):
    found = []

    class Recorder(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.capture = Capture(self.model)
            self.keras_function = self.model.train_function
            self.model.train_function = self.run

        def run(self, iterator):
            data, iterator = peeked(iterator)
            self.capture.trace(data, iterator)
            logs, seen = self.capture.run(iterator, self.keras_function)
            found.extend(self.capture.records(seen, len(found), 0)[0])
            return logs

    model.fit(
        x, y, batch_size, epochs, 0, shuffle=False, sample_weight=weight, callbacks=[Recorder()]
    )
    return found


@pytest.mark.parametrize(
    "mode", by_default([{}, {"jit_compile": True}, {"run_eagerly": True}], [{}])
)
def test_the_gradient_is_that_of_the_batch_and_the_weights_that_are_recorded(mode):
    model, x, y = model_and_data(**mode)
    weight = np.array([1, 2, 3, 4, 5, 6.0])
    first, second = records(model, x, y, weight=weight)
    np.testing.assert_array_equal(first.x, x[:4])
    np.testing.assert_array_equal(second.y, y[4:])
    np.testing.assert_array_equal(second.sample_weight, weight[4:])
    for record in (first, second):
        for variable in model.variables:
            variable.assign(record.variables[variable.path])
        with tf.GradientTape() as tape:
            loss = model.compute_loss(
                y=record.y, y_pred=model(record.x), sample_weight=record.sample_weight
            )
        gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
        assert record.loss == pytest.approx(float(loss), rel=1e-6)
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
            captured = record.gradients[variable.path]
            np.testing.assert_allclose(captured, gradient, rtol=1e-5, atol=1e-7)
            step = record.variables_after[variable.path] - record.variables[variable.path]
            np.testing.assert_allclose(step, -0.01 * captured, rtol=1e-4, atol=1e-7)
    for path, value in first.variables_after.items():
        np.testing.assert_array_equal(second.variables[path], value)
    assert [record.jit for record in (first, second)] == [bool(mode.get("jit_compile"))] * 2


def test_gradients_under_loss_scaling_are_as_the_optimizer_receives_them():
    keras.config.set_dtype_policy("mixed_float16")
    model, x, y = model_and_data(keras.optimizers.SGD(0.01))
    (record, *_) = records(model, x, y)
    scale = record.optimizer_variables[model.optimizer.dynamic_scale.path]
    assert scale == 2.0**15
    bias = model.get_layer("out").bias
    error = record.y - np.asarray(model.predict(record.x, verbose=0))
    size = np.abs(record.gradients[bias.path]).max() / scale
    assert 0.1 * np.abs(error).mean() < size < 10 * np.abs(error).mean()


def test_the_learning_rate_of_a_schedule_is_that_of_the_step():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)
    found = records(*model_and_data(keras.optimizers.SGD(schedule)), epochs=2)
    assert [record.learning_rates for record in found] == [(0.5,), (0.25,), (0.125,), (0.0625,)]


def test_records_do_not_change_when_training_goes_on():
    model, x, y = model_and_data("adam")
    (record, *_) = records(model, x, y)
    before = {path: value.copy() for path, value in record.variables.items()}
    model.fit(x, y, verbose=0)
    np.testing.assert_equal(record.variables, before)


def test_a_dropout_mask_is_drawn_again():
    layer = keras.layers.Dropout(0.5, seed=1)
    state = np.array(layer.seed_generator.state.value.numpy())
    kept = np.asarray(layer(np.ones((20, 5)), training=True)) != 0
    replay = Replay(jit=False)
    again = replay("dropout", state, (20, 5), "float32", rate=0.5, noise_shape=None) != 0
    np.testing.assert_array_equal(kept, again)
    other = replay("dropout", state + 1, (20, 5), "float32", rate=0.5, noise_shape=None) != 0
    assert (kept != other).any()


def test_an_apply_of_one_s_own_on_the_instance_is_called_and_stays():
    model, x, y = model_and_data()
    called = []
    right = model.optimizer.apply

    def own(grads, trainable_variables=None):
        called.append(True)
        return right(grads, trainable_variables)

    vars(model.optimizer)["apply"] = own
    first, second = records(model, x, y)
    assert called
    assert first.applications == second.applications == 1
    assert vars(model.optimizer)["apply"] is own


def test_a_step_that_cannot_be_traced_leaves_the_variables_usable():
    """Variables that are made in a trace which fails would stay without values."""
    model = keras.Sequential([keras.layers.Dense(2)])
    model.compile("adam", "mse")
    x, y = np.ones((6, 3), np.float32), np.ones((6, 2), np.float32)
    capture = Capture(model)
    right = model.train_step

    def failing(data):
        right(data)
        raise ValueError("not today")

    vars(model)["train_step"] = failing
    with pytest.raises(ValueError, match="not today"):
        capture.trace((x, y), iter([(x, y)]))
    del vars(model)["train_step"]
    model.fit(x, y, verbose=0)
    assert np.isfinite(model.optimizer.variables[2].value.numpy()).all()


@pytest.mark.long
def test_each_replica_has_its_record_and_the_gradients_of_all(two_replicas):
    with two_replicas.scope():
        model, x, y = model_and_data()
    first, second = records(model, x, y, batch_size=6)
    assert [first.replica, second.replica] == [0, 1]
    assert first.replicas == second.replicas == 2
    np.testing.assert_array_equal(np.concatenate([first.x, second.x]), x)
    for mine, gradients in zip((first, second), first.replica_gradients, strict=True):
        np.testing.assert_equal(mine.gradients, gradients)
    np.testing.assert_equal(first.variables_after, second.variables_after)
    path = model.layers[0].kernel.path
    total = sum(gradients[path] for gradients in first.replica_gradients)
    moved = first.variables_after[path] - first.variables[path]
    np.testing.assert_allclose(moved, -0.01 * total, rtol=1e-4, atol=1e-7)


def test_the_environment_names_model_and_optimizer():
    model, *_ = model_and_data("adam")
    found = environment(model)
    assert found["optimizer"]["class"] == "Adam"
    assert found["model"]["weights"] == 3 * 4 + 4 + 4 * 2 + 2
    assert found["versions"]["tensorflow"] == tf.__version__
