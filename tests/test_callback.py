"""The callback in real fits: the three nets in every mode, and planted faults."""

import gc
import itertools
import json
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from custom_nets import outside
from gradaudit import GradientAudit, load
from gradaudit.backends.tensorflow import specified
from gradaudit.errors import AuditFailure, FolderError, UsageError
from gradaudit.nets import NETS, Settings
from gradaudit.nets.catalogue import compiled
from gradaudit.nets.precision import PRECISIONS
from suite import by_default

MODES = {"graph": {}, "XLA": {"jit": True}, "eager": {"eager": True}}
COMBINED = list(itertools.product(NETS, PRECISIONS, MODES, ["momentum", "adam"]))
CHOSEN = [
    ("iris", "float64", "XLA", "adam"),
    ("deep_tanh", "mixed_float16", "graph", "momentum"),
    ("sigmoid_mse", "mixed_bfloat16", "eager", "adam"),
    ("iris", "float32", "graph", "adam"),
]
"""Each net, precision, mode and optimizer at least once."""
STEPS, ROWS, BATCH = 6, 40, 16  # two epochs of 16, 16 and 8 rows


def trained(settings, net, callbacks):
    """Return the final value of every variable after two epochs."""
    model = compiled(net, settings)
    x, y = next(iter(net.data.values()))()
    model.fit(x[:ROWS], y[:ROWS], batch_size=BATCH, epochs=2, verbose=0, callbacks=callbacks)
    return model, [v.numpy() for v in (*model.variables, *model.optimizer.variables)]


def test_the_chosen_combinations_have_each_net_precision_mode_and_optimizer():
    for values, run in zip(zip(*COMBINED, strict=True), zip(*CHOSEN, strict=True), strict=True):
        assert set(run) == set(values)


@pytest.mark.parametrize(("net", "precision", "mode", "optimizer"), by_default(COMBINED, CHOSEN))
def test_every_mode_passes_undisturbed_and_complete(tmp_path, net, precision, mode, optimizer):
    net = NETS[net]
    settings = Settings(optimizer, 0.01, precision, **MODES[mode])
    _, alone = trained(settings, net, [])
    audit = GradientAudit(tmp_path)
    model, audited = trained(settings, net, [audit])

    for mine, other in zip(audited, alone, strict=True):
        np.testing.assert_array_equal(mine, other)
    run = load(tmp_path)
    assert run.verdict == audit.verdict == "pass"
    assert set(run.weights["verdict"]) <= {"pass", "unresolved"}
    assert run.weights["z"].max() < 4
    assert list(run.steps["step"]) == list(range(STEPS))
    assert list(run.steps["batch_size"]) == [16, 16, 8] * 2
    for stage in ("gradient", "update"):
        rows = run.weights[run.weights["stage"] == stage]
        for variable in model.trainable_variables:
            own = rows[rows["path"] == variable.path]
            indices = {",".join(map(str, i)) for i in np.ndindex(tuple(variable.shape))}
            for step in range(STEPS):
                assert set(own[own["step"] == step]["index"]) == indices


def nudged(factor, index):
    """Return the identity whose gradient is wrong in one place, by a custom gradient."""

    @tf.custom_gradient
    def apply(kernel):
        def gradient(dkernel):
            return dkernel * tf.tensor_scatter_nd_update(
                tf.ones_like(dkernel), [index], [tf.constant(factor, dkernel.dtype)]
            )

        return tf.identity(kernel), gradient

    return apply


def with_wrong_kernel(layer, factor, index):
    """Let a Dense layer read its kernel through a wrong custom gradient."""
    wrong = nudged(factor, index)

    def call(inputs, training=None):
        z = ops.matmul(inputs, wrong(tf.identity(layer.kernel.value)))
        return layer.activation(z if layer.bias is None else z + layer.bias)

    layer.call = call


WRONG = {
    "iris": ("output", (1, 2)),
    "deep_tanh": ("layer_2", (2, 0)),
    "sigmoid_mse": ("hidden", (2, 3)),
}


@pytest.mark.parametrize(
    ("net", "mode"),
    by_default(
        itertools.product(NETS, MODES),
        chosen=[("deep_tanh", "graph"), ("sigmoid_mse", "eager")],
    ),
)
def test_an_error_of_1_in_10000_in_one_weight_is_found(tmp_path, net, mode):
    layer, index = WRONG[net]
    net = NETS[net]
    model = compiled(net, Settings("sgd", 0.01, "float32", **MODES[mode]))
    with_wrong_kernel(model.get_layer(layer), 1.0001, index)
    x, y = next(iter(net.data.values()))()
    model.fit(x, y, batch_size=32, epochs=1, verbose=0, callbacks=[GradientAudit(tmp_path)])
    run = load(tmp_path)
    failed = run.weights[run.weights["verdict"] == "fail"]
    assert run.verdict == "fail"
    assert set(failed["path"]) == {f"{net.name}/{layer}/kernel"}
    assert set(failed["index"]) == {",".join(map(str, index))}
    assert set(failed["stage"]) == {"gradient"}
    assert f"gradient of {net.name}/{layer}/kernel: 1 of" in run.run["failures"][0]
    assert f"{list(index)} by a relative 0.0001" in run.run["failures"][0]


