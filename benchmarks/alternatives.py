"""Other ways to check a gradient, on the same step: `python -m benchmarks.alternatives NET`.

All are of one step of the net, on one batch, as medians over REPEATS rounds in which they take
turns:

    judged      a full judgement by gradaudit, sigma="always": reference, σ, twin, verdicts
    bound       the judgement of most steps, by a lower bound of σ
    tape        TensorFlow's own float64 tape, compiled, of the same weights and batch
    eager       the step computed anew without a graph, as a callback of one's own would do it
    differences tf.test.compute_gradient of the loss by all weights (of the net "small" alone)
    gradcheck   torch.autograd.gradcheck of a translation, slow and fast, where torch is installed
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import importlib.util
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.nets import NETS, Net, compiled_net
from gradaudit.audit.single_step import recorded
from gradaudit.reference import Policy, derive
from gradaudit.scoring import compare

REPEATS = 7
SMALL = Net(
    "20-16-4, batch 8",
    lambda: keras.Sequential(
        [keras.Input((20,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(4, "softmax")]
    ),
    lambda rng: (rng.standard_normal((8, 20)).astype(np.float32), rng.integers(0, 4, 8)),
)


def seconds(step: Callable[[], object]) -> float:
    """Return how long something takes."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _tape(net: Net, x: np.ndarray, y: np.ndarray, weights: list[np.ndarray]) -> Callable[[], Any]:
    """Return a compiled float64 tape of a net's loss, for one batch."""
    keras.config.set_floatx("float64")
    try:
        model = net.build()
    finally:
        keras.config.set_floatx("float32")
    for variable, value in zip(model.trainable_variables, weights, strict=True):
        variable.assign(value)
    loss_of = keras.losses.SparseCategoricalCrossentropy(dtype="float64")

    @tf.function
    def gradients(x: tf.Tensor, y: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        return tape.gradient(loss, [v.value for v in model.trainable_variables])

    given = tf.constant(x, tf.float64), tf.constant(y)
    return lambda: [gradient.numpy() for gradient in gradients(*given)]


def _differences(model: keras.Model, x: np.ndarray, y: np.ndarray) -> Callable[[], Any]:
    weights = [v.numpy() for v in model.trainable_variables]

    def loss(*values: tf.Tensor) -> tf.Tensor:
        made = keras.ops.convert_to_tensor(x)
        kernel, bias, last, shift = values
        made = tf.tanh(made @ kernel + bias)
        logits = made @ last + shift
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))

    return lambda: tf.test.compute_gradient(loss, weights)


def _gradcheck(x: np.ndarray, y: np.ndarray, weights: list[np.ndarray], fast: bool) -> Any:
    import torch

    given = [torch.tensor(w, dtype=torch.float64, requires_grad=True) for w in weights]
    rows, labels = torch.tensor(x, dtype=torch.float64), torch.tensor(y)

    def loss(kernel: Any, bias: Any, last: Any, shift: Any) -> Any:
        logits = torch.tanh(rows @ kernel + bias) @ last + shift
        return torch.nn.functional.cross_entropy(logits, labels)

    return lambda: torch.autograd.gradcheck(loss, given, fast_mode=fast)


def measured(name: str) -> dict[str, float]:
    """Return the median time of each way, in milliseconds."""
    net = SMALL if name == "small" else NETS[name]
    model = compiled_net(net)
    x, y = net.batch(np.random.default_rng(0))
    record, spec = recorded(model, x, y)
    weights = [v.numpy() for v in model.trainable_variables]

    def judge(bound: bool) -> Callable[[], Any]:
        policy = Policy(bound=bound)
        return lambda: compare(record, derive(record, spec, policy), 8.0)

    def eager() -> None:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True))
        for gradient in tape.gradient(loss, [v.value for v in model.trainable_variables]):
            gradient.numpy()

    ways: dict[str, Callable[[], Any]] = {"judged": judge(False), "bound": judge(True)}
    ways |= {"tape": _tape(net, x, y, weights), "eager": eager}
    if name == "small":
        ways["differences"] = _differences(model, x, y)
        if importlib.util.find_spec("torch"):
            ways |= {
                "gradcheck": _gradcheck(x, y, weights, fast=False),
                "gradcheck, fast": _gradcheck(x, y, weights, fast=True),
            }
    for way in ways.values():
        way()
    times: dict[str, list[float]] = {each: [] for each in ways}
    for _ in range(REPEATS):
        for each, way in ways.items():
            times[each].append(seconds(way) * 1e3)
    return {each: float(np.median(found)) for each, found in times.items()}


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1])))
