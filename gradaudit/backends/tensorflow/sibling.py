"""A compiled sibling of a model's train step: it does the same, and says what passed through it."""

from typing import Any

import keras
import tensorflow as tf

from gradaudit import keras_compat
from gradaudit.backends.tensorflow.batches import without_optionals
from gradaudit.backends.tensorflow.graph_form import Form, called, draws, form_of, operations_of
from gradaudit.backends.tensorflow.python_state import PythonState
from gradaudit.backends.tensorflow.read import per_replica
from gradaudit.backends.tensorflow.replay import Replay
from gradaudit.backends.tensorflow.spec import specified
from gradaudit.backends.tensorflow.watched_step import WatchedStep
from gradaudit.records import StepSpec

_OF_PYTHON = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc"})


class Sibling:
    """One trace of a model's own train step, with further outputs.

    It is compiled as Keras compiles its own (`TensorFlowTrainer._make_function`), so that mode, XLA
    and distribution are as in the step that it stands for. `WatchedStep` notes what passes.
    An eager one runs the step itself.

    workers: number of processes that train together. replay: repeats the draws of the step.
    """

    def __init__(self, model: keras.Model, workers: int, replay: Replay) -> None:
        self._model = model
        self._replay = replay
        self._specs: list[StepSpec] = []
        self._step = WatchedStep(model, workers)
        self._compile()
        self._graph: Any = None  # of one step on a batch
        self.draws: list[tf.Operation] = []
        self.calls_python = False  # while it runs, as `tf.py_function` does

    @property
    def spec(self) -> StepSpec:
        """The spec of the moment when the step was traced, or, when eager, run last."""
        return self._specs[-1]

    @property
    def generators(self) -> list[Any]:
        """The states of Python's and of NumPy's own random generators then, in each replica."""
        return self._step.generators

    @property
    def variables(self) -> Any:
        """The variables that the step touches."""
        return self._graph.variables

    def trace(self, data: Any, iterator: Any = None) -> None:
        """Trace the step for a batch, or its spec; nothing runs.

        iterator: it, or its spec, where the step is to take the batch from it by itself.

        Raises:
            Exception: whatever stops the step from being traced with further outputs.
        """
        if iterator is None:
            self._graph = self.on_data.get_concrete_function(data).graph
        else:
            outer = self.on_iterator.get_concrete_function(iterator).graph
            self._graph = called(outer, "on_data")
        self.draws = draws(self._graph)
        self.calls_python = any(each.type in _OF_PYTHON for each in operations_of(self._graph))

    def form(self) -> Form:
        """Return the form of what it has in common with Keras's function."""
        logs = self._graph.structured_outputs["logs"]
        return form_of(self._graph, tf.nest.flatten(logs, expand_composites=True))

    def _compile(self) -> None:
        model, strategy = self._model, self._model.distribute_strategy

        @tf.autograph.experimental.do_not_convert
        def on_data(data: Any) -> dict[str, Any]:
            if tf.executing_eagerly():
                self._specs.clear()
            state = PythonState(model) if keras_compat.is_built(model) else None
            self._specs.append(specified(model, self._replay, state))
            with self._step.watched():
                seen = strategy.run(self._step, args=(data,))
            logs = keras_compat.logs_of_replicas(seen.pop("logs"), strategy)
            return {"logs": logs, "replicas": per_replica(seen, strategy)}

        if not model.run_eagerly:
            on_data = tf.function(on_data, jit_compile=model.jit_compile)
        self.on_data = on_data

        @tf.autograph.experimental.do_not_convert
        def on_iterator(iterator: Any) -> dict[str, Any]:
            return self.on_data(without_optionals(iterator.get_next()))

        if not model.run_eagerly:
            on_iterator = tf.function(on_iterator)
        self.on_iterator = on_iterator


def build(model: keras.Model, data: Any) -> None:
    """Make the variables that the first step would make: their values before it are wanted.

    As Keras makes them: in a trace of its own step, but in one that never runs. What is built
    already gets its Python values back.
    """
    optimizer = [] if model.optimizer is None else [model.optimizer]
    if all(part.built for part in (*keras_compat.all_layers(model), *optimizer)):
        return

    state = PythonState(model)
    try:
        trace_alone(model, data)
    finally:
        state.put_back()


def trace_alone(model: keras.Model, data: Any) -> None:
    """Trace a model's own step for a batch, or its spec, with no further outputs; nothing runs.

    Raises:
        Exception: whatever stops the step from being traced.
    """
    failed = []

    @tf.autograph.experimental.do_not_convert
    def step(data: Any) -> None:
        try:
            model.distribute_strategy.run(model.train_step, args=(data,))
        except Exception as error:  # variables get their values where a trace comes to its end
            failed.append(error)

    tf.function(step).get_concrete_function(data)
    if failed:
        raise failed[0]
