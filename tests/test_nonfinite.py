"""NaN and infinity in real steps: a failure, with the op, the layer, the line and the row."""

import json
import re
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import gradaudit
from gradaudit import GradientAudit, cli, load
from gradaudit.errors import AuditFailure
from suite import by_default

ROWS = 6
RNG = np.random.default_rng(0)
X = RNG.standard_normal((ROWS, 4)).astype(np.float32)
Y = RNG.standard_normal((ROWS, 1)).astype(np.float32)


def identity(**options):
    return keras.layers.Dense(
        4, use_bias=False, kernel_initializer="identity", name="first", **options
    )


def net(function, last=True, **options):
    """Return a net with a function in the layer `middle`."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((4,)), identity(), keras.layers.Lambda(function, name="middle")]
    layers += [keras.layers.Dense(1, name="last", dtype="float32")] if last else []
    model = keras.Sequential(layers)
    model.compile(**{"optimizer": "sgd", "loss": "mse", **options})
    return model


def with_row(x, row, value):
    x = x.copy()
    x[row] = value
    return x


def norm(z):
    return z - tf.norm(z, axis=-1, keepdims=True)


def softplus(z):
    return tf.math.log(1 + tf.exp(z))


def masked(z):
    z = tf.where(z > -9, z, -np.inf)
    return tf.nn.softmax(z)


def one_pass(z):
    mean = tf.reduce_mean(z, -1, keepdims=True)
    return (z - mean) * tf.math.rsqrt(tf.reduce_mean(z * z, -1, keepdims=True) - mean * mean + 1e-3)


def angle(y, p):
    return tf.reduce_mean(tf.acos(tf.clip_by_value(p[:, 0], -1.0, 1.0)))


def focal(y, p):
    return tf.reduce_mean(tf.pow(tf.nn.relu(p), 0.5))


def entropy(y, p):
    return tf.reduce_mean(-tf.math.log(tf.nn.relu(p)))


def slices(z):
    return tf.map_fn(lambda row: tf.math.log(row), z)


@tf.custom_gradient
def broken(z):
    return tf.tanh(z), lambda dy: dy / 0.0


FAULTS = {
    # name: (model, x with the fault, x without, words of the cause)
    "the norm of a zero vector": (
        lambda: net(norm),
        with_row(X, 2, 0.0),
        X,
        ["the derivative of Sqrt(0) is infinite", "the layer 'middle'", "row 2"],
    ),
    "an overflow": (
        lambda: net(softplus),
        with_row(X, 1, [0, 0, 120, 0]),
        X,
        ["Exp(120) is infinite in float32", "the layer 'middle'", "row 1, at [2]"],
    ),
    "keys that are all masked by -inf": (
        lambda: net(masked),
        with_row(X, 3, -99.0),
        with_row(X, 3, [-99.0, 1, 1, 1]),
        ["Softmax(-inf) is NaN", "the layer 'middle'", "row 3"],
    ),
    "a variance below 0": (
        lambda: net(one_pass),
        X + 3000,
        X,
        ["Rsqrt", "the layer 'middle'"],
    ),
    "a function of rows in a loop": (
        lambda: net(slices),
        with_row(np.abs(X) + 1, 4, [1, 1, 0, 1]),
        np.abs(X) + 1,
        ["Log(0) is infinite", "the layer 'middle'"],
    ),
    "acos of 1 in the loss": (
        lambda: net(tf.identity, last=False, loss=angle),
        with_row(X / 9, 5, [1, 0, 0, 0]),
        X / 9,
        ["the derivative of Acos(1) is infinite", "the loss 'angle'", "row 5"],
    ),
    "a power below 1 of 0 in the loss": (
        lambda: net(tf.identity, last=False, loss=focal),
        with_row(np.abs(X) + 1, 0, [1, 0, 1, 1]),
        np.abs(X) + 1,
        ["the derivative of Pow(0, 0.5) is infinite", "the loss 'focal'", "row 0"],
    ),
    "log of 0 in the loss": (
        lambda: net(tf.identity, last=False, loss=entropy),
        with_row(np.abs(X) + 1, 0, [1, 0, 1, 1]),
        np.abs(X) + 1,
        ["Log(0) is infinite", "the loss 'entropy'", "row 0"],
    ),
    "NaN in the batch": (
        lambda: net(tf.nn.relu6),
        with_row(X, 3, [0, np.nan, 0, 0]),
        X,
        ["x is NaN at row 3, column 1"],
    ),
    "a column of infinities": (
        lambda: net(tf.tanh),
        np.where(np.arange(4) == 2, np.inf, X).astype(np.float32),
        X,
        ["x is infinite in column 2, in every row"],
    ),
}


def check(build, x, y=None):
    model = build()
    if y is None:
        y = np.ones((len(x), *model.output_shape[1:]), np.float32)
    return gradaudit.check(model, x, y)


SOME = (
    "the norm of a zero vector",
    "an overflow",
    "keys that are all masked by -inf",
    "a function of rows in a loop",
    "acos of 1 in the loss",
    "NaN in the batch",
)


@pytest.mark.parametrize("name", by_default(FAULTS, SOME))
def test_a_step_that_is_not_finite_fails_with_the_first_cause(name):
    build, faulty, healthy, words = FAULTS[name]
    run = check(build, faulty)
    assert run.verdict == "nonfinite"
    causes = set(run.tensors.loc[run.tensors["verdict"] == "nonfinite", "cause"])
    for word in words:
        assert all(word in cause for cause in causes), causes
    if "row" not in words[-1] or "layer" in "".join(words) or "loss" in "".join(words):
        assert all(
            re.search(r"test_nonfinite\.py:\d+", cause) for cause in causes if "x is" not in cause
        )
    with pytest.raises(AuditFailure, match=r"nonfinite: step 0: .* not finite: "):
        run.raise_for_failure(allow_unjudged=True)
    assert check(build, healthy).verdict == "pass"


def test_a_target_and_a_sample_weight_are_named_by_their_part_of_the_batch():
    inputs = {"a": keras.Input((4,), name="a")}
    model = keras.Model(inputs, {"o": keras.layers.Dense(1, name="o")(inputs["a"])})
    model.compile("sgd", "mse")
    run = gradaudit.check(model, {"a": X}, {"o": with_row(Y, 4, np.nan)})
    assert "y['o'] is NaN at row 4, column 0" in run.tensors["cause"][0]
    weights = np.ones(ROWS, np.float32)
    weights[1] = np.inf
    run = gradaudit.check(model, {"a": X}, {"o": Y}, weights)
    assert "sample_weight is infinite at row 1" in run.tensors["cause"][0]


def test_a_gradient_of_ones_own_that_is_not_finite_is_named():
    run = check(lambda: net(broken), X)
    assert run.verdict == "nonfinite"
    cause = run.tensors.set_index("path")["cause"].filter(like="first").iloc[0]
    assert "no op makes it when the step is replayed" in cause
    assert "the custom gradient of 'broken'" in cause
    assert check(lambda: net(tf.tanh), X).verdict == "pass"


def test_a_wrong_gradient_is_not_hidden_by_finite_parts():
    run = check(lambda: net(norm), with_row(X, 2, 0.0))
    last = run.tensors[run.tensors["path"].str.contains("last")]
    assert set(last["verdict"]) == {"pass"}


def test_an_epsilon_that_a_half_precision_holds_as_0_is_named():
    def build():
        keras.mixed_precision.set_global_policy("mixed_float16")
        return net(lambda z: z / tf.sqrt(tf.reduce_mean(z * z, -1, keepdims=True) + 1e-9))

    run = check(build, with_row(X, 2, 0.0))
    assert run.verdict == "nonfinite"
    cause = run.tensors["cause"][0]
    assert "RealDiv(0, 0) is NaN" in cause
    assert re.search(r"the constant of AddV2 at \S+test_nonfinite\.py.* is 0 in float16", cause)


def fitted(folder, x=X, y=Y, **options):
    """Train one Dense layer on batches of two rows; return audit, run and history."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="d")])
    model.compile(options.pop("optimizer", "sgd"), "mse")
    audit = GradientAudit(folder, **options)
    history = model.fit(x, y, batch_size=2, epochs=1, verbose=0, shuffle=False, callbacks=[audit])
    return audit, load(folder), history


