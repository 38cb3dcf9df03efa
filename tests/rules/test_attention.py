"""Attention in models: the masks that reach it, those it leaves, and the bias without gradient."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras.src.backend import get_keras_mask  # not exported

from gradaudit import GradientAudit, load
from gradaudit.backends.tensorflow import Replay, present_config
from gradaudit.numerics import Plain
from gradaudit.reference.arguments import Tensor
from gradaudit.reference.walk import Walk


def masked(shape):
    given = keras.Input(shape)
    return given, layers.Dense(4)(given), layers.Masking()(given)


def padding_in_self_attention():
    given, _, h = masked((5, 3))
    return given, layers.MultiHeadAttention(2, 3)(h, h)


def a_second_attention_to_the_same_memory_sees_no_mask():
    given, dense, memory = masked((5, 3))
    first = layers.MultiHeadAttention(2, 3)(dense, memory)
    return given, layers.MultiHeadAttention(2, 3)(first, memory)


def a_residual_loses_its_mask_and_groups_keep_theirs():
    given, _, h = masked((5, 3))
    kept = layers.GroupQueryAttention(3, 4, 2)(h, h)
    again = layers.GroupQueryAttention(3, 4, 2, use_gate=True)(kept, h)
    h = layers.Add()([h, layers.MultiHeadAttention(2, 3)(h, again)])
    return given, layers.Attention(use_scale=True)([h, again, kept])


def scores_have_the_mask_of_their_softmax():
    given, _, h = masked((5, 3))
    asked = {"return_attention_scores": True, "use_causal_mask": True}
    y, scores = layers.MultiHeadAttention(2, 3, sliding_window=2)(h, h, **asked)
    again, groups = layers.GroupQueryAttention(3, 4, 2)(y, y, **asked)
    return given, [y, scores, again, groups]


def one_mask_for_all_samples():
    given, _, h = masked((5, 3))
    lower = np.tril(np.ones((5, 5), bool))
    seen = layers.MultiHeadAttention(2, 3)(h, h, attention_mask=lower)
    return given, layers.GroupQueryAttention(3, 4, 2)(seen, seen, attention_mask=lower[::-1])


@pytest.mark.usefixtures("float64")
@pytest.mark.filterwarnings("ignore:.*does not support masking")  # GroupQueryAttention's parts
@pytest.mark.parametrize(
    "build",
    [
        padding_in_self_attention,
        a_second_attention_to_the_same_memory_sees_no_mask,
        a_residual_loses_its_mask_and_groups_keep_theirs,
        scores_have_the_mask_of_their_softmax,
        one_mask_for_all_samples,
    ],
)
def test_masks_go_as_they_go_in_keras(build):
    model = keras.Model(*build())
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(rng.standard_normal(variable.shape))
    x = rng.standard_normal((4, 5, 3))
    x[1:, 3:] = x[2, 1] = 0.0
    with tf.GradientTape() as tape:
        ys = tf.nest.flatten(model(x))
        dys = [rng.standard_normal(y.shape) for y in ys]
        loss = sum(tf.reduce_sum(y * dy) for y, dy in zip(ys, dys, strict=True))
    expected = tape.gradient(
        loss, [v.value for v in model.trainable_variables], unconnected_gradients="zero"
    )

    walk = Walk(
        {v.path: v.numpy() for v in model.variables},
        Plain(np.float64),
        Replay(jit=False),
        config=present_config(),
    )
    found = walk.model(model, [Tensor(x, "float64")])
    for ours, y, dy in zip(found, ys, dys, strict=True):
        np.testing.assert_allclose(ours.value, y, rtol=1e-11, atol=1e-13)
        theirs = get_keras_mask(y)
        assert (ours.mask is None) == (theirs is None)
        if theirs is not None:
            np.testing.assert_array_equal(ours.mask, theirs)
        ours.add(dy)
    walk.backward()
    for variable, gradient in zip(model.trainable_variables, expected, strict=True):
        found = walk.cotangents.get(variable.path, 0.0)
        np.testing.assert_allclose(found, gradient, rtol=1e-10, atol=1e-11, err_msg=variable.path)


def test_the_gradient_of_a_key_bias_is_zero_and_stays_unresolved(tmp_path):
    given = keras.Input((6, 4))
    h = layers.Dense(8)(given)
    h = layers.MultiHeadAttention(2, 4, name="attention")(h, h, use_causal_mask=True)
    model = keras.Model(given, layers.Dense(1)(h))
    model.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((16, 6, 4)), rng.standard_normal((16, 6, 1))
    audit = GradientAudit(tmp_path / "run", verbose=0)
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[audit])
    assert audit.verdict == "pass"
    tensors = load(tmp_path / "run").tensors
    gradients = tensors[tensors.stage == "gradient"]
    unresolved = gradients[gradients.verdict == "unresolved"]
    assert set(unresolved.path) == {"attention/key/bias"}
    assert len(unresolved) == 4