def test_a_wrong_optimizer_input_is_found(tmp_path, monkeypatch):
    model = compiled(NETS["iris"], Settings("sgd", 0.1, "float32"))
    right = model.optimizer.apply_gradients

    def wrong(grads_and_vars):
        (dkernel, kernel), *rest = grads_and_vars
        mask = tf.tensor_scatter_nd_update(tf.ones_like(dkernel), [(3, 1)], [1.0001])
        return right([(dkernel * mask, kernel), *rest])

    monkeypatch.setitem(vars(model.optimizer), "apply_gradients", wrong)
    x, y = NETS["iris"].data["iris"]()
    model.fit(x, y, epochs=1, verbose=0, callbacks=[GradientAudit(tmp_path)])
    failed = load(tmp_path).weights.query("verdict == 'fail'")
    assert set(failed["index"]) == {"3,1"}
    assert set(failed["path"]) == {"iris/output/kernel"}


def test_a_wrong_update_is_found(tmp_path, monkeypatch):
    model = compiled(NETS["iris"], Settings("adam", 0.1, "float32"))
    monkeypatch.setattr(model.optimizer, "beta_2", 0.9989)

    def with_declared_beta(*args):
        with monkeypatch.context() as declared:
            declared.setattr(model.optimizer, "beta_2", 0.999)
            return specified(*args)

    monkeypatch.setattr("gradaudit.backends.tensorflow.sibling.specified", with_declared_beta)
    x, y = NETS["iris"].data["iris"]()
    model.fit(x, y, epochs=1, verbose=0, callbacks=[GradientAudit(tmp_path)])
    failed = load(tmp_path).weights.query("verdict == 'fail'")
    assert set(failed["stage"]) == {"update"}
    assert {path.rpartition("/")[2] for path in failed["path"]} >= {
        "iris_output_kernel_velocity",
        "kernel",
    }


def test_dropout_shared_layers_nesting_and_two_inputs_of_one_layer(tmp_path):
    shared = keras.layers.Dense(4, activation="relu", name="shared")
    inner = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dropout(0.3, seed=1), shared], name="inner"
    )
    x = inputs = keras.Input((2, 2))
    x = keras.layers.Flatten()(x)
    x = shared(inner(shared(x)))
    x = inner(x)  # the dropout layer draws a second time in each step
    outputs = keras.layers.Dense(3, activation="softmax", name="output")(x)
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((30, 2, 2)), rng.integers(0, 3, 30)
    weight = rng.uniform(0.5, 2, 30)
    model.fit(x, y, 8, 3, verbose=0, sample_weight=weight, callbacks=[GradientAudit(tmp_path)])
    run = load(tmp_path)
    assert run.verdict == "pass"
    assert len(run.steps) == 12
    assert run.steps["loss_z"].max() < 4


@pytest.mark.parametrize("jit", by_default([False, True], chosen=[False]))
def test_dropout_s_own_mask_is_used(tmp_path, jit):
    layers = [keras.layers.Dense(64), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((8,)), *layers])
    model.compile("sgd", "mse", jit_compile=jit)
    x = np.random.default_rng(0).standard_normal((32, 8))
    model.fit(x, x[:, :1], 8, verbose=0, callbacks=[GradientAudit(tmp_path)])
    assert load(tmp_path).verdict == "pass"


def test_relu_at_its_kink_is_no_failure(tmp_path):
    """Pre-activations within rounding of 0 may take either branch: verdict kink, not fail."""
    model = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(8, activation="relu", kernel_initializer="ones", use_bias=False),
            keras.layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse")
    x = np.array([[0.1, -0.1 + 2.0**-30], [0.3, -0.3 + 2.0**-28], [1.0, 2.0]])
    model.fit(x, np.ones(3), epochs=1, verbose=0, callbacks=[GradientAudit(tmp_path)])
    run = load(tmp_path)
    assert run.verdict == "pass"
    assert run.tensors["kinks"].sum() > 0