def test_the_console_and_run_json_tell_it_at_the_first_step(tmp_path, capsys):
    audit, run, _ = fitted(tmp_path, with_row(X, 3, np.nan))
    err = capsys.readouterr().err
    said = "step 1: the loss, 2 gradients and 2 updates are not finite: x is NaN at row 1, column 0"
    assert f"gradaudit: FAIL {said} and at 3 more of 8 places" in err
    assert "gradaudit: NONFINITE, 3 steps audited" in err
    assert audit.verdict == run.verdict == "nonfinite"
    assert run.steps["verdict"].tolist() == ["pass", "nonfinite", "nonfinite"]
    assert run.run["failures"][0].startswith(said)
    assert run.run["failed"] == 10
    third = run.tensors[(run.tensors["step"] == 2) & (run.tensors["stage"] == "gradient")]
    assert third["cause"].str.contains("is NaN before the step").all()


@pytest.mark.filterwarnings("ignore:.*match.*")
def test_on_fail_stops_or_raises_at_the_first_step_that_is_not_finite(tmp_path):
    _, run, _ = fitted(tmp_path / "stop", with_row(X, 3, np.nan), on_fail="stop", verbose=0)
    assert run.steps["step"].tolist() == [0, 1]
    with pytest.raises(AuditFailure, match=r"step 1: the loss, .* are not finite: x is NaN"):
        fitted(tmp_path / "raise", with_row(X, 3, np.nan), on_fail="raise", verbose=0)
    _, run, _ = fitted(tmp_path / "healthy", on_fail="stop", verbose=0)
    assert run.steps["step"].tolist() == [0, 1, 2]


