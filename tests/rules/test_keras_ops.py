import itertools

import keras
import numpy as np
import pytest
from keras import ops

from gradaudit import GradientAudit
from gradaudit.report import load
from suite import by_default

RNG = np.random.default_rng(0)
ROWS = 12
WEIGHT = RNG.standard_normal((4, 3)).astype(np.float32)


def _elementwise(x):
    a, b = keras.layers.Dense(4)(x), keras.layers.Dense(4)(x)
    positive = ops.square(a) + 0.5
    parts = [
        a + b, 2 - a, a - 1, -b, a * b, 3.0 * a, a / positive, 1 / positive, abs(b), positive**0.5,
        ops.sqrt(positive), ops.rsqrt(positive), ops.exp(a), ops.expm1(b), ops.log(positive),
        ops.log1p(positive), ops.tanh(a), ops.clip(a, -0.5, 0.5), ops.maximum(a, b),
        ops.minimum(a, 0.3), ops.maximum(b, 0), ops.power(positive, b), ops.reciprocal(positive),
    ]  # fmt: skip
    return ops.concatenate(parts, axis=-1)


def _moving(x):
    a = ops.reshape(keras.layers.Dense(12)(x), (-1, 3, 4))
    b = ops.transpose(a, (0, 2, 1))
    product = a @ b
    parts = [
        product, a @ WEIGHT, ops.einsum("abc,acd->abd", a, b), a[:, :, 1:], a[:, ::-1, :3],
        ops.flip(a, 1), ops.stack([a[:, 0], a[:, 1]], axis=-1)[:, :3],
        ops.expand_dims(a[:, :, -1], -1), ops.squeeze(a[:, :, :1], -1)[:, :, None],
        ops.moveaxis(b, 1, -1),
    ]  # fmt: skip
    return ops.concatenate(parts, axis=2)


def _reduced(x):
    a = ops.reshape(keras.layers.Dense(12)(x), (-1, 3, 4))
    parts = [
        ops.sum(a, axis=1), ops.mean(a, axis=-1), ops.max(a, axis=(1, 2), keepdims=True)[:, 0],
        ops.min(a, axis=1), ops.max(ops.relu(a), axis=2),
    ]  # fmt: skip
    return ops.concatenate(parts, axis=-1)


def _activated(x):
    a = keras.layers.Dense(4)(x)
    parts = [
        ops.relu(a), ops.sigmoid(a), ops.softmax(a), ops.log_softmax(a), ops.gelu(a),
        ops.gelu(a, approximate=False), ops.silu(a), ops.elu(a), ops.leaky_relu(a, 0.1),
        ops.softplus(a), keras.activations.relu(a, max_value=1.5), ops.glu(a), ops.relu6(a),
        ops.sparsemax(0.2 * ops.relu(a)),  # zeros of a ReLU are equal, without doubt
    ]  # fmt: skip
    return ops.concatenate(parts, axis=-1)


@pytest.mark.parametrize(
    ("make", "jit"),
    by_default(
        itertools.product([_elementwise, _moving, _reduced, _activated], [False, True]),
        chosen=[(_elementwise, False), (_reduced, False)],
    ),
)
def test_a_model_of_operations_passes(make, jit, tmp_path):
    keras.utils.set_random_seed(3)
    inputs = keras.Input((5,))
    outputs = keras.layers.Dense(2)(keras.layers.Flatten()(make(inputs)))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse", jit_compile=jit)
    audit = GradientAudit(tmp_path, verbose=0)
    x, y = RNG.standard_normal((ROWS, 5)), RNG.standard_normal((ROWS, 2))
    model.fit(x, y, batch_size=6, epochs=1, verbose=0, callbacks=[audit])
    run = load(tmp_path).run
    assert audit.verdict == "pass", run["failures"] or run["unjudged"] or run["faults"]
    assert audit.max_z < 4
