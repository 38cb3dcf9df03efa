"""Keras's own train step with a second output: what went in, and the gradients it applied."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from gradaudit.records import Arrays, StepRecord
from gradaudit.rules import keyed


class Capture:
    """A compiled sibling of a model's train step.

    Keras's own machinery compiles it from the model's own `train_step`, so that mode, XLA and
    distribution are as in the step that it stands for. While it is traced (or run, when eager), the
    optimizer's `apply` and the model's `compute_loss` are watched on their instances; afterwards
    they are as before.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._function = model._make_function(self._step)
        self.record: StepRecord | None = None

    def run(self, iterator: Any, step: int, epoch: int) -> tuple[Any, StepRecord]:
        """Train on the next batch; return the logs for Keras, and the record of the step.

        Raises:
            StopIteration, tf.errors.OutOfRangeError: the data has ended, as for Keras's own.
        """
        start = time.perf_counter()
        seen = self._function(iterator)
        gradients = {
            v.path: _numpy(seen["gradients"].get(v.path)) for v in self._model.trainable_variables
        }
        record = StepRecord(
            step=step,
            epoch=epoch,
            **{key: _numpy(seen["batch"].get(key)) for key in ("x", "y", "sample_weight")},
            variables=_numpy(seen["variables"]),
            optimizer_variables=_numpy(seen["optimizer_variables"]),
            variables_after=_values(self._model.variables),
            optimizer_variables_after=_values(self._model.optimizer.variables),
            gradients=gradients,
            replica_gradients=(gradients,),
            loss=float(seen.get("loss", np.nan)),
            learning_rate=float(seen["learning_rate"]),
            jit=bool(self._model.jit_compile) and not self._model.run_eagerly,
            tensorfloat32=_tensorfloat32(),
            capture_ms=(time.perf_counter() - start) * 1e3,
        )
        return seen["logs"], record

    def _step(self, data: Any) -> dict[str, Any]:
        model = self._model
        if not (model.built and model.optimizer.built):
            model._symbolic_build(data_batch=data)
        batch = dict(
            zip(
                ("x", "y", "sample_weight"),
                keras.utils.unpack_x_y_sample_weight(data),
                strict=True,
            )
        )
        before = {
            "batch": {key: value for key, value in batch.items() if value is not None},
            "variables": _reads(model.variables),
            "optimizer_variables": _reads(model.optimizer.variables),
            "learning_rate": tf.identity(model.optimizer.learning_rate),
        }
        with _watched(model) as seen:
            logs = model.train_step(data)
        return {**before, **seen, "logs": logs}


@contextmanager
def _watched(model: keras.Model) -> Iterator[dict[str, Any]]:
    """Note the loss and the gradients that pass through the model and its optimizer."""
    seen: dict[str, Any] = {"gradients": {}}
    apply, compute_loss = model.optimizer.apply, model.compute_loss

    def watched_apply(grads: Any, trainable_variables: Any = None) -> Any:
        grads = list(grads)
        variables = (
            model.trainable_variables if trainable_variables is None else list(trainable_variables)
        )
        seen["gradients"] = {
            v.path: tf.convert_to_tensor(g)
            for v, g in zip(variables, grads, strict=True)
            if g is not None
        }
        return apply(grads, variables)

    def watched_compute_loss(*args: Any, **kwargs: Any) -> Any:
        seen["loss"] = compute_loss(*args, **kwargs)
        return seen["loss"]

    with (
        _replaced(model.optimizer, "apply", watched_apply),
        _replaced(model, "compute_loss", watched_compute_loss),
    ):
        yield seen


@contextmanager
def _replaced(owner: Any, name: str, function: Callable) -> Iterator[None]:
    """Set an attribute on an instance, past Keras's tracking, and take it away again."""
    if name in vars(owner):
        raise RuntimeError(f"{owner!r} has its own {name!r}, which an audit would have to replace")
    vars(owner)[name] = function
    try:
        yield
    finally:
        del vars(owner)[name]


def _reads(variables: list[Any]) -> dict[str, tf.Tensor]:
    return {key: tf.identity(v.value) for key, v in keyed(variables).items()}


def _values(variables: list[Any]) -> Arrays:
    return {key: np.array(v.value.numpy()) for key, v in keyed(variables).items()}


def _numpy(structure: Any) -> Any:
    """Return tensors as NumPy arrays; None stays None, and integers and float64 what they are."""
    return tree.map_structure(lambda part: None if part is None else np.array(part), structure)


def _tensorfloat32() -> bool:
    """Return whether float32 matrix products run in TensorFloat-32 on this machine."""
    if not tf.config.experimental.tensor_float_32_execution_enabled():
        return False
    details = [
        tf.config.experimental.get_device_details(device)
        for device in tf.config.list_physical_devices("GPU")
    ]
    return any(detail.get("compute_capability", (0,))[0] >= 8 for detail in details)
