"""The loss of a whole step, and its gradients, by a trace of the model's own code."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import tree

from gradaudit.errors import UnsupportedModelError
from gradaudit.records import StepRecord
from gradaudit.reference.arguments import Tensor
from gradaudit.reference.walk import Walk
from gradaudit.rules.traced import Trace, trace


class TracedSteps:
    """Derives steps of one model from what its call and its losses trace to.

    Each kind of batch is traced once: as many rows, of the same dtypes.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._traces: dict[Any, Trace] = {}

    def backprop(self, record: StepRecord, walk: Walk) -> Tensor:
        """Run a step; return its loss. The gradients are then in the walk.

        Raises:
            UnsupportedModelError: the model cannot be traced, or an op of the trace is not derived.
        """
        if record.replicas > 1:
            raise UnsupportedModelError(
                "the model runs on several replicas, and its code is traced for one"
            )
        batch = record.x, record.y, record.sample_weight
        leaves = [np.asarray(leaf) for leaf in tree.flatten(batch) if leaf is not None]
        key = tuple((leaf.shape, leaf.dtype.str) for leaf in leaves)
        if key not in self._traces:
            self._traces[key] = self._trace(batch, leaves)
        traced, arithmetic = self._traces[key], walk.arithmetic
        xs = [arithmetic.array(a, a.dtype.name) if a.dtype.kind == "f" else a for a in leaves]
        (value,), vjp = traced.run(xs, walk, arithmetic, record.jit)
        (dtype,) = traced.dtypes
        found = vjp([arithmetic.array(record.loss_scale, dtype)])
        trainable = {v.path for v in self._model.trainable_variables}
        walk.cotangents.update({p: c for p, c in found.of_variables.items() if p in trainable})
        walk.custom.update(found.custom)
        return Tensor(value, dtype)

    def _trace(self, batch: tuple[Any, Any, Any], leaves: list[np.ndarray]) -> Trace:
        model = self._model

        def loss(*tensors: Any) -> Any:  # as keras.Model.train_step has it
            given = iter(tensors)
            x, y, sample_weight = tree.map_structure(
                lambda leaf: None if leaf is None else next(given), batch
            )
            y_pred = model(x, training=True) if model._call_has_training_arg else model(x)
            return model._compute_loss(
                x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True
            )

        metrics = {id(v) for v in model.metrics_variables}
        variables = [v for v in model.variables if id(v) not in metrics]
        try:
            with _losses_kept(model):
                return trace(loss, leaves, variables)
        except Exception as error:
            raise UnsupportedModelError(
                f"the model could not be traced to a graph: {type(error).__name__}: {error}"
            ) from error


@contextmanager
def _losses_kept(model: keras.Model) -> Iterator[None]:
    """Put back what layers have noted by add_loss: a trace notes tensors of its own graph."""
    held = [(layer, list(layer._losses)) for layer in model._flatten_layers()]
    try:
        yield
    finally:
        for layer, losses in held:
            layer._losses[:] = losses
