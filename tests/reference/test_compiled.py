"""What `compile` combines: several inputs, outputs and losses, loss weights and sample weights."""

import dataclasses

import keras
import numpy as np
import pytest

from gradaudit import GradientAudit, load
from gradaudit.backends.tensorflow import Capture
from gradaudit.records import Stage
from gradaudit.reference import backprop, derive, losses
from suite import by_default

ROWS = 12
RNG = np.random.default_rng(0)
X = {"left": RNG.standard_normal((ROWS, 4)), "right": RNG.standard_normal((ROWS, 3))}
Y = {
    "kind": RNG.integers(0, 3, ROWS),
    "flag": RNG.integers(0, 2, ROWS).astype(bool),
    "size": RNG.standard_normal((ROWS, 2)),
}
W = {name: RNG.uniform(0.2, 3, ROWS) for name in Y} | {"flag": RNG.integers(0, 4, ROWS)}
LOSSES = {"kind": "sparse_categorical_crossentropy", "flag": "binary_crossentropy", "size": "mse"}
WEIGHTS = {"kind": 0.3, "flag": 2, "size": 1.5}


def two_in_three_out(outputs=list, **options):
    """`kind` is an output and an input of `size`; the names are not in alphabetic order."""
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    trunk = keras.layers.Dense(5, "tanh", name="trunk")(left)
    kind = keras.layers.Dense(3, "softmax", name="kind", **options)(trunk)
    flag = keras.layers.Dense(1, "sigmoid", name="flag")(right)
    size = keras.layers.Dense(2, name="size")(kind)
    made = {"kind": kind, "flag": flag, "size": size}
    return keras.Model([left, right], made if outputs is dict else outputs(made.values()))


def ordered(structure):
    return [structure[name] for name in ("kind", "flag", "size")]


def audited(folder, model, x, y, sample_weight=None, epochs=2):
    audit = GradientAudit(folder)
    model.fit(x, y, 6, epochs, verbose=0, sample_weight=sample_weight, callbacks=[audit])
    return load(folder)


def fitted_record(model, *batch):
    capture, data = Capture(model), tuple(np.float32(part) for part in batch)
    capture.trace(data, iter([data]))
    _, seen = capture.run(iter([data]))
    (record,), spec = capture.records(seen, 0, 0)
    return record, spec


def require_pass(run):
    assert run.verdict == "pass"
    gradient = run.weights.query("stage == 'gradient'")
    assert len(gradient)
    assert set(gradient["verdict"]) <= {"pass", "kink"}
    assert run.weights["z"].max() < 4
    assert run.steps["loss_z"].max() < 4


CASES = {
    "dict of losses": (list, LOSSES, None, list(X.values()), Y, None),
    "list of losses": (list, ordered(LOSSES), None, list(X.values()), ordered(Y), None),
    "dict of outputs": (dict, LOSSES, None, X, Y, None),
    "dict of inputs": (list, ordered(LOSSES), None, X, Y, None),
    "weights by name": (list, LOSSES, WEIGHTS, X, Y, None),
    "weights in order": (list, ordered(LOSSES), ordered(WEIGHTS), X, tuple(ordered(Y)), None),
    "weights of a dict": (dict, LOSSES, WEIGHTS, X, Y, None),
    "one sample weight": (list, LOSSES, WEIGHTS, X, ordered(Y), W["kind"]),
    "sample weights in order": (list, ordered(LOSSES), None, X, ordered(Y), ordered(W)),
    "sample weights by name": (dict, LOSSES, WEIGHTS, X, Y, W),
    "no loss for one": (list, [LOSSES["kind"], None, "mse"], None, X, ordered(Y), None),
    "targets only where there is a loss": (
        *(list, [LOSSES["kind"], None, "mse"], None, X),
        *([Y["kind"], Y["size"]], None),
    ),
}


@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables:UserWarning")
@pytest.mark.parametrize(
    "case",
    by_default(
        CASES,
        chosen=[
            "dict of losses",
            "sample weights in order",
        ],
    ),
)
def test_a_fit_of_several_outputs_passes(tmp_path, case):
    outputs, loss, loss_weights, x, y, sample_weight = CASES[case]
    model = two_in_three_out(outputs)
    model.compile(keras.optimizers.SGD(0.05), loss, loss_weights=loss_weights)
    require_pass(audited(tmp_path, model, x, y, sample_weight))


