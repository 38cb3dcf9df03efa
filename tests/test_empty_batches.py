"""A batch without rows is no pass: there is nothing in it to judge."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradaudit
from gradaudit import GradientAudit, load
from gradaudit.audit.single_step import recorded
from gradaudit.errors import GapCode, UsageError
from gradaudit.records import Stage
from gradaudit.reference import derive
from suite import by_default


def net(**options):
    keras.utils.set_random_seed(2)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1, name="out")], name="net")
    model.compile(**{"optimizer": "adam", "loss": "mse", **options})
    return model


def two_inputs():
    inputs = {"a": keras.Input((4,), name="a"), "b": keras.Input((4,), name="b")}
    model = keras.Model(inputs, layers.Dense(1)(layers.Add()(list(inputs.values()))))
    model.compile("sgd", "mse")
    return model


def rows(n, width=4):
    return np.linspace(-1, 1, n * width, dtype=np.float32).reshape(n, width)


@pytest.mark.parametrize(
    ("make", "batch", "named"),
    [
        (net, (rows(0), rows(0, 1)), "x and y have 0 rows"),
        (net, (tf.constant(rows(0)), tf.constant(rows(0, 1))), "x and y have 0 rows"),
        (net, (rows(3), rows(0, 1)), "y has 0 rows"),
        (net, (rows(0), rows(3, 1)), "x has 0 rows"),
        (net, (rows(3), rows(3, 1), rows(0, 1)[:, 0]), "sample_weight has 0 rows"),
        (net, ([], []), "x and y have 0 rows"),
        (two_inputs, ({"a": rows(0), "b": rows(0)}, rows(0, 1)), "x and y have 0 rows"),
    ],
)
def test_a_batch_without_rows_cannot_be_checked(make, batch, named):
    with pytest.raises(UsageError, match=f"{named}. Expected a batch of at least one row"):
        gradaudit.check(make(), *batch)


def test_weights_that_are_all_zero_are_a_batch():
    assert gradaudit.check(net(), rows(3), rows(3, 1), np.zeros(3)).verdict == "pass"
    x = {"a": rows(3), "b": rows(3)}
    assert gradaudit.check(two_inputs(), x, rows(3, 1)).verdict == "pass"


def test_gradients_of_a_batch_without_rows_cannot_be_audited():
    model, loss_fn = net(), keras.losses.MeanSquaredError()

    def audited(x, y):
        with tf.GradientTape() as tape:
            loss = loss_fn(y, model(x, training=True))
        weights = model.trainable_variables
        gradients = tape.gradient(loss, weights)
        return gradaudit.audit_gradients(loss_fn, weights, gradients, model=model, x=x, y=y)

    assert audited(rows(3), rows(3, 1)).verdict == "pass"
    with pytest.raises(UsageError, match="x and y have 0 rows"):
        audited(rows(0), rows(0, 1))


def batches(sizes):
    def made():
        for n in sizes:
            yield rows(n), rows(n, 1)

    spec = tf.TensorSpec((None, 4)), tf.TensorSpec((None, 1))
    found = tf.data.Dataset.from_generator(made, output_signature=spec)
    return found.apply(tf.data.experimental.assert_cardinality(len(sizes)))


@pytest.mark.parametrize(
    "options", by_default([{}, {"jit_compile": True}, {"run_eagerly": True}], [{}])
)
def test_a_step_of_a_fit_without_rows_is_unjudged(options, tmp_path):
    def trained(callbacks):
        model = net(**options)
        model.fit(batches((4, 3, 0)), shuffle=False, verbose=0, callbacks=callbacks)
        return [v.numpy() for v in (*model.variables, *model.optimizer.variables)]

    found, alone = trained([GradientAudit(tmp_path / "run", verbose=0)]), trained([])
    for mine, other in zip(found, alone, strict=True):
        np.testing.assert_array_equal(mine, other)
    run = load(tmp_path / "run")
    assert run.verdict == "unjudged"
    assert run.run["faults"]["count"] == 0
    assert list(run.steps["verdict"]) == ["pass", "pass", "unjudged"]
    gradients = run.tensors[run.tensors["stage"] == "gradient"]
    empty = gradients[gradients["step"] == 2]
    assert set(empty["gaps"]) == {"empty-batch"}
    assert empty["cause"].str.contains(r"no rows \(x and y\)").all()
    assert set(gradients.loc[gradients["step"] < 2, "verdict"]) == {"pass"}


def test_train_on_batch_without_rows_is_unjudged(tmp_path):
    model, audit = net(), GradientAudit(tmp_path / "run", verbose=0)
    callbacks = keras.callbacks.CallbackList([audit], model=model)
    callbacks.on_train_begin()
    for step, n in enumerate((4, 0)):
        callbacks.on_train_batch_begin(step)
        model.train_on_batch(rows(n), rows(n, 1))
        callbacks.on_train_batch_end(step)
    callbacks.on_train_end()
    assert list(load(tmp_path / "run").steps["verdict"]) == ["pass", "unjudged"]


def test_the_gap_is_that_of_the_record():
    record, spec = recorded(net(), rows(3), rows(3, 1))
    assert not derive(record, spec).unjudged
    vars(record).update(x=rows(0), y=rows(0, 1))
    found = derive(record, spec).unjudged
    assert {gap.code for gaps in found.values() for gap in gaps} == {GapCode.EMPTY}
    assert {stage for stage, _ in found} == {Stage.GRADIENT}
