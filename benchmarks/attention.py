"""How much longer a float64 reference step of attention takes than TensorFlow's own float64 step.

    python benchmarks/attention.py [PAIRS]

Forward and backward of one MultiHeadAttention, with 8 heads of 32, on 16 sequences of 128 tokens of
256 features: the rule in NumPy, and the layer in a compiled TensorFlow function with its tape. Both
run in turn, and the ratio of each pair is printed: the machine's speed drifts, and ratios of
neighbours do not. On a machine that does other work the ratio of processor times says more.
"""

import statistics
import sys
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from gradaudit.nets.precision import floats
from gradaudit.numerics import Plain
from gradaudit.rules import Case, find_rule
from gradaudit.testing.subjects import Subjects

_SHAPE = (16, 128, 256)


def seconds(function: Callable[[], object]) -> tuple[float, float]:
    """Return how long a call takes by the clock, and of the processor."""
    start, used = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - start, time.process_time() - used


def main(pairs: int) -> None:
    """Print each pair and the median ratio."""
    rule = find_rule(keras.layers.MultiHeadAttention)
    with floats("float64"):
        layer = keras.layers.MultiHeadAttention(8, 32)
        case = Case("", lambda: layer, (_SHAPE, _SHAPE), apply=lambda layer, q, v: layer(q, v))
        found = Subjects().of(rule, case)
        dy = np.random.default_rng(0).standard_normal(_SHAPE)
        query, value = (tf.constant(found.primals[name]) for name in ("x0", "x1"))

        def reference() -> dict[str, np.ndarray]:
            return found.run(rule, Plain(np.float64), found.primals).vjp({"y": dy})

        @tf.function
        def step() -> list[tf.Tensor]:
            with tf.GradientTape() as tape:
                tape.watch([query, value])
                y = layer(query, value)
            sources = [query, value, *(v.value for v in layer.trainable_variables)]
            return tape.gradient(y, sources, tf.constant(dy))

        def framework() -> list[np.ndarray]:
            return [part.numpy() for part in step()]

        reference(), framework()  # compiles, and warms the caches
        ratios, used = [], []
        for _ in range(pairs):
            (ours, our_cpu), (theirs, their_cpu) = seconds(reference), seconds(framework)
            ratios.append(ours / theirs)
            used.append(our_cpu / their_cpu)
            print(
                f"rule {ours:6.3f} s   TensorFlow {theirs:6.3f} s   ratio {ratios[-1]:.2f}"
                f"   processor {our_cpu:6.3f} s and {their_cpu:6.3f} s, ratio {used[-1]:.2f}"
            )
    print(f"median ratio {statistics.median(ratios):.2f}, largest {max(ratios):.2f}")
    print(f"of processor times {statistics.median(used):.2f}, largest {max(used):.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
