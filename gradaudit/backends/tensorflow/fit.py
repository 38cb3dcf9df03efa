"""The end of a running `fit`, also where no callback is told of it."""

import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
from keras.src.trainers.epoch_iterator import EpochIterator  # not exported


def when_fit_breaks_off(model: keras.Model, call: Callable[[BaseException | None], None]) -> Any:
    """Call a function where the running `fit` of a model ends by an exception or Ctrl-C.

    Keras tells callbacks nothing of it. But each epoch of `fit` runs inside of the
    `catch_stop_iteration` of an iterator that is its own, so that one is watched: it sees every
    exception of the training loop at once. An exception between two epochs is seen when that
    iterator is released, or when the process ends; `call` is then given None.

    Returns:
        A function that ends the watch.
    """
    iterator = _epoch_iterator(model)
    finalizer = weakref.finalize(model if iterator is None else iterator, call, None)
    if iterator is not None:
        present = vars(iterator).get("catch_stop_iteration")  # that of another audit
        vars(iterator)["catch_stop_iteration"] = _watched(weakref.ref(iterator), present, call)
    return finalizer.detach


def batches_of_epoch(model: keras.Model) -> int | None:
    """Return how many batches the running `fit` trains on in an epoch, where the data says it.

    With `steps_per_epoch` the executions are whole, and may make more steps than that.
    """
    iterator = _epoch_iterator(model)
    if iterator is None or iterator.steps_per_epoch:
        return None
    return iterator.num_batches


def _epoch_iterator(model: keras.Model) -> EpochIterator | None:
    """Return the iterator over the training data in the frame of the `fit` that is running."""
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
            found = frame.f_locals.get("epoch_iterator")
            if isinstance(found, EpochIterator):
                return found
        frame = frame.f_back
    return None


def _watched(
    owner: weakref.ref, present: Callable | None, call: Callable[[BaseException | None], None]
) -> Callable:
    @contextmanager
    def catch_stop_iteration() -> Iterator[None]:
        iterator = owner()  # a reference of its own would keep the iterator, and the data, alive
        try:
            with present() if present else type(iterator).catch_stop_iteration(iterator):
                yield
        except BaseException as error:
            call(error)
            raise

    return catch_stop_iteration