@pytest.mark.parametrize("factor", [-1.0, 2.0])
def test_a_kink_does_not_excuse_a_wrong_gradient(tmp_path, factor):
    """Half of the rows lie at the kink of every unit: what they add is a choice, and no more."""
    layer = keras.layers.Dense(8, activation="relu", kernel_initializer="ones", use_bias=False)
    model = keras.Sequential([keras.Input((3,)), layer, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    scaled = tf.custom_gradient(lambda k: (tf.identity(k), lambda dk: factor * dk))
    layer.call = lambda x, training=None: tf.nn.relu(x @ scaled(tf.identity(layer.kernel.value)))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 3)).astype(np.float32)
    x -= x.mean(axis=1, keepdims=True)
    x[:32] += rng.standard_normal((32, 1))
    model.fit(x, rng.standard_normal(64), 64, verbose=0, callbacks=[GradientAudit(tmp_path)])
    rows = load(tmp_path).tensors.query("stage == 'gradient' and shape == '3x8'")
    assert set(rows["verdict"]) == {"fail"}


def test_a_number_where_the_reference_is_not_one_accuses_nobody(tmp_path):
    layer = keras.layers.Dense(2)
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile("sgd", "mse")
    hidden = tf.custom_gradient(lambda k: (tf.identity(k), lambda dk: tf.zeros_like(dk) + 7.0))
    layer.call = lambda x, training=None: x @ hidden(tf.identity(layer.kernel.value)) + layer.bias
    x = np.ones((4, 3), np.float32)
    x[0, 0] = np.nan
    model.fit(x, np.ones((4, 2)), verbose=0, callbacks=[GradientAudit(tmp_path)])
    rows = load(tmp_path).tensors.query("stage == 'gradient'").set_index("shape")["verdict"]
    assert rows["3x2"] == "unresolved"
    assert rows["2"] == "nonfinite"


@pytest.mark.long
@pytest.mark.parametrize("jit", by_default([False, True], chosen=[False]))
def test_relu_in_float16_passes_also_where_gradients_overflow(tmp_path, jit):
    keras.config.set_dtype_policy("mixed_float16")
    layers = [keras.layers.Dense(width, "relu") for width in (64, 64)]
    model = keras.Sequential([keras.Input((50,)), *layers, keras.layers.Dense(10, "softmax")])
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy", jit_compile=jit)
    rng = np.random.default_rng(0)
    x, y = 3 * rng.standard_normal((512, 50)), rng.integers(0, 10, 512)
    audit = GradientAudit(tmp_path, rows_per_tensor=10)
    model.fit(x, y, 64, verbose=0, callbacks=[audit])
    assert audit.verdict == "pass"


@pytest.mark.long
def test_a_recompiled_model_is_audited_as_it_is_now(tmp_path):
    model = compiled(NETS["iris"], Settings("sgd", 0.1, "float32"))
    x, y = NETS["iris"].data["iris"]()
    audit = GradientAudit(tmp_path)
    model.fit(x, y, 50, verbose=0, callbacks=[audit])
    model.compile("sgd", "mse")
    model.fit(x, y, 50, verbose=0, callbacks=[audit])
    assert load(tmp_path).verdict == "pass"
    other = compiled(NETS["iris"], Settings("sgd", 0.1, "float32"))
    with pytest.raises(UsageError, match="has audited another model"):
        other.fit(x, y, verbose=0, callbacks=[audit])


def test_a_gradient_that_is_only_rounding_error_is_unresolved(tmp_path):
    """A bias before a softmax over one shared shift has the gradient 0: nothing can be said."""
    shift = keras.layers.Dense(1, name="shift")
    inputs = keras.Input((3,))
    wide = keras.layers.Dense(4, use_bias=False, kernel_initializer="ones", trainable=False)
    outputs = keras.layers.Activation("softmax")(wide(shift(inputs)))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", keras.losses.MeanSquaredError())
    rng = np.random.default_rng(0)
    model.fit(
        rng.standard_normal((8, 3)),
        rng.standard_normal((8, 4)),
        verbose=0,
        callbacks=[GradientAudit(tmp_path)],
    )
    run = load(tmp_path)
    gradient = run.tensors.query("stage == 'gradient'")
    assert set(gradient["verdict"]) == {"unresolved"}
    assert gradient["cause"].str.contains("too large a part of the values").all()
    assert run.verdict == "unresolved"


