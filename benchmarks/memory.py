"""Memory of an audit: a net of 10 million weights, trained with Adam, with and without it.

Usage: python benchmarks/memory.py. Each training runs in a process of its own; printed is the
largest resident memory of each, and the difference.
"""

import resource
import subprocess
import sys
import tempfile

WIDTHS = (1024, 2048, 2048, 1800, 10)
STEPS, EVERY, BATCH = 201, 100, 64


def train(audited: bool) -> None:
    """Train, and print the largest resident memory in MiB and the number of weights."""
    import keras
    import numpy as np

    from gradaudit import GradientAudit, load

    keras.utils.set_random_seed(0)
    first, *hidden, last = WIDTHS
    layers = [keras.layers.Dense(width, "relu") for width in hidden]
    model = keras.Sequential([keras.Input((first,)), *layers, keras.layers.Dense(last, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((STEPS * BATCH, first)).astype(np.float32)
    y = rng.integers(0, last, len(x))
    with tempfile.TemporaryDirectory() as folder:
        callbacks = [GradientAudit(folder, every=EVERY)] if audited else []
        model.fit(x, y, batch_size=BATCH, verbose=0, callbacks=callbacks)
        if audited:
            run = load(folder)
            print(run.verdict, len(run.steps), run.run["overhead"], file=sys.stderr)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(peak, model.count_params())


def main() -> None:
    """Run both trainings and compare them."""
    peaks = []
    for mode in ("plain", "audited"):
        command = [sys.executable, __file__, mode]
        peak, weights = subprocess.run(command, check=True, stdout=-1, text=True).stdout.split()
        peaks.append(float(peak))
        print(f"{mode}: {float(peak):.0f} MiB at most, {int(weights):,} weights")
    print(f"the audit adds {peaks[1] - peaks[0]:.0f} MiB")


if __name__ == "__main__":
    train(sys.argv[1] == "audited") if len(sys.argv) > 1 else main()
