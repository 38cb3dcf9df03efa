"""One step of a training, recorded: what went in, the gradients applied, what came out."""

import contextlib
from collections.abc import Callable
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf

from gradaudit import keras_compat
from gradaudit.backends.tensorflow import generators
from gradaudit.backends.tensorflow.batches import ITERATORS, once, signature, without_optionals
from gradaudit.backends.tensorflow.compiled import Compiled, OwnFunction
from gradaudit.backends.tensorflow.graph_form import drawing
from gradaudit.backends.tensorflow.machine import half_sums, tensorfloat32
from gradaudit.backends.tensorflow.python_state import PythonState
from gradaudit.backends.tensorflow.read import (
    of_each,
    relative_distance,
    to_numpy,
    values,
)
from gradaudit.backends.tensorflow.replay import Replay
from gradaudit.backends.tensorflow.sibling import Sibling, build
from gradaudit.backends.tensorflow.workers import worker
from gradaudit.errors import UnsupportedModelError
from gradaudit.records import Arrays, StepRecord, StepSpec
from gradaudit.rules import slot_variables, state_variables, variable_keys


class Capture:
    """Runs a model's own train step so that it can be recorded.

    `Sibling` does what Keras's compiled function does, and says what passed through it. Where the
    two do the same, the sibling trains in its place. Keras's own function trains, and the sibling
    runs beside it, on the same batch from the same state: under XLA, which arranges a computation
    by who uses its parts, so that a gradient which is read may be rounded otherwise; where the step
    draws from generators that only the running function has; and where Keras compiled its function
    when the model's code was another than now.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._jit = bool(model.jit_compile) and not model.run_eagerly
        self._strategy = model.distribute_strategy
        _, self._workers = worker(self._strategy)
        self._draws = Replay(self._jit)
        self._own = OwnFunction(model, self._workers, self._draws)
        self._siblings: dict[Any, Sibling] = {}  # of a function that is not Keras's own
        self._present: Sibling | Compiled | None = None

    @property
    def stale(self) -> tuple[str, ...]:
        """In words, what of the step that trains is not what the model's code says now."""
        present = self._present
        if not isinstance(present, Compiled):
            return ()
        return (*filter(None, [present.fails]), *present.stale, *present.drawn)

    @property
    def is_other(self) -> bool:
        """Whether the model's code now is another than what Keras compiled."""
        return isinstance(self._present, Compiled) and bool(self._present.stale)

    @property
    def draws(self) -> list[tf.Operation]:
        """The ops of the step that draw from generators which only the running function has."""
        return self._runs.draws

    @property
    def _runs(self) -> Sibling:
        assert self._present is not None
        return self._present.runs if isinstance(self._present, Compiled) else self._present

    def trace(self, data: Any, iterator: Any, train_function: Callable | None = None) -> None:
        """Compile the step for the next batch, which `peeked` has seen.

        Nothing is run yet: what fails here has not touched the training. Keras's own function, the
        `train_function`, is traced if Keras would trace it for this batch.

        Raises:
            UnsupportedModelError: what the first step makes cannot be known before; or Keras has
                compiled the model's code before, and it cannot be traced any more.
            Exception: whatever stops the step from being traced with further outputs.
        """
        self._present = None
        data = without_optionals(data)
        functions = keras_compat.train_functions(train_function)
        if functions is not None:
            self._present = present = self._own.compiled(functions, data, iterator)
            if present.fails:
                raise UnsupportedModelError(present.fails)
            self._check_beside(iterator, train_function)
            return
        if self._model.run_eagerly and train_function is not None:
            self._check_draws()
        is_made = all(each.built for each in keras_compat.all_layers(self._model))
        # What is built may draw, as Keras does for a seed; what is made already, if it says so.
        may_draw = not is_made or PythonState(self._model).may_draw
        with generators.kept() if may_draw else contextlib.nullcontext():
            build(self._model, data)
            key = signature(iterator, data)
            if key not in self._siblings:
                sibling = Sibling(self._model, self._workers, self._draws)
                if not self._model.run_eagerly:
                    sibling.trace(data, iterator if self._takes(iterator) else None)
                self._siblings[key] = sibling
            self._present = self._siblings[key]

    def run(
        self, iterator: Any, train_function: Callable | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Train on the next batch; return the logs for Keras, and what `records` needs.

        train_function: Keras's own; without one, the recorded step trains in any case.

        Raises:
            StopIteration, tf.errors.OutOfRangeError: the data has ended, as for Keras's own.
        """
        if self._is_beside(train_function):
            seen = self._run_beside(iterator, cast(Callable, train_function))
        elif not isinstance(iterator, ITERATORS):
            seen = self._runs.on_data(without_optionals(next(iterator)))
        elif self._model.steps_per_execution == 1:
            seen = self._runs.on_iterator(iterator)
        else:
            # As Keras does it then: what a step does without data, such as counting, is not done.
            batch = iterator.get_next_as_optional()
            if not batch.has_value():
                raise StopIteration
            seen = self._runs.on_data(without_optionals(batch.get_value()))
        seen.setdefault("after", self._after(len(seen["replicas"])))
        return seen["logs"], seen

    def _takes(self, iterator: Any) -> bool:
        """Return whether the compiled step takes the batch from the iterator by itself."""
        is_one = isinstance(iterator, ITERATORS) and self._model.steps_per_execution == 1
        return is_one and not self._jit

    def _is_beside(self, train_function: Callable | None) -> bool:
        if train_function is None or self._model.run_eagerly:
            return False
        is_alike = isinstance(self._present, Compiled) and self._present.sibling is not None
        return self._jit or not is_alike or bool(self.draws)

    def _check_draws(self) -> None:
        """Refuse to build a model beforehand whose code may draw numbers as it is built.

        Raises:
            UnsupportedModelError: it may.
        """
        layers = keras_compat.all_layers(self._model)
        if not all(each.built for each in layers) and PythonState(self._model).may_draw:
            raise UnsupportedModelError(
                "the model runs eagerly, is not built yet, and its code names random generators of "
                "Python or NumPy: the first step is left to make the variables, so that it draws "
                "what it would draw. Build the model before fit"
            )

    def _check_beside(self, iterator: Any, train_function: Callable | None) -> None:
        """Refuse to run a sibling beside Keras's function where that would move the training.

        Raises:
            UnsupportedModelError: it would.
        """
        if self._jit and self.draws:
            raise UnsupportedModelError(
                f"the step draws from generators of TensorFlow ({drawing(self.draws)}), of which "
                "XLA has one for all functions: a second one that ran would move it. Draw with "
                "keras.random and a keras.random.SeedGenerator"
            )
        distributed = isinstance(iterator, tf.distribute.DistributedIterator)
        if distributed and self._is_beside(train_function):
            raise UnsupportedModelError(
                "Keras's own function must train: what it computes is not what the recorded step "
                "does. On several replicas nothing can run beside it"
            )

    def _run_beside(self, iterator: Any, train_function: Callable) -> dict[str, Any]:
        """Run the sibling, then Keras's own function on the same batch from the same state.

        "failed" is why the sibling raised, where it did: the model's code of now may, where what
        Keras compiled does not.
        """
        data = next(iterator)
        before = [(v, tf.identity(v)) for v in self._runs.variables]
        calls_python = self._runs.calls_python
        try:
            # Else nothing here draws, and a thread that reads the data may, from NumPy's own.
            with generators.kept() if calls_python else contextlib.nullcontext():
                seen = self._runs.on_data(without_optionals(data))
            seen["after"] = self._after(len(seen["replicas"]))
        except Exception as error:
            seen = {"replicas": [], "after": [], "failed": error}
        finally:
            for variable, value in before:
                variable.assign(value)
        seen["logs"] = train_function(once(data, iterator))
        if "failed" in seen:
            return seen
        trained = self._after(len(seen["replicas"]))
        seen["apart"] = relative_distance(seen["after"], trained)
        if seen["apart"]:
            seen["trained"] = trained
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
        present = self._present
        by = present.spec if isinstance(present, Compiled) else self._runs
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
                tensorfloat32=tensorfloat32(),
                half_sums=not self._jit and half_sums(model),
                capture_ms=0.0,  # known to the hook that runs the step
                generators=self._runs.generators[int(replica["generators"])],
                trained=_both(seen["trained"][number]) if "trained" in seen else None,
                replica=int(replica["replica"]),
                replicas=self._strategy.num_replicas_in_sync,
            )
            for number, replica in enumerate(replicas)
        ]
        return records, by.spec

    def _repeating(self, indices: dict[str, tf.Tensor]) -> frozenset[str]:
        """Return which gradients name an index twice: those of several replicas are taken to."""
        several = self._strategy.num_replicas_in_sync > 1
        return frozenset(
            path for path, found in indices.items() if several or len(np.unique(found)) < len(found)
        )


def _both(variables: tuple[Arrays, Arrays]) -> Arrays:
    return variables[0] | variables[1]


def _count(applications: Any) -> int | None:
    return None if applications is None else int(applications)


def _number(loss: tf.Tensor | None) -> float | None:
    """Return a loss that is one number; None where there is none, or one for each sample."""
    return float(loss) if loss is not None and loss.shape.rank == 0 else None