@pytest.mark.long
def test_a_step_whose_float16_gradients_overflow_is_skipped_in_both(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    x = 30 * np.ones((8, 3), np.float32)
    y = 30 * np.ones((8, 2), np.float32)
    model.fit(x, y, epochs=14, batch_size=8, verbose=0, callbacks=[GradientAudit(tmp_path)])
    run = load(tmp_path)
    scale = run.tensors.query("path.str.contains('dynamic_scale')")
    assert run.verdict == "pass"
    assert scale["tape_norm"].iloc[0] == 2.0**14
    assert "the optimizer rightly skips the step" in run.tensors["cause"].iloc[0]
    assert scale["tape_norm"].iloc[-1] == 0


def test_what_has_no_rule_is_told_all_at_once_and_training_goes_on(tmp_path, capsys):
    class Mine(keras.layers.Layer):
        def call(self, x):
            return outside(x)

    layers = [
        keras.layers.Dense(2, activation=lambda z: z, kernel_regularizer=keras.ops.sum, name="a"),
        Mine(name="b"),
        keras.layers.Lambda(lambda x: x, name="c"),
        keras.layers.Dense(2, bias_constraint=keras.ops.abs, autocast=False, name="d"),
    ]
    model = keras.Sequential([keras.Input((3,)), *layers], name="sequential")
    model.compile("adam", loss=lambda a, b: (a - b) ** 2)
    x, y = np.ones((4, 3)), np.ones((4, 2))
    audit = GradientAudit(tmp_path)
    model.fit(x, y, epochs=2, verbose=0, callbacks=[audit])
    run = load(tmp_path)
    assert audit.verdict == run.verdict == "unjudged"
    assert set(run.weights["verdict"]) == {"unjudged"}
    assert len(run.steps) == 2
    gradient, update = run.run["unjudged"]
    for words in (
        "layer 'a' (Dense) has the activation",
        "'sequential/a/kernel' has the regularizer",
        "layer 'b' (Mine) has no derived rule",
        "layer 'c' (Lambda) has no",
        "layer 'd' (Dense) does not cast",
        "the loss 'lambda' (LossFunctionWrapper) has no derived rule",
        "(EagerPyFunc) at",
        "its outputs are not float64 where its inputs are",
    ):
        assert words in gradient
    assert "'sequential/d/bias' has the constraint" in update
    printed = capsys.readouterr().err
    assert printed.count("cannot judge the gradient of sequential/a/kernel") == 1
    assert "UNJUDGED, 100 % of the gradient weights were not judged, 2 steps audited" in printed
    assert run.run["counts"]["gradient"] == {"unjudged": 2 * model.count_params()}


def test_dicts_of_inputs_and_targets(tmp_path):
    inputs = keras.Input((3,), name="features")
    outputs = keras.layers.Dense(1, name="price")(inputs)
    model = keras.Model({"features": inputs}, {"price": outputs})
    model.compile("sgd", {"price": "mse"})
    x = np.random.default_rng(0).standard_normal((8, 3))
    data = {"features": x}, {"price": x[:, :1]}
    model.fit(*data, verbose=0, callbacks=[GradientAudit(tmp_path)])
    assert load(tmp_path).verdict == "pass"


def test_the_update_is_judged_where_the_gradient_is_not(tmp_path):
    layers = [keras.layers.Dense(3), keras.layers.Lambda(outside)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile("sgd", "mse")
    audit = GradientAudit(tmp_path)
    x = np.random.default_rng(0).standard_normal((4, 3))
    model.fit(x, x, verbose=0, callbacks=[audit])
    run = load(tmp_path)
    assert run.verdict == "unjudged"
    gradient, update = (run.weights.query(f"stage == '{s}'") for s in ("gradient", "update"))
    assert set(gradient["verdict"]) == {"unjudged"}
    assert set(update["verdict"]) == {"pass"}
    assert len(gradient) == 12
    assert "(Lambda) has no derived rule" in run.run["left_out"][0]


def test_a_frozen_layer_is_passed_through(tmp_path):
    model = compiled(NETS["deep_tanh"], Settings("sgd", 0.1, "float32"))
    model.get_layer("layer_2").trainable = False
    model.compile("sgd", "categorical_crossentropy")
    x, y = NETS["deep_tanh"].data["iris"]()
    model.fit(x, y, verbose=0, callbacks=[GradientAudit(tmp_path)])
    run = load(tmp_path)
    assert run.verdict == "pass"
    assert not run.tensors["path"].str.contains("layer_2").any()


def test_a_model_that_is_built_by_its_data_is_audited_from_step_0(tmp_path):
    model = keras.Sequential([keras.layers.Dense(3, activation="tanh"), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    x = np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)
    model.fit(x, x[:, 0], batch_size=4, verbose=0, callbacks=[GradientAudit(tmp_path)])
    run = load(tmp_path)
    assert run.verdict == "pass"
    assert list(run.steps["batch_size"]) == [4, 4, 2]


def test_a_train_function_that_somebody_put_in_place_trains_in_every_step(tmp_path):
    model = compiled(NETS["iris"], Settings("sgd", 0.1, "float32"))
    x, y = NETS["iris"].data["iris"]()
    called = []

    class Spy(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            right = self.model.train_function

            def spied(iterator):
                called.append(True)
                return right(iterator)

            self.model.train_function = spied

    model.fit(x, y, 32, 2, verbose=0, callbacks=[Spy(), GradientAudit(tmp_path, every=4)])
    run = load(tmp_path)
    assert list(run.steps["step"]) == [0, 4, 8]
    assert list(run.steps["epoch"]) == [0, 0, 1]
    assert len(called) == 10
    assert run.run["coverage"] == {"steps_trained": 10, "steps_audited": 3}
    assert run.run["left_out"] == ["all steps but multiples of 4"]


def test_a_second_fit_goes_on_in_the_same_report(tmp_path):
    model = compiled(NETS["iris"], Settings("sgd", 0.1, "float32"))
    x, y = NETS["iris"].data["iris"]()
    audit = GradientAudit(tmp_path)
    model.fit(x, y, 50, verbose=0, callbacks=[audit])
    model.fit(x, y, 50, verbose=0, callbacks=[audit])
    assert list(load(tmp_path).steps["step"]) == list(range(6))


def test_a_run_is_not_overwritten(tmp_path):
    x, y = NETS["iris"].data["iris"]()

    def fit(**options):
        model = compiled(NETS["iris"], Settings("sgd", 0.1, "float32"))
        model.fit(x, y, 75, verbose=0, callbacks=[GradientAudit(tmp_path, **options)])

    fit()
    held = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FolderError, match=r"holds a run already .* --overwrite"):
        fit()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == held
    fit(overwrite=True)
    assert len(load(tmp_path).steps) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"every": 0},
        {"every": "step"},
        {"every": True},
        {"steps": 3},
        {"steps": (-1,)},
        {"first": -1},
        {"layers": "("},
        {"budget": 0.0},
        {"threshold": 0.0},
        {"threshold": float("nan")},
        {"on_fail": "cry"},
        {"rows_per_tensor": 0},
        {"verbose": 3},
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path, options):
    with pytest.raises(UsageError, match="Expected"):
        GradientAudit(tmp_path, **options)


def test_run_json_says_what_the_run_was_made_with(tmp_path):
    settings = Settings("adam", 0.02, "mixed_bfloat16", jit=True, seed=7)
    model = compiled(NETS["iris"], settings)
    x, y = NETS["iris"].data["iris"]()
    model.fit(x, y, 75, verbose=0, callbacks=[GradientAudit(tmp_path, threshold=9.0)])
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["schema_version"] == 4
    assert run["seed"] == 7
    assert run["jit"] is True
    assert run["eager"] is False
    assert run["threshold"] == 9.0
    assert run["precision"]["policy"] == "mixed_bfloat16"
    assert run["optimizer"]["class"] == "Adam"
    assert run["versions"]["keras"] == keras.__version__
    assert run["model"]["weights"] == 15
    assert sum(run["counts"]["gradient"].values()) == 2 * 15
    assert run["device"]["devices"]


def iris(**options):
    return compiled(NETS["iris"], Settings("sgd", 0.1, "float32", **options))


def fitted(audit, model=None, batch_size=32, epochs=2, **options):
    """Train on 150 rows: 5 steps an epoch."""
    model = iris() if model is None else model
    x, y = NETS["iris"].data["iris"]()
    model.fit(x, y, batch_size, epochs, verbose=0, callbacks=[audit], **options)
    return model


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, list(range(10))),
        ({"every": 4}, [0, 4, 8]),
        ({"every": "epoch"}, [0, 5]),
        ({"steps": (0, 3, 9, 100)}, [0, 3, 9]),
        ({"first": 2}, [0, 1]),
        ({"first": 2, "every": 5}, [0, 1, 5]),
        ({"first": 1, "steps": [7], "every": "epoch"}, [0, 5, 7]),
    ],
)
def test_the_steps_that_are_chosen(tmp_path, options, steps):
    audit = GradientAudit(tmp_path, verbose=0, **options)
    fitted(audit)
    run = load(tmp_path)
    assert list(run.steps["step"]) == steps
    assert audit.audited_steps == len(steps)
    assert run.run["coverage"] == {"steps_trained": 10, "steps_audited": len(steps)}
    assert bool(run.run["left_out"]) == (len(steps) < 10)
    for name, value in options.items():
        assert run.run["options"][name] == (list(value) if name == "steps" else value)


