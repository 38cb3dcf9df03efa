"""What an audit of one net costs: `python -m benchmarks.cost NET MODE` prints it as JSON.

MODE: graph, XLA, or traced (in graph mode, with oracle="traced"). Three fits take turns, PAIRS
times, so that each is compared with its neighbours: plain, with every step audited, and under an
audit that records none of the steps that are timed. Times are medians over the steps after the
second of each fit; a step is timed from its end to the end of the next.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import atexit
import json
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from benchmarks.nets import NETS, Net, compiled_net
from gradaudit import GradientAudit

PAIRS, FEWEST = 7, 3
WARM_UP = 2
LONGEST = 10.0
"""Seconds after which there are no further pairs, once there are FEWEST."""
COLUMNS = ("capture_ms", "reference_ms", "update_ms", "compare_ms", "report_ms")
EVERY = (1, 10, 100)


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


class Fits:
    """Fits one model again and again, with and without an audit, on batches drawn anew."""

    def __init__(self, net: Net, jit: bool = False, **options: Any) -> None:
        self._net, self._rng = net, np.random.default_rng(0)
        self._model = compiled_net(net, jit)
        folder = Path(tempfile.mkdtemp())
        self._audit = GradientAudit(folder, verbose=0, **options)
        self._watch = GradientAudit(folder / "watched", verbose=0, every=10**6, **options)
        self._folder, self._read = folder, 0
        atexit.register(shutil.rmtree, folder)
        self.rows: list[pd.DataFrame] = []

    def plain(self, steps: int) -> list[float]:
        """Return the times of steps without an audit."""
        return self._fit(steps, [])

    def audited(self, steps: int) -> list[float]:
        """Return the times of audited steps; keep their rows of steps.csv.

        One audit runs in all fits: σ is derived in the first step, and seldom after it.
        """
        times = self._fit(steps, [self._audit])
        table = pd.read_csv(self._folder / "steps.csv")
        self.rows.append(table.iloc[self._read + WARM_UP :])
        self._read = len(table)
        return times

    def watched(self, steps: int) -> list[float]:
        """Return the times of the steps that an audit leaves out."""
        return self._fit(steps, [self._watch])

    def _fit(self, steps: int, callbacks: list[Any]) -> list[float]:
        clock = Clock()
        xs, ys = zip(*(self._net.batch(self._rng) for _ in range(steps)), strict=True)
        x, y = np.concatenate(xs), np.concatenate(ys)
        self._model.fit(x, y, len(xs[0]), verbose=0, callbacks=[*callbacks, clock])
        return clock.steps[WARM_UP:]


def _peak() -> float:
    """Return the largest resident memory of the process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(name: str, mode: str) -> dict[str, Any]:
    """Return what an audit of a net costs in a mode.

    Times in milliseconds, ratios of an audited step and a plain one, the memory in MiB that the
    audit adds to the peak of the training.
    """
    options = {"oracle": "traced"} if mode == "traced" else {}
    fits = Fits(NETS[name], jit=mode == "XLA", **options)
    fits.plain(WARM_UP + 3)
    before = _peak()
    fits.audited(WARM_UP + 2)
    added = _peak() - before
    once = float(np.median(fits.plain(WARM_UP + 5)))
    steps = WARM_UP + (20 if once < 20 else 3)
    plain, audited, watched = [], [], []
    fits.rows.clear()
    began = time.perf_counter()
    while len(plain) < PAIRS and (len(plain) < FEWEST or time.perf_counter() - began < LONGEST):
        plain.append(float(np.median(fits.plain(steps))))
        audited.append(float(np.median(fits.audited(steps))))
        watched.append(float(np.median(fits.watched(steps))))
    times = pd.concat(fits.rows)
    ratios = np.divide(audited, plain)
    rest = np.divide(watched, plain)
    return {
        "net": name,
        "about": NETS[name].about,
        "mode": mode,
        "pairs": len(plain),
        "plain_ms": float(np.median(plain)),
        "audited_ms": float(np.median(audited)),
        "watched_ms": float(np.median(watched)),
        "ratio": {
            str(every): float(np.median((ratios + (every - 1) * rest) / every)) for every in EVERY
        },
        "spread": [float(ratios.min()), float(ratios.max())],
        "where": {name: float(times[name].median()) for name in COLUMNS},
        "by_bound": float((times["judged_by"] == "bound").mean()),
        "memory_mib": added,
    }


if __name__ == "__main__":
    print(json.dumps(measured(*sys.argv[1:3])))
