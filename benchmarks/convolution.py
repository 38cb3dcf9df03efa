"""How much longer a reference step of a convolution takes than TensorFlow's own float64 step.

    python benchmarks/convolution.py [REPEATS]

Exits with 1 where the median of the plain float64 ratios is above MOST.

A step is y and the cotangents of x, kernel and bias, of Conv2D 3×3, 32 → 64 channels, 32×32
images, batch 32. All are timed in turn: the machine's speed drifts, and ratios of neighbours do
not. "float64" is the plain reference run; "rounded" carries its rounding errors with it. Threads of
OpenBLAS spin while they wait for one another: on a machine that is busy with other work, set
OPENBLAS_NUM_THREADS=1.
"""

import statistics
import sys
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from gradaudit.numerics import Plain, Rounding
from gradaudit.rules import LayerCall, find_rule

MOST = 4.0
"""A plain reference step may take this many times TensorFlow's."""


def seconds(step: Callable[[], object]) -> float:
    """Return how long a step takes."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def main(repeats: int) -> bool:
    """Print the ratios of each repeat and their medians; return whether float64's is good."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((32, 32, 32, 32))
    layer = keras.layers.Conv2D(64, 3, padding="same", dtype="float64")
    layer.build(x.shape)
    dy = rng.standard_normal((32, 32, 32, 64))
    primals = {"kernel": np.asarray(layer.kernel.value), "bias": np.asarray(layer.bias.value)}

    @tf.function
    def tape(x: tf.Tensor, dy: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as recorded:
            recorded.watch(x)
            y = layer(x)
        return [y, *recorded.gradient(y, [x, layer.kernel.value, layer.bias.value], dy)]

    def reference(arithmetic: Plain | Rounding) -> list:
        held = {name: arithmetic.array(value, "float64") for name, value in primals.items()}
        call = LayerCall(layer, held, {}, True, arithmetic, "float64", step=None)
        y, vjp = find_rule(layer).function(call, arithmetic.array(x, "float64"))
        dx, cotangents = vjp(arithmetic.array(dy, "float64"))
        return [y, dx, cotangents["kernel"], cotangents["bias"]]

    tensors = tf.constant(x), tf.constant(dy)
    for ours, theirs in zip(reference(Plain(np.float64)), tape(*tensors), strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-9)
    plain, rounded = [], []
    for _ in range(repeats):
        theirs = seconds(lambda: [part.numpy() for part in tape(*tensors)])
        ours = seconds(lambda: reference(Plain(np.float64)))
        carried = seconds(lambda: reference(Rounding()))
        plain.append(ours / theirs)
        rounded.append(carried / theirs)
        print(
            f"TensorFlow {theirs:6.3f} s   float64 {ours:6.3f} s, ratio {plain[-1]:5.2f}   "
            f"rounded {carried:6.3f} s, ratio {rounded[-1]:5.2f}"
        )
    for name, ratios in (("float64", plain), ("rounded", rounded)):
        print(
            f"{name}: median ratio {statistics.median(ratios):.2f}, "
            f"smallest {min(ratios):.2f}, largest {max(ratios):.2f}"
        )
    return statistics.median(plain) <= MOST


if __name__ == "__main__":
    sys.exit(not main(int(sys.argv[1]) if len(sys.argv) > 1 else 9))