@pytest.mark.parametrize("every", by_default([1, 3], [3]))
def test_an_execution_of_several_steps_is_audited_whole(tmp_path, every):
    model = iris()
    model.compile("sgd", "categorical_crossentropy", steps_per_execution=2)
    fitted(GradientAudit(tmp_path, every=every, verbose=0), model)
    steps = list(load(tmp_path).steps["step"])
    # Executions of an epoch begin at its steps 0, 2 and 4; the last one is a single step.
    assert steps == (list(range(10)) if every == 1 else [0, 1, 2, 3, 5, 6, 9])


def test_only_the_layers_that_are_chosen(tmp_path):
    model = compiled(NETS["deep_tanh"], Settings("adam", 0.1, "float32"))
    x, y = NETS["deep_tanh"].data["iris"]()
    model.fit(x, y, 50, verbose=0, callbacks=[GradientAudit(tmp_path, layers="layer_[12]")])
    run = load(tmp_path)
    assert run.verdict == "pass"
    weights = run.tensors.loc[run.tensors["stage"] == "gradient", "path"]
    assert {path.split("/")[1] for path in weights} == {"layer_1", "layer_2"}
    assert not run.tensors["path"].str.contains("output").any()  # nor its slots
    assert run.tensors["path"].str.contains("layer_1_kernel_velocity").any()
    assert any("layer_[12]" in words for words in run.run["left_out"])


