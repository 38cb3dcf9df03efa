"""Masks on their way through models of recurrent layers, against the tape in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradaudit import GradientAudit
from gradaudit.backends.tensorflow import Replay, present_config
from gradaudit.numerics import Plain
from gradaudit.reference.arguments import Tensor
from gradaudit.reference.gaps import layer_gaps
from gradaudit.reference.walk import Walk

TOKENS = np.array([[1, 2, 3, 0], [2, 0, 1, 3], [0, 0, 0, 0], [3, 3, 1, 2]])


def features():
    x = np.random.default_rng(1).standard_normal((4, 4, 3))
    x[TOKENS == 0] = 0.0  # what Masking looks for
    return x


def stack_of_lstms():
    return keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            keras.layers.Embedding(4, 3, mask_zero=True),
            keras.layers.LSTM(3, return_sequences=True),
            keras.layers.LSTM(2, return_sequences=True, go_backwards=True),
            keras.layers.LSTM(2),
            keras.layers.Dense(2),
        ]
    )


def both_directions():
    return keras.Sequential(
        [
            keras.Input((4, 3)),
            keras.layers.Masking(),
            keras.layers.Bidirectional(keras.layers.GRU(2, return_sequences=True)),
            keras.layers.TimeDistributed(keras.layers.Dense(2, activation="tanh")),
        ]
    )


def both_apart():
    inputs = keras.Input((4, 3))
    layer = keras.layers.SimpleRNN(2, return_sequences=True, unroll=True)
    both = keras.layers.Bidirectional(layer, merge_mode=None)
    left, right = both(keras.layers.Masking()(inputs))
    return keras.Model(inputs, [left, keras.layers.LSTM(2)(right)])


def encoder_and_decoder():
    inputs = keras.Input((4, 3))
    masked = keras.layers.Masking()(inputs)
    _, *state = keras.layers.LSTM(2, return_sequences=True, return_state=True)(masked)
    # Given a state, a layer takes no mask from its sequence: Keras looks for `sequences_mask`.
    decoded = keras.layers.LSTM(2, return_sequences=True)(masked, initial_state=state)
    return keras.Model(inputs, decoded)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "build", [stack_of_lstms, both_directions, both_apart, encoder_and_decoder]
)
def test_masks_reach_the_layers_and_outputs_that_they_reach_in_keras(build):
    model = build()
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(rng.standard_normal(variable.shape))
    x = TOKENS if build is stack_of_lstms else features()
    with tf.GradientTape() as tape:
        outputs = tf.nest.flatten(model(x))
        dys = [rng.standard_normal(y.shape) for y in outputs]
        loss = sum(tf.reduce_sum(y * dy) for y, dy in zip(outputs, dys, strict=True))
    expected = tape.gradient(loss, [v.value for v in model.trainable_variables])

    values = {v.path: v.numpy() for v in model.variables}
    walk = Walk(values, Plain(np.float64), Replay(jit=False), config=present_config())
    ys = walk.model(model, [Tensor(x, "int32" if build is stack_of_lstms else "float64")])
    for ours, theirs, dy in zip(ys, outputs, dys, strict=True):
        np.testing.assert_allclose(ours.value, theirs, rtol=1e-12, atol=1e-14)
        mask = getattr(theirs, "_keras_mask", None)
        assert (ours.mask is None) == (mask is None)
        if mask is not None:
            np.testing.assert_array_equal(ours.mask, mask)
        ours.add(dy)
    walk.backward()
    for variable, theirs in zip(model.trainable_variables, expected, strict=True):
        theirs = tf.convert_to_tensor(theirs).numpy()  # an Embedding's comes in slices
        np.testing.assert_allclose(
            walk.cotangents[variable.path], theirs, rtol=1e-11, atol=1e-13, err_msg=variable.path
        )


@pytest.mark.long
@pytest.mark.parametrize("sizes", [4, 3], ids=["one batch", "a smaller last batch"])
def test_a_loss_counts_the_steps_that_the_mask_lets_through(tmp_path, sizes):
    keras.utils.set_random_seed(2)
    model = both_directions()
    model.compile(optimizer="sgd", loss="mean_squared_error")
    audit = GradientAudit(tmp_path, verbose=0)
    y = np.random.default_rng(3).standard_normal((4, 4, 2))
    model.fit(features(), y, batch_size=sizes, epochs=2, verbose=0, callbacks=[audit])
    assert audit.verdict == "pass"


def test_what_is_not_derived_of_recurrent_layers_is_named():
    cell = keras.layers.SimpleRNNCell(2, activation="sigmoid", dropout=0.5, name="cell")
    cell(keras.Input((3,)), [keras.Input((2,))])
    steps = keras.layers.TimeDistributed(keras.layers.Dropout(0.5, name="drop"), name="steps")
    steps(keras.Input((None, 3)))
    unrolled = keras.layers.SimpleRNN(1, activation="sigmoid", unroll=True, name="unrolled")
    stateful = keras.layers.GRU(1, stateful=True, name="stateful")
    layers = (cell, steps, unrolled, stateful)
    gaps = [gap.message for layer in layers for gap in layer_gaps(layer)]
    assert gaps == [
        "the layer 'cell' (SimpleRNNCell) has dropout without an RNN, so that its first masks stay",
        "the layer 'cell' (SimpleRNNCell) has an output that keeps its logits",
        "the layer 'steps' (TimeDistributed) has 'drop', which draws or assigns, in steps of no "
        "given number",
        "the layer 'unrolled' (SimpleRNN) has unroll, which lets losses see the logits of the last "
        "output",
        "the layer 'stateful' (GRU) is stateful, and keeps its state where the audit does not see "
        "it",
    ]
    fixed = keras.layers.TimeDistributed(keras.layers.Dropout(0.5))
    fixed(keras.Input((4, 3)))
    assert layer_gaps(fixed) == []
