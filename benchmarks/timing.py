"""How much of the time that an audited step takes longer is in the columns of steps.csv.

    python benchmarks/timing.py [ROUNDS]

Trains a multilayer perceptron 784-512-512-10 (batch 128, Adam) and a small convolutional net, each
plainly and with every step audited, in turn. Prints medians over the steps after the second of each
training: the plain step, the audited step, the four columns, and the share of the extra time that
they explain. capture_ms has the training step itself in it, so the plain step is subtracted from
the sum. Exit code 1 where a share is below 90 %.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import sys
import tempfile
import time
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import layers

from gradaudit import GradientAudit, load

STEPS = 10
WARM_UP = 2
LEAST = 0.9
COLUMNS = ["capture_ms", "reference_ms", "compare_ms", "report_ms"]


def mlp() -> tuple[keras.Model, int]:
    """Return a perceptron of 670,000 weights, and its batch size."""
    parts = [layers.Dense(512, "relu"), layers.Dense(512, "relu"), layers.Dense(10, "softmax")]
    return keras.Sequential([keras.Input((784,)), *parts]), 128


def cnn() -> tuple[keras.Model, int]:
    """Return a convolutional net of 9,000 weights, and its batch size."""
    parts = [
        layers.Reshape((28, 28, 1)),
        layers.Conv2D(8, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(16, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(10, "softmax"),
    ]
    return keras.Sequential([keras.Input((784,)), *parts]), 32


class Clock(keras.callbacks.Callback):
    """Notes the time from the end of each step to the end of the next, in milliseconds."""

    def on_train_begin(self, logs: Any = None) -> None:
        """Start."""
        self.steps: list[float] = []
        self._last = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Note the time of a step."""
        now = time.perf_counter()
        self.steps.append((now - self._last) * 1e3)
        self._last = now


def measured(name: str, model: keras.Model, batch: int, rounds: int) -> float:
    """Print the medians of one model; return the share of the extra time that is explained."""
    model.compile("adam", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    x = rng.random((batch * STEPS, 784), np.float32)
    y = rng.integers(0, 10, len(x))
    plain, audited, rows = [], [], []
    for _ in range(rounds):
        clock = Clock()
        model.fit(x, y, batch, verbose=0, callbacks=[clock])
        plain += clock.steps[WARM_UP:]
        with tempfile.TemporaryDirectory() as folder:
            model.fit(x, y, batch, verbose=0, callbacks=[GradientAudit(folder, verbose=0), clock])
            rows.append(load(folder).steps.iloc[WARM_UP:])
        audited += clock.steps[WARM_UP:]
    times = pd.concat(rows)[COLUMNS]
    alone, both = float(np.median(plain)), float(np.median(audited))
    share = (float(times.sum(axis=1).median()) - alone) / (both - alone)
    print(f"{name}: plain step {alone:.1f} ms, audited step {both:.1f} ms")
    print("  " + ", ".join(f"{column} {times[column].median():.1f}" for column in COLUMNS))
    print(f"  they explain {share:.1%} of the extra {both - alone:.1f} ms", flush=True)
    return share


def main(rounds: int) -> int:
    """Measure both nets; return the exit code."""
    shares = [measured(net.__name__, *net(), rounds) for net in (mlp, cnn)]
    return int(min(shares) < LEAST)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3))