def test_layers_that_no_weight_belongs_to_leave_nothing_judged(tmp_path):
    audit = GradientAudit(tmp_path, layers="encoder", verbose=0)
    fitted(audit)
    run = load(tmp_path)
    assert audit.verdict == run.verdict == "unjudged"
    assert run.run["unjudged"] == [
        "no trainable weight is asked for, of iris/output/kernel, iris/output/bias"
    ]


def test_a_budget_passes_over_steps_and_says_so(tmp_path, capsys):
    audit = GradientAudit(tmp_path, budget=1e-6)
    fitted(audit)
    run = load(tmp_path)
    assert list(run.steps["step"]) == [0]
    (words,) = run.run["left_out"]
    assert words.startswith("9 selected executions, for budget=1e-06: the audit took ")
    assert words.endswith("since the first audited step compiles and the training was short")
    assert run.run["options"]["budget"] == 1e-6
    assert words in capsys.readouterr().err


def wrong_iris():
    model = iris()
    with_wrong_kernel(model.get_layer("output"), 1.5, (1, 2))
    return model


def test_a_failure_stops_the_training_where_that_is_asked_for(tmp_path):
    audit = GradientAudit(tmp_path, on_fail="stop", verbose=0)
    fitted(audit, wrong_iris())
    run = load(tmp_path)
    assert list(run.steps["step"]) == [0]
    assert run.verdict == "fail"
    assert run.run["coverage"]["steps_trained"] == 1


def test_a_failure_is_raised_where_that_is_asked_for(tmp_path):
    audit = GradientAudit(tmp_path, on_fail="raise", verbose=0)
    with pytest.raises(AuditFailure, match=r"gradient of iris/output/kernel: 1 of 12 .* Report: "):
        fitted(audit, wrong_iris())
    run = load(tmp_path)
    assert list(run.steps["verdict"]) == ["fail"]
    assert run.verdict == "fail"


def test_what_is_printed(tmp_path, capsys):
    for verbose in (0, 1, 2):
        fitted(GradientAudit(tmp_path / str(verbose), verbose=verbose), wrong_iris(), epochs=1)
        printed = capsys.readouterr().err.splitlines()
        if verbose == 0:
            assert printed == []
            continue
        assert printed[0].startswith("gradaudit: FAIL step 0, gradient of iris/output/kernel")
        assert printed[-1].startswith("gradaudit: FAIL, 5 steps audited. Report: ")
        assert len(printed) == (2 if verbose == 1 else 7)


class Broken(Exception):
    pass


def broken(*args, **kwargs):
    raise Broken("a bug of the auditor.")


FAULTS = {
    "capture": ("gradaudit.backends.tensorflow.watched_step._copy", "capturing step 0"),
    "record": ("gradaudit.backends.tensorflow.step.to_numpy", "reading step 0"),
    "reference": ("gradaudit.reference.runs.Walk.model", "judging step 0"),
    "update": ("gradaudit.reference.runs.updated", "judging step 0"),
    "compare": ("gradaudit.scoring.score.passing", "judging step 0"),
}


