"""Trains a model up to one step, and records that step."""

from typing import Any

import keras

from gradaudit.audit.single_step import LastStep
from gradaudit.backends import StepCounter, backend_of
from gradaudit.records import StepRecord, StepSpec


def train_until(
    model: keras.Model, x: Any, y: Any, step: int, *, captured: bool, epochs: int, batch_size: int
) -> tuple[tuple[StepRecord, StepSpec] | None, int]:
    """Train a model with fit up to a step, counted from 0.

    Args:
        model: a compiled Keras model.
        x: all inputs, as `fit` takes them.
        y: all targets.
        step: the number of the step.
        captured: whether that step runs, too, and is recorded; or training ends before it.
        epochs: the most epochs to train for.
        batch_size: rows a step.

    Returns:
        The record and its spec, None if there are none, and the number of steps that ran.
    """
    stop = _Stop(step, captured)
    model.steps_per_execution = 1
    if captured or step > 0:
        model.fit(x, y, epochs=epochs, batch_size=batch_size, verbose=0, callbacks=[stop])
    return stop.last.recorded, stop.counter.trained


class _Stop(keras.callbacks.Callback):
    """Ends fit when a step is reached; captured: after that step, and keeps its record."""

    def __init__(self, step: int, captured: bool) -> None:
        super().__init__()
        self._wanted, self._is_captured = step, captured
        self.counter, self.last = StepCounter(), LastStep()

    def on_train_begin(self, logs: Any = None) -> None:
        backend = backend_of(self.model)
        self._hook = backend.StepHook(self.model, self.last, self.counter)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.counter.epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.counter.begin_execution(batch)
        if self._is_captured and self.counter.step == self._wanted:
            self._hook.arm()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.counter.end_execution(batch)
        self.model.stop_training = self.counter.trained == self._wanted + self._is_captured

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.counter.end_epoch()
