"""Variables of one path: each is judged by itself, and has a key of its own in the report."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradaudit
from gradaudit import GradientAudit, load
from gradaudit.audit.single_step import recorded
from gradaudit.backends.tensorflow import read_step, write_step
from gradaudit.errors import UsageError
from gradaudit.reference import derive
from gradaudit.rules import keyed, variable_keys
from gradaudit.scoring import compare
from suite import by_default

X = np.random.default_rng(0).standard_normal((24, 4)).astype(np.float32)
SGD = {"optimizer": "sgd"}


@tf.custom_gradient
def steeper(z):
    return tf.tanh(z), lambda dy: 3.0 * dy


class Chain(keras.Model):
    """Calls layers one after the other; they may have one name."""

    def __init__(self, *chained):
        super().__init__(name="chain")
        self.chained = list(chained)

    def call(self, x, training=None):
        for layer in self.chained:
            x = layer(x, training=training) if layer.name == "norm" else layer(x)
        return x


def dense(units=4, activation="tanh", name="d", **options):
    return layers.Dense(units, activation, name=name, **options)


def chain(*chained, **options):
    model = Chain(*chained)
    model.compile(**{"optimizer": "adam", "loss": "mse", **options})
    return model


def around(name, inner):
    """Return a functional model around a layer, whose variables' paths do not have the model's."""
    inputs = keras.Input((4,))
    return keras.Model(inputs, inner(inputs), name=name)


class Twice(layers.Layer):
    """Owns two weights of one name."""

    def build(self, shape):
        self.first = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")
        self.second = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x):
        return x * self.first + self.second**2


def fitted(make, folder, **options):
    """Return the report of a fit, which leaves the weights as a fit without the audit does."""

    def trained(callbacks):
        keras.utils.set_random_seed(3)
        model = make()
        y = np.tanh(X[:, :1] * np.ones((1, 8), np.float32))
        model.fit(X, y, batch_size=8, epochs=2, verbose=0, callbacks=callbacks)
        return model, [
            np.array(v.value.numpy()) for v in (*model.variables, *model.optimizer.variables)
        ]

    _, alone = trained([])
    model, found = trained([GradientAudit(folder, verbose=0, **options)])
    for mine, other in zip(found, alone, strict=True):
        np.testing.assert_array_equal(mine, other)
    run = load(folder)
    assert run.run["faults"]["count"] == 0, run.run["faults"]["tracebacks"]
    for _, rows in run.tensors.groupby(["step", "replica", "stage"]):
        assert rows["path"].is_unique
    return model, run


def verdicts(run, stage="gradient"):
    rows = run.tensors[(run.tensors["stage"] == stage) & (run.tensors["step"] == 1)]
    return dict(zip(rows["path"], rows["verdict"], strict=True))


NETS = {
    "other shapes": lambda: chain(dense(3), dense(8)),
    "equal shapes, SGD with momentum": lambda: chain(
        dense(), dense(), dense(8, name="e"), optimizer=keras.optimizers.SGD(0.1, momentum=0.9)
    ),
    "three": lambda: chain(dense(), dense(), dense(8), optimizer="adafactor"),
    "in nested models": lambda: chain(
        around("one", dense()), around("other", dense()), dense(8, name="e"), **SGD
    ),
    "nested models of one name": lambda: chain(
        around("part", dense()), around("part", dense()), dense(8, name="e"), **SGD
    ),
    "batch normalization": lambda: chain(
        dense(4), layers.BatchNormalization(name="norm"), layers.BatchNormalization(name="norm"),
        dense(8, name="e"), **SGD
    ),
    "two weights of one layer": lambda: chain(Twice(), dense(8), **SGD),
    "Muon, which goes by paths": lambda: chain(
        dense(), dense(), dense(8, name="e"),
        optimizer=keras.optimizers.Muon(
            0.01, weight_decay=0.1, adam_weight_decay=0.3, exclude_layers=["d/kernel"]
        ),
    ),
    "XLA": lambda: chain(dense(3), dense(8), jit_compile=True, **SGD),
    "eager": lambda: chain(dense(3), dense(8), run_eagerly=True),
    "dropout": lambda: chain(
        layers.Dropout(0.3, name="drop"), dense(), layers.Dropout(0.3, name="drop"), dense(8), **SGD
    ),
    "a frozen twin": lambda: chain(dense(trainable=False), dense(8)),
}  # fmt: skip


@pytest.mark.parametrize("name", by_default(NETS, [*NETS][:1]))
def test_variables_of_one_path_are_judged_each_by_itself(name, tmp_path):
    model, run = fitted(NETS[name], tmp_path / "run")
    assert run.verdict == "pass", (run.run["failures"], run.run["unjudged"])
    keys = variable_keys(model)
    weights = {keys[id(v)] for v in model.trainable_variables}
    assert set(verdicts(run)) == weights
    assert len(weights) == len(model.trainable_variables)
    slots = {keys[id(v)] for v in model.optimizer.variables}
    assert weights | slots <= set(verdicts(run, "update"))
    assert len(slots) == len(model.optimizer.variables)
    assert any("#2" in key for key in keys.values())


@pytest.mark.parametrize("place", by_default([0, 1], [1]))
def test_a_wrong_gradient_of_one_of_two_layers_of_a_name_names_that_layer(place, tmp_path):
    def make(activation):
        functions = ["tanh", "tanh"]
        functions[place] = activation
        return lambda: chain(dense(4, functions[0]), dense(8, functions[1]), **SGD)

    _, run = fitted(make(steeper), tmp_path / "wrong")
    found, wrong = verdicts(run), ["chain/d", "chain/d#2"][place]
    # what lies behind a wrong gradient on the way back is wrong, too
    right = {"chain/d#2/kernel", "chain/d#2/bias"} if place == 0 else set()
    assert {path for path, verdict in found.items() if verdict == "fail"} == set(found) - right
    assert run.verdict == "fail"
    assert f"gradient of {wrong}/kernel" in str(run.run["failures"])
    layers_ = run.tensors.set_index("path")["layer"]
    assert set(layers_["chain/d#2/kernel"]) == {"chain/d#2"}

    _, healthy = fitted(make("tanh"), tmp_path / "right")
    assert set(verdicts(healthy).values()) == {"pass"}


@pytest.mark.long
def test_a_slot_of_the_second_twin_that_is_wrong_is_found():
    model = chain(dense(), dense(8, name="e"), dense(8, name="e"))
    record, spec = recorded(model, X, np.ones((24, 8), np.float32))
    (key,) = (k for k in record.optimizer_variables_after if k.endswith("e_kernel_momentum#2"))
    after = record.optimizer_variables_after
    after[key] = after[key].copy()
    after[key][0, 0] += 1.0
    found = compare(record, derive(record, spec), 8.0)
    assert [t.path for t in found.tensors if t.verdict == "fail"] == [key]


@pytest.mark.long
def test_a_shared_layer_is_no_twin(tmp_path):
    def make():
        shared = dense()
        return chain(shared, shared, dense(8, name="e"))

    model, run = fitted(make, tmp_path / "run")
    assert run.verdict == "pass"
    assert not any("#" in path for path in run.tensors["path"])
    assert len(verdicts(run)) == len(model.trainable_variables) == 4


def variables(*paths):
    found = []
    for path in paths:
        *scopes, name = path.split("/")
        with contextlib.ExitStack() as stack:
            for scope in scopes:
                stack.enter_context(keras.name_scope(scope))
            found.append(keras.Variable(0.0, name=name))
    assert [v.path for v in found] == list(paths)
    return found


@pytest.mark.parametrize(
    ("paths", "owners", "keys"),
    [
        (["d/w", "e/w"], "ab", ["d/w", "e/w"]),
        (["d/w", "d/w", "d/w"], "abc", ["d/w", "d#2/w", "d#3/w"]),
        (["d/w", "d/w", "d/b"], "abb", ["d/w", "d#2/w", "d#2/b"]),
        (["d/w", "d/b", "d/w", "d/b"], "aabb", ["d/w", "d/b", "d#2/w", "d#2/b"]),
        (["d/w", "d/w"], "aa", ["d/w", "d/w#2"]),
        (["w", "w", "w"], "abc", ["w", "w#2", "w#3"]),
        (["d/w", "d/w", "d#2/w"], "abc", ["d/w", "d#2/w#2", "d#2/w"]),
        (["d/w#2", "d/w", "d/w"], "aaa", ["d/w#2", "d/w", "d/w#3"]),
        (["a/d/w", "a/d/w", "d/w"], "abc", ["a/d/w", "a/d#2/w", "d/w"]),
        (["d/w", "d/c"], "ab", ["d/w", "d/c"]),
    ],
)
def test_keys_are_paths_and_tell_apart_variables_of_one_path(paths, owners, keys):
    given = variables(*paths)
    owned = {id(v): ord(owner) for v, owner in zip(given, owners, strict=True)}
    assert list(keyed(given, owned)) == keys
    assert [v.path for v in given] == paths


@pytest.mark.long
def test_layers_selects_one_of_two_layers_of_a_name(tmp_path):
    make = NETS["other shapes"]
    _, run = fitted(make, tmp_path / "second", layers="d#2")
    assert set(verdicts(run)) == {"chain/d#2/kernel", "chain/d#2/bias"}
    _, run = fitted(make, tmp_path / "first", layers="d$")
    assert set(verdicts(run)) == {"chain/d/kernel", "chain/d/bias"}
    model = make()
    model(X)
    run = gradaudit.check(model, X, np.ones((24, 8)), layers="d#2")
    assert set(run.tensors["layer"]) >= {"chain/d#2"}
    assert run.verdict == "pass"
    with pytest.raises(UsageError, match="chain/d#2/kernel"):
        gradaudit.check(model, X, np.ones((24, 8)), layers="e")


def test_gradients_of_a_loop_are_those_of_the_variables_that_they_are_given_with():
    model = chain(dense(), dense(), **SGD)
    loss_fn, y = keras.losses.MeanSquaredError(), np.ones((24, 4), np.float32)
    with tf.GradientTape() as tape:
        loss = loss_fn(y, model(X, training=True))
    weights = model.trainable_variables
    gradients = tape.gradient(loss, weights)

    def audited(given, found):
        return gradaudit.audit_gradients(loss_fn, given, found, model=model, x=X, y=y)

    run = audited(weights, gradients)
    assert run.verdict == "pass"
    assert run.tensors["path"].is_unique
    assert len(run.tensors) == 4
    assert audited(weights[::-1], gradients[::-1]).verdict == "pass"
    assert audited(weights[2:], gradients[2:]).tensors["layer"].unique() == ["chain/d#2"]
    swapped = audited(weights, [*gradients[2:], *gradients[:2]])
    assert set(swapped.tensors["verdict"]) == {"fail"}

    stranger = chain(dense(), dense())
    stranger(X)
    assert stranger.trainable_variables[0].path == weights[0].path
    with pytest.raises(UsageError, match="chain/d/kernel, chain/d/bias: no trainable"):
        audited(stranger.trainable_variables[:2], gradients[:2])


@pytest.mark.parametrize("traced", by_default([False, True], [False]))
def test_a_recorded_step_in_a_file_keeps_the_keys(traced, tmp_path):
    def build():
        parts = around("one", dense()), around("two", dense())
        inputs = keras.Input((4,))
        x = parts[1](parts[0](inputs))
        if traced:
            x = Twice(name="twice")(x)
        model = keras.Model(inputs, dense(8, name="e")(x), name="net")
        model.compile("adam", "mse")
        return model

    model = build()
    step = recorded(model, X, np.ones((24, 8), np.float32))
    write_step(tmp_path / "one.step", *step)
    read = read_step(tmp_path / "one.step", build())
    found = [compare(record, derive(record, spec), 8.0) for record, spec in (step, read)]
    assert found[0].verdict == found[1].verdict == "pass"
    first, second = ({t.path: t.max_z for t in each.tensors} for each in found)
    assert first == second
    assert {"d/kernel", "d#2/kernel"} <= first.keys()


def test_explain_follows_the_twin_that_is_named():
    model = keras.Sequential(
        [keras.Input((4,)), around("one", dense()), around("two", dense())], name="net"
    )
    model.compile("sgd", "mse")
    y = np.ones((24, 4), np.float32)
    found = {key: gradaudit.explain(model, X, y, f"{key}/kernel[0,0]").path for key in ("d", "d#2")}
    rows = gradaudit.check(model, X, y).weights.query("index == '0,0' and stage == 'gradient'")
    expected = dict(zip(rows["path"], rows["reference"], strict=True))
    assert expected["d/kernel"] != expected["d#2/kernel"]
    for key, path in found.items():
        assert path.reference == pytest.approx(expected[f"{key}/kernel"], rel=1e-12)
        assert path.verdict == "pass"