@pytest.mark.parametrize("fault", by_default(FAULTS, ["compare", "record"]))
def test_a_fault_of_the_auditor_leaves_the_training_alone(tmp_path, monkeypatch, capsys, fault):
    target, doing = FAULTS[fault]
    expected = [v.value.numpy() for v in fitted(GradientAudit(tmp_path / "right")).variables]
    capsys.readouterr()
    with monkeypatch.context() as patched:
        patched.setattr(target, broken)
        audit = GradientAudit(tmp_path / "broken", verbose=0)
        model = fitted(audit)
    for mine, right in zip(model.variables, expected, strict=True):
        np.testing.assert_array_equal(mine.value.numpy(), right)
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert (
        f"warning: the auditor failed in {doing}: Broken: a bug of the auditor. The training"
        in printed
    )
    run = load(tmp_path / "broken")
    assert audit.verdict == run.verdict == "unjudged"
    assert set(run.steps["verdict"]) == {"unjudged"}
    assert len(run.steps) == 10
    assert set(run.weights["verdict"]) == {"unjudged"}
    assert run.tensors["cause"].str.contains("the auditor failed in").all()
    assert run.run["faults"]["count"] >= 10
    assert "in broken" in run.run["faults"]["tracebacks"][0]


def test_a_table_that_cannot_be_written_leaves_the_training_alone(tmp_path, monkeypatch, capsys):
    audit = GradientAudit(tmp_path, verbose=0)
    monkeypatch.setattr("gradaudit.report.folder.RunFolder.append", broken)
    fitted(audit)
    run = json.loads((tmp_path / "run.json").read_text())
    assert audit.verdict == run["verdict"] == "unjudged"
    assert run["faults"]["count"] == 10
    assert "failed in writing step 0" in capsys.readouterr().err


def test_a_fault_is_raised_where_failures_are(tmp_path, monkeypatch):
    monkeypatch.setattr("gradaudit.scoring.score.passing", broken)
    with pytest.raises(Broken):
        fitted(GradientAudit(tmp_path, on_fail="raise", verbose=0))


def test_of_two_audits_the_first_takes_a_step_that_both_select(tmp_path):
    model = iris()
    own = model.make_train_function() or model.train_function
    x, y = NETS["iris"].data["iris"]()
    audits = [
        GradientAudit(tmp_path / "c", steps=(0, 2), verbose=0),
        GradientAudit(tmp_path / "d", steps=(1, 2), verbose=0),
    ]
    model.fit(x, y, 50, verbose=0, callbacks=audits)
    first, second = (load(tmp_path / name) for name in "cd")
    assert [list(run.steps["step"]) for run in (first, second)] == [[0, 2], [1]]
    assert "1 selected steps that another GradientAudit" in second.run["left_out"][-1]
    assert model.train_function is own


class Unfreezing(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.model.layers[0].trainable = epoch > 0
        self.model.make_train_function(force=True)


@pytest.mark.long
def test_a_train_function_that_is_made_anew_within_fit_is_followed(tmp_path):
    def trained(callbacks):
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(4, "tanh", name="first"), keras.layers.Dense(3, "softmax")]
        model = keras.Sequential([keras.Input((4,)), *layers])
        model.compile("sgd", "categorical_crossentropy")
        model.optimizer.build(model.trainable_variables)
        x, y = NETS["iris"].data["iris"]()
        model.fit(x, y, 50, 2, verbose=0, callbacks=[Unfreezing(), *callbacks])
        return [v.value.numpy() for v in model.variables]

    expected = trained([])
    for mine, right in zip(trained([GradientAudit(tmp_path, verbose=0)]), expected, strict=True):
        np.testing.assert_array_equal(mine, right)
    run = load(tmp_path)
    assert run.verdict == "pass"
    first = run.tensors[run.tensors["layer"].str.endswith("first")]
    assert set(first["step"]) == {3, 4, 5}