@pytest.mark.parametrize(
    "mode", by_default(["XLA", "eager", "float64", "mixed_float16"], chosen=["eager"])
)
def test_a_fit_of_several_outputs_passes_in_every_mode(tmp_path, mode):
    if mode == "float64":
        keras.config.set_floatx("float64")
    if mode in ("float64", "mixed_float16"):
        keras.config.set_dtype_policy(mode)
    model = two_in_three_out()
    options = {"jit_compile": mode == "XLA", "run_eagerly": mode == "eager"}
    model.compile(keras.optimizers.SGD(0.05), LOSSES, loss_weights=WEIGHTS, **options)
    run = audited(tmp_path, model, X, Y)
    if mode != "mixed_float16":
        return require_pass(run)
    assert run.verdict in ("pass", "unresolved")
    assert "unjudged" not in set(run.weights["verdict"])
    assert run.weights["z"].max() < 4
    assert run.steps["loss_z"].max() < 4


@pytest.mark.parametrize("loss", by_default(["mse", "ce", "crossentropy"], ["ce"]))
def test_one_loss_for_all_outputs(tmp_path, loss):
    inputs = keras.Input((4,))
    outputs = [keras.layers.Dense(3, "softmax", name=name)(inputs) for name in "ba"]
    model = keras.Model(inputs, outputs)
    model.compile("sgd", loss)
    y = np.eye(3)[np.arange(ROWS) % 3]
    require_pass(audited(tmp_path, model, X["left"], [y, y[::-1]]))


def test_nested_outputs_and_losses(tmp_path):
    inputs = keras.Input((4,), name="left")
    outputs = {
        "a": {"c": keras.layers.Dense(2, name="c")(inputs)},
        "b": [keras.layers.Dense(1)(inputs), keras.layers.Dense(3, "softmax")(inputs)],
    }
    model = keras.Model({"left": inputs}, outputs)
    loss = {"a": {"c": "mse"}, "b": ["mse", "sparse_categorical_crossentropy"]}
    model.compile("sgd", loss)
    y = {"a": {"c": Y["size"]}, "b": [Y["size"][:, 0], Y["kind"]]}
    require_pass(audited(tmp_path, model, {"left": X["left"]}, y))


def test_an_output_that_is_two_outputs(tmp_path):
    """One loss takes the logits of an output, and the other its probabilities."""
    inputs = keras.Input((4,))
    output = keras.layers.Dense(3, "softmax")(inputs)
    model = keras.Model(inputs, [output, output])
    model.compile("sgd", ["sparse_categorical_crossentropy", "mse"])
    y = [Y["kind"], RNG.uniform(0, 1, (ROWS, 3))]
    require_pass(audited(tmp_path, model, X["left"], y))


def test_logits_that_layers_hand_on(tmp_path):
    """Layers that do nothing, and a model within the model, leave the logits where they are."""
    last = keras.layers.Dense(3, "softmax", use_bias=False)
    inner = keras.Sequential([keras.Input((3,)), last, keras.layers.Dropout(0.0)])
    model = keras.Sequential([keras.Input((3,)), inner, keras.layers.Activation("linear")])
    model.compile("sgd", "categorical_crossentropy")
    last.kernel.assign(np.eye(3) * 60 - 30)
    run = audited(tmp_path, model, np.eye(3), np.eye(3)[[1, 2, 0]])
    require_pass(run)
    assert run.weights["tape"].abs().max() > 0.1


