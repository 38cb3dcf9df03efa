"""Keras's own train step with a second output: what went in, and the gradients it applied."""

import functools
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from gradaudit import keras_compat
from gradaudit.backends.tensorflow.patch import patched
from gradaudit.backends.tensorflow.replay import Replay
from gradaudit.backends.tensorflow.spec import specified
from gradaudit.backends.tensorflow.workers import worker
from gradaudit.errors import UnsupportedModelError
from gradaudit.records import Arrays, StepRecord, StepSpec
from gradaudit.rules import keyed, single_optimizers

ITERATORS = (tf.data.Iterator, tf.distribute.DistributedIterator)


class Capture:
    """A compiled sibling of a model's train step.

    It is compiled as Keras compiles its own (`TensorFlowTrainer._make_function`), from the model's
    own `train_step`, so that mode, XLA and distribution are as in the step that it stands for.
    While it is traced (or run, when eager), the optimizer's `apply` and the model's `compute_loss`
    are watched on their instances; afterwards they are as before.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._jit = bool(model.jit_compile) and not model.run_eagerly
        self._strategy = model.distribute_strategy
        _, self._workers = worker(self._strategy)
        self._built = all(layer.built for layer in keras_compat.all_layers(model)) and getattr(
            model.optimizer, "built", True
        )
        self._generators: list[Any] = []  # of each trace, as it began
        self._specs: list[StepSpec] = []  # of each trace
        self._draws = Replay(self._jit)
        self._replica = threading.local()  # a strategy traces each replica in a thread of its own
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
        seen["apart"] = _apart(seen["after"], self._after(len(seen["replicas"])))
        return seen

    def _after(self, replicas: int) -> list[tuple[Arrays, Arrays]]:
        """Return the values of the model's and of the optimizer's variables in each replica."""
        state, slots, strategy = _state(self._model), _slots(self._model), self._strategy
        return [
            (_values(state, strategy, replica), _values(slots, strategy, replica))
            for replica in range(replicas)
        ]

    def records(
        self, seen: dict[str, Any], step: int, epoch: int
    ) -> tuple[list[StepRecord], StepSpec]:
        """Return the records of the last step, one for each local replica, and its spec.

        The spec is that of the moment when the step was traced, or, when eager, run.
        """
        model, replicas = self._model, seen["replicas"]
        paths = [v.path for v in model.trainable_variables]
        local = [
            to_numpy({path: each["gradients"].get(path) for path in paths}) for each in replicas
        ]
        everywhere = local if self._workers == 1 else _of_each(replicas[0]["gathered"], paths)
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
                generators=self._generators[int(replica["generators"])],
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
            with self._watched():
                seen = strategy.run(self._step, args=(data,))
            logs = keras_compat.logs_of_replicas(seen.pop("logs"), strategy)
            spec = self._noted_spec()
            return {"logs": logs, "replicas": _per_replica(seen, strategy), "spec": spec}

        if not model.run_eagerly:
            on_data = tf.function(on_data, reduce_retracing=True, jit_compile=model.jit_compile)
        self._on_data = on_data

        @tf.autograph.experimental.do_not_convert
        def on_iterator(iterator: Any) -> dict[str, Any]:
            return self._on_data(_without_optionals(iterator.get_next()))

        if not model.run_eagerly:
            on_iterator = tf.function(on_iterator, reduce_retracing=True)
        self._on_iterator = on_iterator

    def _step(self, data: Any) -> dict[str, Any]:
        """Run the model's train step in one replica; return what it was given and what it did."""
        model, optimizer = self._model, self._model.optimizer
        context = tf.distribute.get_replica_context()
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        seen = self._replica.seen = {
            "batch": {"x": x, "y": y, "sample_weight": sample_weight},
            "variables": _reads(_state(model)),
            "optimizer_variables": _reads(_slots(model)),
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

    def _noted_spec(self) -> tf.Tensor:
        """Note the spec of the step; return the place where it stands."""
        if tf.executing_eagerly():
            self._specs.clear()
        self._specs.append(specified(self._model, self._draws))
        return tf.constant(len(self._specs) - 1)

    def _noted_generators(self) -> tf.Tensor:
        """Note the states of random generators; return the place where they stand."""
        if tf.executing_eagerly():
            self._generators.clear()
        states = random.getstate(), np.random.get_state()  # noqa: NPY002 - users draw from it
        self._generators.append(states)
        return tf.constant(len(self._generators) - 1)

    @contextmanager
    def _watched(self) -> Iterator[None]:
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
            for variable, gradient in zip(variables, grads, strict=True):
                if gradient is None:
                    continue
                path = _path(variable, model)
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


def uncaptured(model: keras.Model, step: int, epoch: int) -> StepRecord:
    """Return a record of a step of which nothing is known but the weights."""
    return StepRecord(
        step=step,
        epoch=epoch,
        x=None,
        y=None,
        sample_weight=None,
        variables=_values(_state(model), model.distribute_strategy, 0),
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


def _state(model: keras.Model) -> list[Any]:
    """Return the weights and seeds of a model: its variables but those of its metrics."""
    metrics = {id(v) for v in model.metrics_variables}
    return [v for v in model.variables if id(v) not in metrics]


def _slots(model: keras.Model) -> list[Any]:
    optimizer = getattr(model, "optimizer", None)  # a model that was never compiled has none
    return [] if optimizer is None else optimizer.variables


def _path(variable: Any, model: keras.Model) -> str:
    """Return the path of a Keras variable, or of the one that a `tf.Variable` belongs to."""
    if isinstance(variable, keras.Variable):
        return variable.path
    return next((v.path for v in model.trainable_variables if v.value is variable), variable.name)


def _values(variables: list[Any], strategy: tf.distribute.Strategy, replica: int) -> Arrays:
    """Return the values that variables have in one of the local replicas."""
    return {
        key: np.array(strategy.experimental_local_results(v.value)[replica].numpy())
        for key, v in keyed(variables).items()
    }


def _loss_scale(optimizer: Any) -> Any:
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return optimizer.dynamic_scale.value
    return float(getattr(optimizer, "loss_scale_factor", None) or 1.0)


def _reads(variables: list[Any]) -> dict[str, tf.Tensor]:
    return {key: tf.identity(v.value) for key, v in keyed(variables).items()}


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


def _per_replica(seen: Any, strategy: tf.distribute.Strategy) -> list[Any]:
    """Return a structure of what replicas computed as one structure for each local replica."""

    def of(replica: int) -> Any:
        def pick(part: Any) -> Any:
            local = strategy.experimental_local_results(part)
            return local[replica] if len(local) > 1 else local[0]

        return tree.map_structure(pick, seen)

    return [of(i) for i in range(len(strategy.experimental_local_results(seen["replica"])))]


def to_numpy(structure: Any) -> Any:
    """Return tensors as NumPy arrays; None stays None, and so do ragged and sparse tensors."""
    return tree.map_structure(
        lambda part: np.array(part) if isinstance(part, tf.Tensor) else part, structure
    )


def _of_each(gathered: dict[str, tf.Tensor], paths: list[str]) -> list[dict[str, Any]]:
    """Return the gradients of each replica, from those of all replicas along the first axis."""
    arrays = {path: to_numpy(gathered[path]) for path in paths if path in gathered}
    count = len(next(iter(arrays.values()), ()))
    return [
        {path: arrays[path][i] if path in arrays else None for path in paths} for i in range(count)
    ]


def _once(data: Any, iterator: Any) -> Any:
    """Return an iterator over one batch, for which Keras's function need not be compiled anew."""
    spec = getattr(iterator, "element_spec", None)
    optional = any(isinstance(part, tf.OptionalSpec) for part in tree.flatten(spec))
    if not isinstance(iterator, tf.data.Iterator) or optional:
        return iter([data])
    return iter(tf.data.Dataset.from_generator(lambda: iter([data]), output_signature=spec))


def _apart(found: list[tuple[Arrays, Arrays]], trained: list[tuple[Arrays, Arrays]]) -> float:
    """Return the largest relative difference of a variable; 0 where all are equal to the bit."""
    largest = 0.0
    for mine, theirs in zip(found, trained, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            for path, value in one.items():
                if not np.array_equal(value, other[path], equal_nan=True):
                    with np.errstate(all="ignore"):
                        size = np.linalg.norm(np.asarray(other[path], np.float64))
                        distance = np.linalg.norm(np.subtract(value, other[path], dtype=np.float64))
                        largest = max(largest, float(distance / size) if size else np.inf)
    return largest


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