@pytest.mark.long
@pytest.mark.parametrize("known", [True, False])
def test_steps_are_counted_where_the_last_execution_is_short(tmp_path, known):
    x, y = NETS["iris"].data["iris"]()
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(50)
    if not known:
        data = data.filter(lambda x, y: True)
    model = iris()
    model.compile("sgd", "categorical_crossentropy", steps_per_execution=2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*ran out of data")
        model.fit(
            data, epochs=3, verbose=0, callbacks=[GradientAudit(tmp_path, verbose=0)], shuffle=False
        )
    run = load(tmp_path)
    assert list(run.steps["step"]) == list(range(9))
    assert run.run["coverage"] == {"steps_trained": 9, "steps_audited": 9}


@pytest.mark.parametrize("steps", by_default([None, 10], [10]))
def test_a_fit_ends_with_its_data_between_audited_steps(tmp_path, steps):
    x, y = NETS["iris"].data["iris"]()
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(50).filter(lambda x, y: True)

    def trained(callbacks):
        model = iris()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*ran out of data")
            options = {"epochs": 2, "verbose": 0, "shuffle": False, "steps_per_epoch": steps}
            model.fit(data, callbacks=callbacks, **options)
        return [v.value.numpy() for v in model.variables]

    audited = trained([GradientAudit(tmp_path, every=5, verbose=0)])
    for mine, right in zip(audited, trained([]), strict=True):
        np.testing.assert_array_equal(mine, right)
    assert load(tmp_path).verdict == "pass"


def test_executions_are_whole_where_steps_per_epoch_is_given(tmp_path):
    """Keras then trains on 9 batches in an epoch of 8."""
    x, y = NETS["iris"].data["iris"]()
    data = tf.data.Dataset.from_tensor_slices((x, y)).repeat().batch(10)
    model = iris()
    model.compile("sgd", "categorical_crossentropy", steps_per_execution=3)
    audit = GradientAudit(tmp_path, every=4, verbose=0)
    model.fit(data, epochs=2, steps_per_epoch=8, verbose=0, shuffle=False, callbacks=[audit])
    run = load(tmp_path)
    assert run.run["coverage"]["steps_trained"] == int(model.optimizer.iterations.value) == 18
    assert run.steps["step"].is_unique


class Interrupting(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 3:
            raise KeyboardInterrupt


def test_a_fit_after_one_that_broke_off_goes_on_counting(tmp_path):
    model, audit = iris(), GradientAudit(tmp_path, verbose=0)
    x, y = NETS["iris"].data["iris"]()
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, 30, verbose=0, callbacks=[audit, Interrupting()])
    assert load(tmp_path).verdict == "interrupted"
    model.fit(x, y, 30, verbose=0, callbacks=[audit])
    run = load(tmp_path)
    assert run.verdict == "pass"
    trained = int(model.optimizer.iterations.value)
    assert list(run.steps["step"]) == list(range(len(run.steps)))
    assert trained - 1 <= len(run.steps) <= trained  # the step that broke off may be counted


def test_a_failure_stays_the_verdict_of_a_run_that_was_interrupted(tmp_path):
    audit = GradientAudit(tmp_path, verbose=0)
    x, y = NETS["iris"].data["iris"]()
    with pytest.raises(KeyboardInterrupt):
        wrong_iris().fit(x, y, 30, verbose=0, callbacks=[audit, Interrupting()])
    run = load(tmp_path)
    assert (run.verdict, run.run["ended"]) == ("fail", "interrupted")


@pytest.mark.long
def test_an_old_exception_does_not_close_a_later_fit(tmp_path):
    class Raising(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise Broken

    model, audit = iris(), GradientAudit(tmp_path, verbose=0)
    x, y = NETS["iris"].data["iris"]()
    kept = None
    try:
        model.fit(x, y, 50, verbose=0, callbacks=[audit, Raising()])
    except Broken as error:
        kept = [error]  # as a notebook keeps the last one

    class Freeing(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            kept.clear()
            gc.collect()

    model.fit(x, y, 50, verbose=0, callbacks=[audit, Freeing()])
    run = load(tmp_path)
    assert run.verdict == audit.verdict == "pass"
    assert list(run.steps["step"]) == list(range(6))


def test_a_fault_at_the_beginning_leaves_the_training_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("gradaudit.callback.when_fit_breaks_off", broken)
    audit = GradientAudit(tmp_path, verbose=0)
    model = fitted(audit)
    assert int(model.optimizer.iterations.value) == 10
    assert audit.verdict == "unjudged"
    assert "warning: nothing is audited, Broken" in capsys.readouterr().err


def test_what_cannot_be_judged_is_told_when_it_first_comes_up(tmp_path, capsys):
    model, audit = iris(), GradientAudit(tmp_path)
    fitted(audit, model)
    model.compile("sgd", lambda y, p: outside(y - p) ** 2)
    fitted(audit, model)
    printed = capsys.readouterr().err
    assert printed.count("cannot judge the gradient of iris/output/kernel") == 1


def test_train_on_batch_goes_on_where_its_step_cannot_be_captured(tmp_path, monkeypatch):
    monkeypatch.setattr("gradaudit.backends.tensorflow.watched_step._copy", broken)
    model, audit = iris(), GradientAudit(tmp_path, verbose=0)
    x, y = NETS["iris"].data["iris"]()
    callbacks = keras.callbacks.CallbackList([audit], model=model)
    callbacks.on_train_begin()
    losses = []
    for step in range(3):
        callbacks.on_train_batch_begin(step)
        losses.append(float(model.train_on_batch(x, y)))
        callbacks.on_train_batch_end(step)
    callbacks.on_train_end()
    assert losses[0] > losses[1] > losses[2]
    run = load(tmp_path)
    assert list(run.steps["verdict"]) == ["unjudged"] * 3
