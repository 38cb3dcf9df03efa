"""How the cost of an audit grows: `python -m benchmarks.growth WHAT` prints it as JSON.

WHAT: weights, batch or depth of a perceptron, as the ratio of an audited step and a plain one; or
steps, as the memory over 20,000 audited steps of the net iris.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.cost import Fits
from benchmarks.nets import NETS, Net, compiled_net, perceptron
from gradaudit import GradientAudit

STEPS = 20_000
WEIGHTS = (10**3, 10**4, 10**5, 10**6, 10**7)
BATCHES = (1, 16, 128, 1024, 4096)
DEPTHS = (1, 4, 16, 64)


def _net(width: int, depth: int, batch: int) -> Net:
    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        x = rng.standard_normal((batch, width)).astype(np.float32)
        return x, rng.integers(0, 10, batch)

    return Net("", lambda: perceptron(width, *[width] * depth), draw)


def ratios(nets: dict[int, Net]) -> dict[str, float]:
    """Return the ratio of an audited step and a plain one, for each net."""
    found = {}
    for size, net in nets.items():
        fits = Fits(net)
        fits.plain(4)
        fits.audited(4)
        pairs = [(np.median(fits.plain(6)), np.median(fits.audited(6))) for _ in range(3)]
        found[str(size)] = float(np.median([both / alone for alone, both in pairs]))
    return found


def resident() -> float:
    """Return the resident memory of the process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class Memory(keras.callbacks.Callback):
    """Notes the resident memory every 1,000 steps."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0
        self.found: dict[str, float] = {}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count a step."""
        self.steps += 1
        if self.steps % 1000 == 0:
            self.found[str(self.steps)] = resident()


def over_steps() -> dict[str, float]:
    """Return the resident memory over STEPS audited steps of iris, in MiB."""
    net = NETS["iris"]
    model = compiled_net(net)
    x, y = net.batch(np.random.default_rng(0))
    rows = 200
    x, y = np.concatenate([x] * rows), np.concatenate([y] * rows)
    memory = Memory()
    with tempfile.TemporaryDirectory() as folder:
        audit = GradientAudit(folder, verbose=0)
        model.fit(x, y, 16, epochs=STEPS // rows, verbose=0, callbacks=[audit, memory])
    return memory.found


def main(what: str) -> dict[str, float]:
    """Return one of the growths."""
    if what == "weights":
        sizes = {count: max(8, int(np.sqrt(count / 2))) for count in WEIGHTS}
        return ratios({count: _net(width, 2, 64) for count, width in sizes.items()})
    if what == "batch":
        return ratios({batch: _net(256, 2, batch) for batch in BATCHES})
    if what == "depth":
        return ratios({depth: _net(64, depth, 64) for depth in DEPTHS})
    return over_steps()


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
