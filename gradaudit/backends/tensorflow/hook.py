"""Stands in for a model's train function, and records the steps that it makes."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from gradaudit.backends.fit import StepCounter
from gradaudit.backends.patch import patch
from gradaudit.backends.tensorflow.batches import peeked, signature
from gradaudit.backends.tensorflow.graph_form import drawing
from gradaudit.backends.tensorflow.staleness import brief
from gradaudit.backends.tensorflow.step import Capture
from gradaudit.errors import GapCode
from gradaudit.records import Gap

if TYPE_CHECKING:
    from gradaudit.audit.observer import Observer


class StepHook:
    """Records the steps of a model's train function, for an observer.

    Keras calls `model.train_function` for each execution, of `steps_per_execution` steps. An armed
    hook takes its place for one execution: it peeks at the batch, traces the step, runs each step,
    records it, and hands it to the observer. Where a step cannot be recorded, Keras's own function
    runs. Keras's function is back in place before anything runs.

    A hook that only watches lets Keras's function run, and sees to it that what Keras compiles for
    a new kind of batch has a sibling from the same moment: a later step may be recorded by it.

    Args:
        model: a compiled Keras model.
        observer: is given each step, see `gradaudit.audit.observer`.
        counter: numbers the steps.

    records: whether the execution that it is armed for is recorded, or only watched.
    """

    def __init__(
        self, model: keras.Model, observer: "Observer", counter: StepCounter | None = None
    ) -> None:
        self._model = model
        self._observer = observer
        self._counter = counter or StepCounter()
        self._keras_function: Any = None
        self._capture: Capture | None = None
        self._stand_in = self.execute  # a bound method: one object, to be recognised
        self._undo: Callable[[], None] | None = None
        self.records = True
        self._met: set[Any] = set()  # signatures of batches

    def arm(self, records: bool = True) -> bool:
        """Take the place of Keras's function for the next execution.

        records: whether it is recorded, or only watched.

        Returns:
            False where another hook has taken it already, and records.
        """
        self._model.make_train_function()  # fit has made it, a caller of train_on_batch has not
        other = getattr(self._model.train_function, "__self__", None)
        if isinstance(other, StepHook):
            if other.records or not records:
                return not records
            other.disarm()
        function = self._model.train_function
        if function is not self._keras_function:  # the first one, or one that was made anew
            self._keras_function, self._capture, self._met = function, None, set()
        self.records = records
        self._undo = patch(self._model, "train_function", self._stand_in)
        return True

    def disarm(self) -> None:
        """Give the model its own function back, unless somebody else has replaced it since."""
        if self._undo and self._model.__dict__.get("train_function") is self._stand_in:
            self._undo()
        self._undo = None

    def trace(self, data: Any, iterator: Any) -> Capture:
        """Compile the step for a batch, and make the variables that the first step makes.

        Nothing runs. data: the batch, or its spec. iterator: where it comes from.

        Raises:
            UnsupportedModelError: the variables that the first step makes cannot be made before it.
            Exception: whatever stops the step from being traced with further outputs.
        """
        self._capture = self._capture or Capture(self._model)
        self._capture.trace(data, iterator, self._keras_function)
        return self._capture

    def execute(self, iterator: Any) -> Any:
        """Run an execution step by step; return its logs, as Keras's own function does.

        A hook that was never armed trains by the recorded step alone, under XLA as well.

        Raises:
            StopIteration, tf.errors.OutOfRangeError: the data has ended.
        """
        start = began = time.perf_counter()
        self.disarm()
        data, iterator = peeked(iterator)
        if not self.records:
            return self._watch(data, iterator)
        first = self._counter.step
        try:
            capture = self.trace(data, iterator)
        except Exception as error:
            gap = self._observer.failed(error, f"capturing step {first}")
            self._tell_stale(first)
            return self._execute_unrecorded(iterator, gap)
        logs = None
        for number in range(self._model.steps_per_execution):
            try:
                logs, seen = capture.run(iterator, self._keras_function)
            except (StopIteration, tf.errors.OutOfRangeError):
                if number == 0:
                    raise
                self._counter.end_data(number)
                break
            self._record(capture, seen, first + number, began)
            began = time.perf_counter()
        self._observer.executed(time.perf_counter() - start)
        return logs

    def _watch(self, data: Any, iterator: Any) -> Any:
        """Let Keras's function run; first trace what it would trace, with a sibling.

        What cannot be traced is told when a step is to be recorded.
        """
        met = signature(iterator, data)
        if met not in self._met and not self._model.run_eagerly:
            self._met.add(met)
            with contextlib.suppress(Exception):
                self.trace(data, iterator)
        return self._keras_function(iterator)

    def _tell_stale(self, step: int, *more: str) -> None:
        stale = () if self._capture is None else self._capture.stale
        if words := (*more, *stale):
            self._observer.stale(step, words)

    def _tell_failed(self, capture: Capture, step: int, error: Exception) -> None:
        """Tell why the recorded step failed beside Keras's function, which trained."""
        epoch = self._counter.epoch
        if not capture.is_other:
            gap = self._observer.failed(error, f"running step {step}")
            self._observer.missed(step, epoch, gap)
            return
        words = f"the model's code no longer runs now: {brief(error)}; compile the model again"
        self._tell_stale(step, words)
        self._observer.missed(step, epoch, Gap(GapCode.CAPTURE, "", words))

    def _record(self, capture: Capture, seen: dict[str, Any], step: int, began: float) -> None:
        """Hand a step to the observer.

        began: when its capture began. The time is shared out among the records of the replicas.
        """
        epoch = self._counter.epoch
        if "failed" in seen:
            self._tell_failed(capture, step, seen["failed"])
            return
        self._tell_stale(step)
        if capture.draws and seen.get("apart"):
            words = _DRAWN.format(drawing(capture.draws))
            self._observer.missed(step, epoch, Gap(GapCode.CAPTURE, "", words))
            return
        try:
            records, spec = capture.records(seen, step, epoch)
        except Exception as error:
            gap = self._observer.failed(error, f"reading step {step}")
            self._observer.missed(step, epoch, gap)
            return
        milliseconds = (time.perf_counter() - began) * 1e3 / len(records)
        timed = [replace(record, capture_ms=milliseconds) for record in records]
        self._observer.taken(timed, spec, seen.get("apart", 0.0))

    def _execute_unrecorded(self, iterator: Any, gap: Gap) -> Any:
        logs = self._keras_function(iterator)
        first = self._counter.step
        for step in range(first, first + self._counter.steps(self._model.steps_per_execution)):
            self._observer.missed(step, self._counter.epoch, gap)
        return logs


_DRAWN = (
    "the step draws from generators of TensorFlow ({}), which each compiled function has for "
    "itself: Keras's own function trained, and what it drew is not known. Draw with keras.random "
    "and a keras.random.SeedGenerator"
)
