"""Models as people write them: their gradients are judged, and pass."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers, ops

import gradaudit
from suite import by_default

RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 4)).astype(np.float32)
SERIES = RNG.standard_normal((6, 5, 3)).astype(np.float32)
IDS = np.arange(30).reshape(6, 5) * 150 + 7  # up to 4357, which half precisions cannot hold
Y = RNG.standard_normal((6, 1)).astype(np.float32)


def constants_among_tensors():
    h = layers.Dense(3)(inputs := keras.Input((4,)))
    constant = np.linspace(0, 1, 18, dtype=np.float32).reshape(6, 3)
    joined = layers.Concatenate()([layers.Add()([h, constant]), ops.stack([h, constant], 1)[:, 0]])
    return keras.Model(inputs, layers.Dense(1)(joined)), X


def constant_states():
    h = layers.Dense(3)(inputs := keras.Input((5, 3)))
    x = layers.LSTM(2, return_sequences=True)(h, initial_state=[ops.ones((6, 2))] * 2)
    _, state = layers.GRU(2, return_state=True)(x)
    x = layers.GRU(2)(x, initial_state=state + ops.zeros_like(state))
    return keras.Model(inputs, layers.Dense(1)(x)), SERIES


def constant_keys():
    h = layers.Dense(3)(inputs := keras.Input((5, 3)))
    keys = RNG.standard_normal((6, 4, 3)).astype(np.float32)
    x = layers.MultiHeadAttention(2, 2)(layers.Attention()([h, keys]), keys)
    return keras.Model(inputs, layers.Dense(1)(layers.Flatten()(x))), SERIES


def variables_as_operands():
    last = layers.Dense(3)
    h = last(layers.Dense(4)(inputs := keras.Input((4,))))
    return keras.Model(inputs, layers.Dense(1)(ops.multiply(h, last.bias + 1.0) + last.bias)), X


def positions_added():
    embedded = layers.Embedding(4400, 3)(inputs := keras.Input((5,), dtype="int32"))
    positions = layers.Embedding(5, 3)(np.arange(5))[None]
    return keras.Model(inputs, layers.Dense(1)(layers.Flatten()(embedded + positions))), IDS


def fields_of_one_table():
    inputs = keras.Input((5,), dtype="int32")
    embedded = layers.Embedding(4900, 3)(inputs + 100 * np.arange(5))
    return keras.Model(inputs, layers.Dense(1)(layers.Flatten()(embedded))), IDS


def nested_with_two_masked_inputs():
    a, b = keras.Input((5, 3)), keras.Input((5, 3))
    both = layers.Concatenate(axis=1)([a, b])
    inner = keras.Model([a, b], layers.LSTM(2)(both))
    inputs = keras.Input((5, 3))
    masked = layers.Masking()(inputs)
    outer = inner([masked, layers.Dense(3)(inputs)])
    series = SERIES.copy()
    series[:, 3:] = 0
    return keras.Model(inputs, layers.Dense(1)(outer)), series


def more_in_a_dict_than_asked_for():
    inputs = {name: keras.Input((4,), name=name) for name in "ab"}
    x = layers.Dense(3)(inputs["a"]) * layers.Dense(3)(inputs["b"])
    return keras.Model(inputs, layers.Dense(1)(x)), {"a": X, "b": -X}


def pooled_under_a_mask():
    inputs = keras.Input((5,), dtype="int32")
    kept = ops.cast(ops.not_equal(inputs, 7), "float32")[..., None]
    total = ops.sum(layers.Embedding(4400, 3)(inputs) * kept, axis=1)
    return keras.Model(inputs, layers.Dense(1)(total / ops.sum(kept, axis=1))), IDS


def gated():
    gate, value = ops.split(layers.Dense(6)(inputs := keras.Input((4,))), 2, axis=-1)
    return keras.Model(inputs, layers.Dense(1)(ops.sigmoid(gate) * value)), X


MODELS = (
    constants_among_tensors, constant_states, constant_keys, variables_as_operands,
    positions_added, fields_of_one_table, nested_with_two_masked_inputs,
    more_in_a_dict_than_asked_for, pooled_under_a_mask, gated,
)  # fmt: skip


def audited(build):
    keras.utils.set_random_seed(1)
    model, x = build()
    model.compile("sgd", "mse")
    return gradaudit.check(model, x, Y)


def require_judged(run):
    assert run.run["faults"]["count"] == 0, run.run["faults"]["tracebacks"]
    gradients = run.tensors[run.tensors["stage"] == "gradient"]
    assert set(gradients["verdict"]) <= {"pass", "unresolved"}, run.run["unjudged"]
    assert (gradients["verdict"] == "pass").mean() > 0.5
    assert run.steps["loss_z"].max() < 4
    assert run.run["max_z"] < 4


@pytest.mark.filterwarnings("ignore:.*does not support masking:UserWarning")
@pytest.mark.filterwarnings("ignore:The structure of `inputs`:UserWarning")
@pytest.mark.parametrize("build", by_default(MODELS, chosen=MODELS[::2]))
def test_gradients_of_models_as_people_write_them(build):
    require_judged(audited(build))


def ids_as_floats():
    x = layers.Flatten()(layers.Embedding(4400, 3)(inputs := keras.Input((5,))))
    return keras.Model(inputs, layers.Dense(1, dtype="float32")(x)), IDS.astype(np.float32)


def ids_of_no_declared_input():
    return keras.Sequential(
        [layers.Embedding(4400, 3), layers.Flatten(), layers.Dense(1, dtype="float32")]
    ), IDS


def ids_that_are_moved():
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Concatenate()([layers.Reshape((5,))(inputs), layers.Flatten()(inputs)])
    x = layers.Flatten()(layers.Embedding(4400, 3)(layers.Identity()(x)))
    return keras.Model(inputs, layers.Dense(1, dtype="float32")(x)), IDS


def masked_by_a_value():
    series = SERIES.copy()
    series[:, 3:] = 0.1  # which no half precision holds: nothing is masked there, in Keras
    x = layers.LSTM(2)(layers.Masking(0.1)(layers.Identity()(inputs := keras.Input((5, 3)))))
    return keras.Model(inputs, layers.Dense(1, dtype="float32")(x)), series


@pytest.mark.parametrize(
    ("build", "policy"),
    by_default(
        itertools.product(
            [ids_as_floats, ids_of_no_declared_input, ids_that_are_moved, masked_by_a_value],
            ["mixed_float16", "mixed_bfloat16", "float64"],
        ),
        chosen=[
            (ids_as_floats, "float64"),
            (ids_of_no_declared_input, "mixed_float16"),
            (ids_that_are_moved, "mixed_bfloat16"),
            (masked_by_a_value, "mixed_bfloat16"),
        ],
    ),
)
def test_integers_and_masks_in_other_precisions(build, policy):
    keras.config.set_dtype_policy(policy)
    if policy == "float64":
        keras.config.set_floatx("float64")
    require_judged(audited(build))


def whole_scores():
    h = layers.Dense(2)(inputs := keras.Input((5, 3)))
    _, scores = layers.Attention()([h, h], return_attention_scores=True)
    return keras.Model(inputs, scores), SERIES


def spectral_sigmoid():
    x = layers.Dense(3)(inputs := keras.Input((4,)))
    wrapped = layers.SpectralNormalization(layers.Dense(1, activation="sigmoid"))
    return keras.Model(inputs, wrapped(x)), X


@pytest.mark.parametrize("build", [whole_scores, spectral_sigmoid])
def test_logits_that_a_rule_does_not_hand_on_are_traced(build):
    keras.utils.set_random_seed(1)
    model, x = build()
    model.compile("sgd", "binary_crossentropy")
    y = RNG.integers(0, 2, (6, *model.output_shape[1:]))
    run = gradaudit.check(model, x, y)
    assert run.verdict == "pass"
    assert set(run.tensors.query("stage == 'gradient'")["oracle"]) == {"traced"}


def test_a_layer_as_an_activation_is_traced():
    dense = layers.Dense(4, activation=layers.LeakyReLU(0.1, name="leaky"), name="d")
    model = keras.Sequential([keras.Input((4,)), dense, layers.Dense(1)])
    model.compile("sgd", "mse")
    run = gradaudit.check(model, X, Y)
    assert run.verdict == "pass"
    oracles = run.tensors.query("stage == 'gradient'").set_index("path")["oracle"]
    assert oracles.str.cat(sep=" ") == "traced traced derived derived"
