"""Keras's train step, watched: what it is given, its loss, and what its optimizer receives."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from gradaudit.backends.patch import patched
from gradaudit.backends.tensorflow import generators
from gradaudit.backends.tensorflow.read import reads
from gradaudit.rules import single_optimizers, slot_variables, state_variables, variable_keys


class WatchedStep:
    """Runs a model's own train step in one replica, and notes what passes through it.

    It is called while a graph is traced, or eagerly, within `watched()`: then the model's
    `compute_loss` and its optimizer's `apply` are patched on their instances.

    workers: number of processes that train together.
    generators: states of Python's and of NumPy's own random generators, of each trace, as it began.
    """

    def __init__(self, model: keras.Model, workers: int) -> None:
        self.generators: list[Any] = []
        self._model = model
        self._workers = workers
        self._replica = threading.local()  # a strategy traces each replica in a thread of its own

    def __call__(self, data: Any) -> dict[str, Any]:
        """Run the train step in one replica; return what it was given and what it did."""
        model, optimizer = self._model, self._model.optimizer
        context, keys = tf.distribute.get_replica_context(), variable_keys(model)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        seen = self._replica.seen = {
            "batch": {"x": x, "y": y, "sample_weight": sample_weight},
            "variables": reads(state_variables(model), keys),
            "optimizer_variables": reads(slot_variables(model), keys),
            "learning_rates": [tf.identity(o.learning_rate) for o in single_optimizers(optimizer)],
            "loss_scale": tf.identity(_loss_scale(optimizer)),
            "replica": tf.convert_to_tensor(context.replica_id_in_sync_group),
            "generators": self._noted_generators(),
            "gradients": {},
            "indices": {},
            "applications": 0,
        }
        self._replica.graph = tf.compat.v1.get_default_graph()
        logs = model.train_step(data)
        seen["gathered"] = {}
        if self._workers > 1:
            seen["gathered"] = {
                path: context.all_gather(gradient[tf.newaxis], axis=0)
                for path, gradient in seen["gradients"].items()
            }
        return {**seen, "logs": logs}

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note the loss and the gradients that pass through the model and its optimizer."""
        model, optimizer = self._model, self._model.optimizer

        def apply(grads: Any, trainable_variables: Any = None) -> Any:
            grads = list(grads)
            variables = model.trainable_variables
            if trainable_variables is not None:
                variables = list(trainable_variables)
            seen = self._replica.seen
            if tf.compat.v1.get_default_graph() is not self._replica.graph:
                seen["applications"] = None
            elif seen["applications"] is not None:
                seen["applications"] += 1
            keys = variable_keys(model)
            for variable, gradient in zip(variables, grads, strict=True):
                if gradient is None:
                    continue
                path = _key(variable, model, keys)
                seen["gradients"][path] = _copy(gradient)
                if isinstance(gradient, tf.IndexedSlices):
                    seen["indices"][path] = gradient.indices
            return right_apply(grads, variables)

        def compute_loss(*args: Any, **kwargs: Any) -> Any:
            loss = right_compute_loss(*args, **kwargs)
            self._replica.seen["loss"] = loss
            return loss

        right_compute_loss = model.compute_loss
        with patched(model, "compute_loss", compute_loss):
            if optimizer is None:
                yield
                return
            right_apply = optimizer.apply
            with patched(optimizer, "apply", apply):
                yield

    def _noted_generators(self) -> tf.Tensor:
        """Note the states of random generators; return the place where they stand."""
        if tf.executing_eagerly():
            self.generators.clear()
        self.generators.append(generators.states())
        return tf.constant(len(self.generators) - 1)


def _key(variable: Any, model: keras.Model, keys: Mapping[int, str]) -> str:
    """Return the key of a Keras variable, or of the one that a `tf.Variable` belongs to."""
    if isinstance(variable, keras.Variable):
        return keys.get(id(variable), variable.path)
    known = (v for v in model.trainable_variables if v.value is variable)
    return next((keys[id(v)] for v in known), variable.name)


def _loss_scale(optimizer: Any) -> Any:
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer.dynamic_scale.value
    return float(getattr(optimizer, "loss_scale_factor", None) or 1.0)


def _copy(gradient: Any) -> tf.Tensor:
    """Return a tensor of a gradient's value that leaves the gradient's own consumers alone.

    Where a product has one consumer, TensorFlow's arithmetic optimizer may multiply in another
    order (MinimizeBroadcasts: (a b) η becomes a (b η) for a scalar learning rate), and the last
    digit of the weights depends on it. So a product or a sum gets no second consumer, but is made
    a second time. The attribute keeps the two from being taken for one.
    """
    gradient = tf.convert_to_tensor(gradient)
    if tf.executing_eagerly() or gradient.op.type not in ("Mul", "AddV2", "AddN"):
        return gradient
    attributes = {name: gradient.op.node_def.attr[name] for name in gradient.op.node_def.attr}
    copied = tf.compat.v1.AttrValue(b=True)
    return gradient.graph.create_op(
        gradient.op.type,
        [_copy(each) if each.op.type == gradient.op.type else each for each in gradient.op.inputs],
        [gradient.dtype],
        attrs={**attributes, "_gradaudit": copied},
        op_def=gradient.op.op_def,
    ).outputs[0]
