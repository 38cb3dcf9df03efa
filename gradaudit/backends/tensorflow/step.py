"""Keras's own train step with a second output: what went in, and the gradients it applied."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from gradaudit import keras_compat
from gradaudit.backends.tensorflow.read import (
    of_each,
    per_replica,
    relative_distance,
    to_numpy,
    values,
)
from gradaudit.backends.tensorflow.replay import Replay
from gradaudit.backends.tensorflow.spec import specified
from gradaudit.backends.tensorflow.watched_step import WatchedStep
from gradaudit.backends.tensorflow.workers import worker
from gradaudit.errors import UnsupportedModelError
from gradaudit.records import Arrays, StepRecord, StepSpec
from gradaudit.rules import slot_variables, state_variables, variable_keys

ITERATORS = (tf.data.Iterator, tf.distribute.DistributedIterator)


class Capture:
    """A compiled sibling of a model's train step.

    It is compiled as Keras compiles its own (`TensorFlowTrainer._make_function`), from the model's
    own `train_step`, so that mode, XLA and distribution are as in the step that it stands for.
    `WatchedStep` notes what passes through it.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._jit = bool(model.jit_compile) and not model.run_eagerly
        self._strategy = model.distribute_strategy
        _, self._workers = worker(self._strategy)
        self._built = all(layer.built for layer in keras_compat.all_layers(model)) and getattr(
            model.optimizer, "built", True
        )
        self._specs: list[StepSpec] = []  # of each trace
        self._draws = Replay(self._jit)
        self._step = WatchedStep(model, self._workers)
        self._compile()

    def trace(self, data: Any, iterator: Any) -> None:
        """Compile the step for the next batch, which `peeked` has seen.

        Nothing is run yet: what fails here has not touched the training.

        Raises:
            UnsupportedModelError: what the first step makes cannot be known before.
            Exception: whatever stops the step from being traced with further outputs.
        """
        data = _without_optionals(data)
        self._build(data)
        if self._model.run_eagerly:
            return
        in_graph = isinstance(iterator, ITERATORS) and self._model.steps_per_execution == 1
        if in_graph and not self._jit:
            self._on_iterator.get_concrete_function(iterator)
            return
        self._variables = self._on_data.get_concrete_function(data).graph.variables

    def run(
        self, iterator: Any, train_function: Callable | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Train on the next batch; return the logs for Keras, and what `records` needs.

        XLA arranges a computation by who uses its parts, so that a gradient which is read may be
        rounded otherwise. Under XLA this step is therefore taken back, and `train_function`, which
        is Keras's own, trains on the same batch from the same state; without one, it stays.

        Raises:
            StopIteration, tf.errors.OutOfRangeError: the data has ended, as for Keras's own.
        """
        if self._jit and train_function is not None:
            seen = self._run_beside(iterator, train_function)
        elif not isinstance(iterator, ITERATORS):
            seen = self._on_data(_without_optionals(next(iterator)))
        elif self._model.steps_per_execution == 1:
            seen = self._on_iterator(iterator)
        else:
            # As Keras does it then: what a step does without data, such as counting, is not done.
            batch = iterator.get_next_as_optional()
            if not batch.has_value():
                raise StopIteration
            seen = self._on_data(_without_optionals(batch.get_value()))
        seen.setdefault("after", self._after(len(seen["replicas"])))
        return seen["logs"], seen

    def _run_beside(self, iterator: Any, train_function: Callable) -> dict[str, Any]:
        data = next(iterator)
        before = [(v, tf.identity(v)) for v in self._variables]
        seen = self._on_data(_without_optionals(data))
        seen["after"] = self._after(len(seen["replicas"]))
        for variable, value in before:
            variable.assign(value)
        seen["logs"] = train_function(_once(data, iterator))
        seen["apart"] = relative_distance(seen["after"], self._after(len(seen["replicas"])))
        return seen

    def _after(self, replicas: int) -> list[tuple[Arrays, Arrays]]:
        """Return the values of the model's and of the optimizer's variables in each replica."""
        model, strategy, keys = self._model, self._strategy, variable_keys(self._model)
        state, slots = state_variables(model), slot_variables(model)
        return [
            (values(state, keys, strategy, replica), values(slots, keys, strategy, replica))
            for replica in range(replicas)
        ]

    def records(
        self, seen: dict[str, Any], step: int, epoch: int
    ) -> tuple[list[StepRecord], StepSpec]:
        """Return the records of the last step, one for each local replica, and its spec.

        The spec is that of the moment when the step was traced, or, when eager, run.
        """
        model, replicas = self._model, seen["replicas"]
        keys = variable_keys(model)
        paths = [keys[id(v)] for v in model.trainable_variables]
        local = [
            to_numpy({path: each["gradients"].get(path) for path in paths}) for each in replicas
        ]
        everywhere = local if self._workers == 1 else of_each(replicas[0]["gathered"], paths)
        records = [
            StepRecord(
                step=step,
                epoch=epoch,
                **{key: to_numpy(replica["batch"][key]) for key in ("x", "y", "sample_weight")},
                variables=to_numpy(replica["variables"]),
                optimizer_variables=to_numpy(replica["optimizer_variables"]),
                variables_after=seen["after"][number][0],
                optimizer_variables_after=seen["after"][number][1],
                gradients=local[number],
                replica_gradients=tuple(everywhere),
                repeating=self._repeating(replica["indices"]),
                applications=_count(replica["applications"]),
                loss=_number(replica.get("loss")),
                loss_scale=float(replica["loss_scale"]),
                learning_rates=tuple(float(rate) for rate in replica["learning_rates"]),
                jit=self._jit,
                tensorfloat32=_tensorfloat32(),
                capture_ms=0.0,  # known to the hook that runs the step
                generators=self._step.generators[int(replica["generators"])],
                replica=int(replica["replica"]),
                replicas=self._strategy.num_replicas_in_sync,
            )
            for number, replica in enumerate(replicas)
        ]
        return records, self._specs[int(seen["spec"])]

    def _repeating(self, indices: dict[str, tf.Tensor]) -> frozenset[str]:
        """Return which gradients name an index twice: those of several replicas are taken to."""
        several = self._strategy.num_replicas_in_sync > 1
        return frozenset(
            path for path, found in indices.items() if several or len(np.unique(found)) < len(found)
        )

    def _build(self, data: Any) -> None:
        """Make the variables that the first step would make: their values before it are wanted.

        As Keras makes them in the trace of its first step, but in a trace of its own: variables
        that are made in one which fails stay without values. Of what else is traced with them,
        such as values that an optimizer's `build` assigns, nothing is run in either.
        """
        if self._built:
            return
        self._built = True
        model = self._model
        if type(model).train_step is not keras.Model.train_step:
            raise UnsupportedModelError(
                "the model overrides train_step and has yet to take its first step, which is left "
                "to make the variables that it needs"
            )
        if model.run_eagerly:
            keras_compat.build(model, data)
        else:
            build = functools.partial(keras_compat.build, model, data)
            tf.function(build, autograph=False).get_concrete_function()

    def _compile(self) -> None:
        model, strategy = self._model, self._strategy

        @tf.autograph.experimental.do_not_convert
        def on_data(data: Any) -> dict[str, Any]:
            with self._step.watched():
                seen = strategy.run(self._step, args=(data,))
            logs = keras_compat.logs_of_replicas(seen.pop("logs"), strategy)
            spec = self._noted_spec()
            return {"logs": logs, "replicas": per_replica(seen, strategy), "spec": spec}

        if not model.run_eagerly:
            on_data = tf.function(on_data, reduce_retracing=True, jit_compile=model.jit_compile)
        self._on_data = on_data

        @tf.autograph.experimental.do_not_convert
        def on_iterator(iterator: Any) -> dict[str, Any]:
            return self._on_data(_without_optionals(iterator.get_next()))

        if not model.run_eagerly:
            on_iterator = tf.function(on_iterator, reduce_retracing=True)
        self._on_iterator = on_iterator

    def _noted_spec(self) -> tf.Tensor:
        """Note the spec of the step; return the place where it stands."""
        if tf.executing_eagerly():
            self._specs.clear()
        self._specs.append(specified(self._model, self._draws))
        return tf.constant(len(self._specs) - 1)


def uncaptured(model: keras.Model, step: int, epoch: int) -> StepRecord:
    """Return a record of a step of which nothing is known but the weights."""
    return StepRecord(
        step=step,
        epoch=epoch,
        x=None,
        y=None,
        sample_weight=None,
        variables=values(
            state_variables(model), variable_keys(model), model.distribute_strategy, 0
        ),
        optimizer_variables={},
        variables_after={},
        optimizer_variables_after={},
        gradients={},
        replica_gradients=(),
        repeating=frozenset(),
        applications=0,
        loss=None,
        loss_scale=1.0,
        learning_rates=(),
        jit=False,
        tensorfloat32=_tensorfloat32(),
        capture_ms=0.0,
    )


def _once(data: Any, iterator: Any) -> Any:
    """Return an iterator over one batch, for which Keras's function need not be compiled anew."""
    spec = getattr(iterator, "element_spec", None)
    optional = any(isinstance(part, tf.OptionalSpec) for part in tree.flatten(spec))
    if not isinstance(iterator, tf.data.Iterator) or optional:
        return iter([data])
    return iter(tf.data.Dataset.from_generator(lambda: iter([data]), output_signature=spec))


def _without_optionals(data: Any) -> Any:
    """Return data, or its spec, with None for what Keras takes as absent."""
    optional = (tf.experimental.Optional, tf.OptionalSpec)
    return tree.map_structure(lambda part: None if isinstance(part, optional) else part, data)


def _count(applications: Any) -> int | None:
    return None if applications is None else int(applications)


def _number(loss: tf.Tensor | None) -> float | None:
    """Return a loss that is one number; None where there is none, or one for each sample."""
    return float(loss) if loss is not None and loss.shape.rank == 0 else None


def _tensorfloat32() -> bool:
    """Return whether float32 matrix products run in TensorFloat-32 on this machine."""
    if not tf.config.experimental.tensor_float_32_execution_enabled():
        return False
    details = [
        tf.config.experimental.get_device_details(device)
        for device in tf.config.list_physical_devices("GPU")
    ]
    return any(detail.get("compute_capability", (0,))[0] >= 8 for detail in details)
