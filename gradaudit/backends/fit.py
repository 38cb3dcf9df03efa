"""What a running `fit` does not tell its callbacks: step numbers, and an end by an exception."""

import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from gradaudit import keras_compat
from gradaudit.backends.patch import patch


class StepCounter:
    """Numbers the steps of a model from 0 on, over all epochs of one `fit` after another.

    epoch: as Keras numbers it.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self._epoch_start = self._epoch_steps = self._batch = 0
        self._batches: int | None = None  # of an epoch, where the data says it
        self._ended: int | None = None  # batches of this epoch, where its data has ended

    @property
    def batch(self) -> int:
        """Number of the step that runs, counted within its epoch."""
        return self._batch

    @property
    def step(self) -> int:
        """Number of the step that runs: the first one of the execution."""
        return self._epoch_start + self._batch

    @property
    def trained(self) -> int:
        """Number of steps that have run."""
        return self._epoch_start + self._epoch_steps

    def begin_fit(self, model: keras.Model) -> None:
        """Begin a `fit`; the epoch in which the last one broke off is over."""
        self.end_epoch()
        self._batches = batches_of_epoch(model)

    def begin_execution(self, batch: int) -> None:
        """Begin an execution; batch: the number of its first step within the epoch."""
        self._batch = batch

    def end_execution(self, batch: int) -> None:
        """End it; batch: the number of its last step, as if its data had not ended early."""
        self._epoch_steps = int(min(batch + 1, self._most))

    def end_data(self, steps: int) -> None:
        """Note that the data of the epoch ended after so many steps of the execution."""
        self._ended = self._batch + steps

    def end_epoch(self) -> None:
        """End an epoch."""
        self._epoch_start += self._epoch_steps
        self._epoch_steps, self._ended = 0, None

    def steps(self, steps_per_execution: int) -> int:
        """Return how many steps the execution makes, as far as is known."""
        return int(min(steps_per_execution, self._most - self._batch))

    @property
    def _most(self) -> float:
        """Most steps that the epoch can have, as far as is known."""
        return min(self._batches or math.inf, self._ended or math.inf)


def when_fit_breaks_off(
    model: keras.Model, call: Callable[[BaseException | None], None]
) -> Callable[[], Any]:
    """Call a function where the running `fit` of a model ends by an exception or Ctrl-C.

    Keras does not tell callbacks. But each epoch of `fit` runs within `catch_stop_iteration` of an
    iterator that belongs to that `fit`. That method is replaced on the iterator by one that sees
    every exception of the training loop at once. An exception between two epochs is seen when the
    iterator is released, or when the process ends; `call` is then given None.

    Returns:
        A function that ends the watch.
    """
    iterator = keras_compat.epoch_iterator(model)
    finalizer = weakref.finalize(model if iterator is None else iterator, call, None)
    if iterator is not None:
        present = iterator.__dict__.get("catch_stop_iteration")  # that of another audit
        # It is never put back: the iterator is gone when fit is, and holding it would delay that.
        watched = _watched(weakref.ref(iterator), present, call)
        patch(iterator, "catch_stop_iteration", watched)
    return finalizer.detach


def batches_of_epoch(model: keras.Model) -> int | None:
    """Return how many batches an epoch of the running `fit` has, where the data says it.

    With `steps_per_epoch` executions are whole, and may make more steps than that.
    """
    iterator = keras_compat.epoch_iterator(model)
    if iterator is None or iterator.steps_per_epoch:
        return None
    return iterator.num_batches


def _watched(
    owner: weakref.ref, present: Callable | None, call: Callable[[BaseException | None], None]
) -> Callable:
    @contextmanager
    def catch_stop_iteration() -> Iterator[None]:
        iterator: Any = owner()  # a strong reference would keep the iterator, and the data, alive
        try:
            # TensorFlow's iterator, a subclass, turns its own end of data into StopIteration.
            with present() if present else type(iterator).catch_stop_iteration(iterator):
                yield
        except BaseException as error:
            call(error)
            raise

    return catch_stop_iteration