def test_an_update_that_overflows_names_the_learning_rate(tmp_path):
    optimizer = keras.optimizers.SGD(3e38)
    _, run, _ = fitted(tmp_path, 9 * X, optimizer=optimizer, verbose=0)
    first = run.tensors[run.tensors["step"] == 0]
    assert set(first.loc[first["stage"] == "gradient", "verdict"]) == {"pass"}
    kernel = first[(first["stage"] == "update") & first["path"].str.endswith("d/kernel")].iloc[0]
    assert kernel["verdict"] == "nonfinite"
    assert "the learning rate is 3e+38" in kernel["cause"]


def test_the_exit_code_is_that_of_a_failure(in_an_empty_folder, monkeypatch, capfd):
    arguments = ["run", "--model", "iris", "--epochs", "1", "--learning-rate", "1e38", "--json"]
    monkeypatch.setattr(sys, "argv", ["gradaudit", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert json.loads(capfd.readouterr().out)["verdict"] == "nonfinite"


def scaled_steps(folder, function, factor, steps=2):
    keras.mixed_precision.set_global_policy("mixed_float16")
    model = net(function, loss=lambda y, p: tf.reduce_mean((y - p) ** 2) * factor, optimizer="sgd")
    audit = GradientAudit(folder, verbose=0)
    model.fit(X, 20 * Y, batch_size=ROWS, epochs=steps, verbose=0, callbacks=[audit])
    return load(folder)


def test_a_gradient_that_is_too_large_without_a_scale_is_skipped_until_it_is_below_1(tmp_path):
    run = scaled_steps(tmp_path, tf.tanh, 1e7)
    before = run.tensors.query("stage == 'gradient'").set_index("path").filter(like="first", axis=0)
    assert set(before["verdict"]) == {"unresolved"}
    assert before["cause"].str.contains("rightly skips the step").all()
    assert run.run["failed"] == 0


@pytest.mark.long
def test_no_loss_scale_excuses_what_is_nan_under_each(tmp_path):
    """A logarithm in the branch that is not taken: TensorFlow's gradient is 0 · ∞ there."""
    run = scaled_steps(
        tmp_path, lambda z: tf.where(z > 0, tf.math.log(tf.nn.relu(z)), tf.zeros_like(z)), 1.0
    )
    assert run.verdict == "nonfinite"
    bad = run.tensors[run.tensors["verdict"] == "nonfinite"]
    assert bad["path"].str.endswith("first/kernel").all()
    assert bad["cause"].str.contains("Log.* and 0 times that is NaN").all()


@pytest.mark.long
def test_no_loss_scale_excuses_a_slope_that_is_infinite_for_every_cotangent(tmp_path):
    """A scale at which the cotangent vanishes in float16 does not make its product finite."""
    keras.mixed_precision.set_global_policy("mixed_float16")
    norm = net(lambda z: tf.sqrt(tf.reduce_sum(z**2, -1, keepdims=True)))
    audit = GradientAudit(tmp_path, verbose=0)
    norm.fit(with_row(X, 2, 0.0), Y, batch_size=ROWS, verbose=0, callbacks=[audit])
    assert load(tmp_path).verdict == "nonfinite"


@pytest.mark.parametrize("factor", by_default([np.nan, 1e4], [1e4]))
def test_no_loss_scale_excuses_a_gradient_of_one_s_own_that_alone_is_too_large(tmp_path, factor):
    @tf.custom_gradient
    def by_hand(z):
        return tf.tanh(z), lambda dy: dy * tf.cast(factor, z.dtype)

    run = scaled_steps(tmp_path, by_hand, 0.01)
    first = run.tensors.query("stage == 'gradient' and step == 0").set_index("path")
    assert first.filter(like="first", axis=0)["verdict"].tolist() == ["nonfinite"]


def test_an_overflow_beside_a_slope_that_is_not_finite_is_excused(tmp_path):
    """TensorFlow's gradient of a square root is 0 where the cotangent is."""
    run = scaled_steps(tmp_path, lambda z: tf.where(z > 0, tf.sqrt(z), tf.zeros_like(z)), 1.0)
    assert run.run["failed"] == 0
    assert run.tensors["cause"].str.contains("rightly skips the step").any()


def test_a_step_that_loss_scaling_skips_is_no_failure(tmp_path):
    run = scaled_steps(tmp_path, tf.tanh, 1e3, steps=12)
    skipped = run.tensors[run.tensors["cause"].str.contains("rightly skips the step")]
    assert 0 in set(skipped["step"])
    assert set(skipped["verdict"]) == {"unresolved"}
    assert "the loss is scaled by 32768" in skipped["cause"].iloc[0]
    assert run.verdict == "pass"
    assert run.run["failed"] == 0


def test_a_constant_of_bfloat16_without_axes_is_held():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    model = net(lambda z: z * tf.cast(0.5, z.dtype) / keras.ops.sqrt(tf.cast(4, z.dtype)))
    assert gradaudit.check(model, X, Y).verdict == "pass"