def test_of_two_losses_on_a_single_output_keras_counts_the_first(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", ["mse", keras.losses.MeanSquaredError()])
    require_pass(audited(tmp_path, model, X["left"], Y["size"]))


@pytest.mark.long
def test_inputs_of_another_rank_and_dtype(tmp_path):
    """Keras adds a last axis to rows of numbers, and makes integers floats."""
    inputs = [keras.Input((1,), name="b"), keras.Input((2,), name="a")]
    hidden = [keras.layers.Dense(2)(tensor) for tensor in inputs]
    model = keras.Model(inputs, hidden)
    model.compile("sgd", "mse")
    x = {"a": RNG.integers(0, 5, (ROWS, 2)), "b": RNG.standard_normal(ROWS)}
    require_pass(audited(tmp_path, model, x, [Y["size"], Y["size"]]))


def test_weights_that_sum_to_nothing_make_no_loss(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", keras.losses.MeanSquaredError(reduction="mean_with_sample_weight"))
    run = audited(tmp_path, model, X["left"], Y["size"], np.zeros(ROWS))
    gradient = run.weights.query("stage == 'gradient'")
    assert set(gradient["verdict"]) == {"pass"}
    assert (gradient["tape"] == 0).all()


def test_targets_that_are_no_numbers_are_unjudged(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    step, spec = fitted_record(model, X["left"], Y["size"])
    words = dataclasses.replace(step, y=np.array(["one"] * ROWS))
    found = derive(words, spec)
    assert all("Expected dense numbers" in why[-1].message for why in found.unjudged.values())
    assert (Stage.GRADIENT, model.layers[0].kernel.path) in found.unjudged


def plant_swapped(monkeypatch):
    packed = backprop.packed
    monkeypatch.setattr(
        backprop, "packed", lambda model, ys: packed(model, [ys[1], ys[0], *ys[2:]])
    )


def plant_ignored_loss_weight(monkeypatch):
    terms = losses.loss_terms
    wrong = lambda model: [dataclasses.replace(t, weight=None) for t in terms(model)]  # noqa: E731
    monkeypatch.setattr(backprop, "loss_terms", wrong)


def plant_ignored_sample_weight(monkeypatch):
    given = losses.given_to_losses
    monkeypatch.setattr(
        backprop, "given_to_losses", lambda model, y, y_pred, weight: given(model, y, y_pred, None)
    )


@pytest.mark.parametrize(
    "plant",
    by_default(
        [plant_swapped, plant_ignored_loss_weight, plant_ignored_sample_weight], [plant_swapped]
    ),
)
def test_a_planted_fault_is_found(tmp_path, monkeypatch, plant):
    inputs = keras.Input((4,))
    outputs = [keras.layers.Dense(2, name=name)(inputs) for name in "ab"]
    model = keras.Model(inputs, outputs)
    model.compile("sgd", ["mse", "mse"], loss_weights=[1.0, 1.001])
    plant(monkeypatch)
    weights = [W["kind"], W["size"]]
    assert audited(tmp_path, model, X["left"], [Y["size"], -Y["size"]], weights).verdict == "fail"


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean_with_sample_weight", "sum"])
def test_replicas_divide_means_and_penalties_but_no_sums(reduction):
    layer = keras.layers.Dense(
        2, kernel_regularizer="l2", activity_regularizer="l1", kernel_initializer="ones"
    )
    model = keras.Sequential([keras.Input((4,)), layer])
    model.compile("sgd", keras.losses.MeanSquaredError(reduction=reduction))
    record, spec = fitted_record(model, X["left"], Y["size"], W["kind"])
    whole, part = (
        derive(dataclasses.replace(record, replicas=replicas), spec) for replicas in (1, 4)
    )
    kernel = layer.kernel.path
    penalty_gradient = 2 * 0.01 * record.variables[kernel]
    signs = np.sign(X["left"] @ record.variables[kernel])
    penalty_gradient = penalty_gradient + 0.01 * X["left"].T @ signs / ROWS
    expected = whole.gradients[kernel].value / 4
    if reduction == "sum":
        expected = whole.gradients[kernel].value - 0.75 * penalty_gradient
    else:
        assert part.loss.value == pytest.approx(whole.loss.value / 4, rel=1e-7)
    np.testing.assert_allclose(part.gradients[kernel].value, expected, rtol=1e-6)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean_with_sample_weight", "sum"])
def test_a_replica_without_rows_has_a_gradient_of_zero(reduction):
    layer = keras.layers.Dense(2, activity_regularizer="l1")
    model = keras.Sequential([keras.Input((4,)), layer])
    model.compile("sgd", keras.losses.MeanSquaredError(reduction=reduction))
    record, spec = fitted_record(model, X["left"], Y["size"], W["kind"])
    part = {name: getattr(record, name)[:0] for name in ("x", "y", "sample_weight")}
    found = derive(dataclasses.replace(record, replicas=2, **part), spec)
    assert found.loss.value == 0
    for estimate in found.gradients.values():
        assert not estimate.value.any()
        assert not estimate.sigma.any()
