"""Correct attention over tokens that are alike passes, and a small error in it does not."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import gradaudit
from gradaudit.reference import runs
from suite import by_default

THRESHOLD = 8.0

# Positions of one row share the errors of the values, and these of the output's gradient.
BLOCKS = {
    "mean": {"heads": 8, "width": 32, "shared": 0.3},
    "mean of normalized": {"heads": 2, "width": 32, "shared": 0.9, "norm": True},
    "residual": {"heads": 4, "width": 16, "shared": 0.2, "norm": True, "residual": True},
    "first token": {"heads": 6, "width": 8, "shared": 0.8, "first": True},
    "Adam": {"heads": 7, "width": 16, "shared": 0.05, "optimizer": "adam"},
    "nearly equal": {"heads": 3, "width": 16, "shared": 0.99, "norm": True},
}


def block(
    heads,
    width,
    shared,
    norm=False,
    residual=False,
    first=False,
    optimizer="sgd",
    jit=False,
    seed=3,
):
    keras.utils.set_random_seed(seed)
    given = x = keras.Input((64, 32))
    x = layers.LayerNormalization()(x) if norm else x
    x = layers.MultiHeadAttention(heads, width)(x, x)
    x = layers.Add()([given, x]) if residual else x
    x = x[:, 0] if first else layers.GlobalAveragePooling1D()(x)
    model = keras.Model(given, layers.Dense(5)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=jit)
    rng = np.random.default_rng(seed)
    tokens = shared * rng.normal(size=(1, 1, 32)) + (1 - shared) * rng.normal(size=(4, 64, 32))
    return model, tokens.astype(np.float32), rng.integers(0, 5, 4)


def largest_z(**options):
    run = gradaudit.check(*block(**options))
    assert run.verdict == "pass"
    return run.tensors["max_z"].max()


@pytest.mark.parametrize("name", by_default(BLOCKS, ["first token", "mean of normalized"]))
def test_attention_over_tokens_that_are_alike_passes(name):
    assert largest_z(**BLOCKS[name]) < 6


@pytest.mark.long
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("name", BLOCKS)
def test_it_passes_with_other_weights_and_under_xla(name, seed, jit):
    assert largest_z(**BLOCKS[name], seed=seed, jit=jit) < 6


@pytest.mark.long
def test_without_further_twins_it_comes_near_the_threshold(monkeypatch):
    """What the other tests rest on: these blocks do have correlated errors."""
    monkeypatch.setattr(runs, "refined", lambda estimates, taken, errors: estimates)
    found = [
        gradaudit.check(*block(**options)).tensors["max_z"].max() for options in BLOCKS.values()
    ]
    assert max(found) > THRESHOLD / 2


def tape(model, x, y):
    with tf.GradientTape() as recorded:
        loss = model.loss(y, model(x, training=True))
    return [np.array(g) for g in recorded.gradient(loss, model.trainable_variables)]


FOUND = ["mean", "mean of normalized", "nearly equal"]


@pytest.mark.parametrize("name", by_default(FOUND, ["nearly equal"]))
def test_an_error_of_1e_4_in_a_single_weight_of_it_is_found(name):
    model, x, y = block(**BLOCKS[name])
    gradients = tape(model, x, y)
    paths = [v.path for v in model.trainable_variables]

    def audited():
        return gradaudit.audit_gradients(
            model.loss, model.trainable_variables, gradients, model=model, x=x, y=y
        )

    assert audited().verdict == "pass"
    place = next(i for i, path in enumerate(paths) if path.endswith("value/kernel"))
    index = np.unravel_index(np.argmax(np.abs(gradients[place])), gradients[place].shape)
    gradients[place][index] *= np.float32(1 + 1e-4)
    tensors = audited().tensors.set_index("path")
    assert tensors["verdict"].eq("fail").sum() == 1
    assert tensors.loc[paths[place], "verdict"] == "fail"


OTHERS = {
    f"{name}, {policy}": (name, policy)
    for name in ("mean of normalized", "nearly equal", "residual")
    for policy in ("mixed_bfloat16", "mixed_float16", "float64")
}


@pytest.mark.long
@pytest.mark.parametrize("case", OTHERS)
def test_attention_passes_in_other_precisions(case):
    name, policy = OTHERS[case]
    before = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_floatx("float64" if policy == "float64" else "float32")
    keras.config.set_dtype_policy(policy)
    try:
        assert gradaudit.check(*block(**BLOCKS[name])).verdict == "pass"
    finally:
        keras.config.set_floatx(before[1])
        keras.config.set_dtype_policy(before[0])
