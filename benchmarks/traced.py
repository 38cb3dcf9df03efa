"""How much longer the audit of a traced model takes than that of its derived twin.

    python benchmarks/traced.py [PAIRS]

Ten layers on 32 rows: as a subclassed model, which is traced, and as a functional model of the same
layers, which has derived rules. Both train for four steps, in turn, each under an audit, and the
ratios of each pair are printed: of the whole fits, in which TensorFlow compiles its steps, and of
the references alone. Exit code 1 where a median is above 3.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import statistics
import sys
import tempfile
import time

import keras
import numpy as np
from keras import layers

from gradaudit import GradientAudit, load

LIMIT = 3.0
WIDTH = 32


def parts() -> list[keras.Layer]:
    """Return ten layers of many kinds, for sequences (N, 16, 32)."""
    return [
        layers.Dense(WIDTH, "relu"),
        layers.LayerNormalization(),
        layers.Conv1D(WIDTH, 3, padding="same", activation="tanh"),
        layers.Dropout(0.1),
        layers.BatchNormalization(),
        layers.LSTM(WIDTH, return_sequences=True),
        layers.Dense(WIDTH, "gelu"),
        layers.GRU(WIDTH, return_sequences=True),
        layers.GlobalAveragePooling1D(),
        layers.Dense(10, "softmax"),
    ]


class Subclassed(keras.Model):
    """The layers one after the other, in a call of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = parts()

    def call(self, x, training=False):
        for part in self.parts:
            x = part(x)
        return x


def seconds(model: keras.Model, x: np.ndarray, y: np.ndarray) -> tuple[float, float, str]:
    """Return how long an audited fit takes, how long its references, and its verdict."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        model.fit(x, y, 32, verbose=0, callbacks=[GradientAudit(folder, verbose=0)])
        run = load(folder)
        return time.perf_counter() - start, run.steps["reference_ms"].sum() / 1e3, run.verdict


def main(pairs: int) -> int:
    """Print each pair and the median ratio."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((128, 16, WIDTH)).astype(np.float32)
    y = np.eye(10)[rng.integers(0, 10, 128)]
    models = [Subclassed(), keras.Sequential([keras.Input(x.shape[1:]), *parts()])]
    fits, references = [], []
    for model in models:
        model.compile("adam", "categorical_crossentropy")
        seconds(model, x, y)
    for _ in range(pairs):
        (traced, own, verdict), (derived, other, right) = (seconds(m, x, y) for m in models)
        fits.append(traced / derived)
        references.append(own / other)
        print(
            f"traced {traced:6.3f} s ({verdict}), references {own:6.3f} s   "
            f"derived {derived:6.3f} s ({right}), {other:6.3f} s   "
            f"ratios {fits[-1]:.2f} and {references[-1]:.2f}"
        )
    medians = [statistics.median(ratios) for ratios in (fits, references)]
    print(f"median ratio of fits {medians[0]:.2f}, of references {medians[1]:.2f}")
    return int(max(medians) > LIMIT)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
