"""z on correct attention over tokens that are alike, and errors of 1e-4 planted in it.

    python benchmarks/attention_blocks.py [FIRST LAST]

Draws attention blocks by their numbers FIRST to LAST − 1, by default 0 to 199: 4 to 64 tokens that
share a part of 0 to 99 %, 1 to 8 heads, with and without a residual, layer normalization before,
after or none, the mean of the tokens or a class token, graph or XLA, Adam or SGD. Each is trained
for two steps under an audit; a line tells those with a z above half the threshold, or a failure.

In every fourth block one gradient of a compiled tape is multiplied by 1 + 1e-4 in a single weight,
and `audit_gradients` is given these gradients. The weight is one of those in which the audit of
the right gradients says that such an error is above twice the threshold: a gradient that is zero,
such as that of a key's bias, shows none. A line tells those that were not found.

200 blocks take about 15 minutes on two cores, most of it in XLA. Exits with 1 for a failure, a z of
6 or more, or a planted error that is not found.
"""

import os
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

import gradaudit
from gradaudit import GradientAudit, load
from gradaudit.report import Run

ERROR, THRESHOLD, LARGEST = 1e-4, 8.0, 6.0


class ClassToken(layers.Layer):
    """Puts a learned token in front of the others."""

    def build(self, shape):
        self.token = self.add_weight(
            shape=(1, 1, shape[-1]), initializer="random_normal", name="token"
        )

    def call(self, x):
        first = ops.broadcast_to(self.token, (ops.shape(x)[0], 1, x.shape[-1]))
        return ops.concatenate([first, x], axis=1)


def block(number: int) -> tuple[keras.Model, np.ndarray, np.ndarray, str]:
    """Return a compiled model, two batches as x and y, and what the block is like."""
    rng = np.random.default_rng(number)
    keras.backend.clear_session()
    keras.utils.set_random_seed(number)
    heads, width = int(rng.integers(1, 9)), int(rng.choice([4, 8, 16, 32]))
    features, tokens = int(rng.choice([8, 16, 32, 48])), int(rng.choice([4, 16, 32, 64]))
    rows, classes = int(rng.choice([2, 4, 16])), int(rng.integers(2, 11))
    shared = float(rng.uniform(0, 0.99))
    residual, has_class_token, jit = (bool(rng.integers(2)) for _ in range(3))
    norm, optimizer = str(rng.choice(["before", "after", "none"])), str(rng.choice(["sgd", "adam"]))

    x = keras.Input((tokens, features))
    given = ClassToken()(x) if has_class_token else x
    h = layers.LayerNormalization(epsilon=1e-5)(given) if norm == "before" else given
    h = layers.MultiHeadAttention(heads, width)(h, h)
    h = layers.Add()([given, h]) if residual else h
    h = layers.LayerNormalization(epsilon=1e-5)(h) if norm == "after" else h
    h = h[:, 0] if has_class_token else layers.GlobalAveragePooling1D()(h)
    model = keras.Model(x, layers.Dense(classes)(h))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=jit)

    common, own = rng.normal(size=(1, 1, features)), rng.normal(size=(2 * rows, tokens, features))
    batch = (shared * common + (1 - shared) * own).astype(np.float32)
    words = (
        f"{heads} heads of {width}, {tokens} tokens of {features}, {rows} rows, "
        f"{shared:.0%} shared, residual {residual}, class token {has_class_token}, "
        f"norm {norm}, {optimizer}, {'XLA' if jit else 'graph'}"
    )
    return model, batch, rng.integers(0, classes, 2 * rows), words


def audited(model: keras.Model, x: np.ndarray, y: np.ndarray) -> Run:
    """Return the report of two audited steps of training."""
    with tempfile.TemporaryDirectory() as folder:
        audit = GradientAudit(folder, verbose=0, sigma="always")
        model.fit(x, y, batch_size=len(x) // 2, shuffle=False, verbose=0, callbacks=[audit])
        return load(folder)


def planted(
    model: keras.Model, x: np.ndarray, y: np.ndarray, number: int
) -> tuple[float, float, str, float]:
    """Plant an error in a single weight's gradient.

    Returns the largest z without it, that of the weight with it, where it is, and in how many of
    the weights it is above twice the threshold.
    """
    loss_fn, weights = model.loss, model.trainable_variables

    @tf.function(jit_compile=model.jit_compile)
    def gradients() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = loss_fn(y, model(x, training=True))
        return tape.gradient(loss, weights)

    given = [np.array(gradient) for gradient in gradients()]
    by_path = {v.path: gradient for v, gradient in zip(weights, given, strict=True)}

    def found() -> Run:
        return gradaudit.audit_gradients(loss_fn, weights, given, model=model, x=x, y=y)

    right = found()
    table = right.weights
    visible = table[ERROR * table["reference"].abs() > 2 * THRESHOLD * table["sigma"]]
    weight = visible.sample(1, random_state=number).iloc[0]
    index = tuple(int(i) for i in str(weight["index"]).split(","))
    by_path[weight["path"]][index] *= np.float32(1 + ERROR)
    table = found().weights
    there = table[(table["path"] == weight["path"]) & (table["index"] == weight["index"])]
    where, share = f"{weight['path']}[{weight['index']}]", len(visible) / len(right.weights)
    return right.weights["z"].max(), float(there["z"].iloc[0]), where, share


def main(first: int, last: int) -> int:
    """Print what is above half the threshold or fails, what is missed, and a summary."""
    tf.get_logger().setLevel("ERROR")  # each block is compiled anew, and it would warn of that
    fails, missed, errors, largest, shares = 0, 0, 0, 0.0, []
    for number in range(first, last):
        model, x, y, words = block(number)
        if number % 4 == 0:
            before, z, where, share = planted(model, x, y, number)
            errors, missed = errors + 1, missed + (z <= THRESHOLD)
            largest = max(largest, before)
            shares.append(share)
            if z <= THRESHOLD:
                print(f"{number}: an error in {where} was not found, z {z:.2f}; {words}")
        run = audited(model, x, y)
        worst = run.tensors.loc[run.tensors["max_z"].idxmax()]
        largest = max(largest, worst["max_z"])
        fails += run.verdict != "pass"
        if run.verdict != "pass" or worst["max_z"] > THRESHOLD / 2:
            where = f"{worst['stage']} of {worst['path']}"
            print(f"{number}: {run.verdict}, z {worst['max_z']:.2f}, {where}; {words}", flush=True)
    print(f"blocks {first} to {last - 1}: {fails} not passed, largest z {largest:.2f}")
    if errors:
        share = float(np.mean(shares))
        print(
            f"{errors} errors of {ERROR:g} planted, {errors - missed} found; they can be seen in "
            f"{share:.0%} of the weights"
        )
    return int(fails > 0 or largest >= LARGEST or missed > 0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3])) if len(sys.argv) > 1 else main(0, 200))
