"""Keras's own compiled train function: each of its traces, with a sibling that can be recorded."""

from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from gradaudit import keras_compat
from gradaudit.backends.tensorflow import generators
from gradaudit.backends.tensorflow.batches import ITERATORS
from gradaudit.backends.tensorflow.graph_form import Form, called, form_of
from gradaudit.backends.tensorflow.python_state import Changes, PythonState
from gradaudit.backends.tensorflow.replay import Replay
from gradaudit.backends.tensorflow.sibling import Sibling, trace_alone
from gradaudit.backends.tensorflow.staleness import brief, differences, drawn


@dataclass(eq=False)
class Compiled:
    """One trace of Keras's own function, as a model was when it was made.

    graph: of the function, which lives as long as this. form: what one step computes.
    sibling: computes the same; None where the model's code has become another before one was made.
    now: a sibling of the model's code as it is now, where that is not what was compiled.
    state: Python values when it was made. seen: those that the model's code was traced with last.
    stale: in words, what of the function is not as the model's code has it now, or never changes.
    fails: in words, why the model's code cannot be traced now; "" where it can.
    inert: changes of Python values since it was made that make no difference to what it computes.
    """

    graph: Any
    form: Form
    sibling: Sibling | None
    now: Sibling | None
    state: PythonState
    seen: PythonState
    states: Any
    stale: tuple[str, ...] = ()
    drawn: tuple[str, ...] = ()
    fails: str = ""
    inert: set[Changes] = field(default_factory=set)

    @property
    def runs(self) -> Sibling:
        """What runs in the place of the function, or beside it."""
        found = self.sibling or self.now
        assert found is not None
        return found

    @property
    def spec(self) -> Any:
        """The sibling by whose spec a step is judged: that of the model's code as it is now."""
        return self.now or self.runs


@dataclass(frozen=True)
class _Traced:
    """A sibling, and how its trace left the random generators of Python, NumPy and the code.

    has_drawn: whether it drew from them.
    """

    sibling: Sibling
    states: Any
    state: PythonState
    has_drawn: bool


class OwnFunction:
    """What Keras compiled for one model, in traces.

    A trace holds the Python values of its moment. Here it is made where Keras would make it, and a
    sibling at once from the same values; at each later step that is recorded, the model's code is
    traced once more if Python values in its reach have changed, and the two are compared.

    workers: number of processes that train together: their functions are not compared.
    """

    def __init__(self, model: keras.Model, workers: int, replay: Replay) -> None:
        self._model = model
        self._given = model, workers, replay
        self._compares = workers == 1
        self._known: dict[int, Compiled] = {}

    def compiled(self, functions: tuple[Any, Any], data: Any, iterator: Any) -> Compiled:
        """Return the trace that runs for the next batch; what Keras would trace now is traced.

        functions: `keras_compat.train_functions`.

        Raises:
            Exception: whatever stops the step from being traced, with further outputs or without.
        """
        is_iterator = isinstance(iterator, ITERATORS)
        function, argument = functions[not is_iterator], iterator if is_iterator else data
        states, state = generators.states(), PythonState(self._model)
        count = function.experimental_get_tracing_count()
        graph = function.get_concrete_function(argument).graph
        is_new = function.experimental_get_tracing_count() > count
        if id(graph) not in self._known:
            self._known[id(graph)] = self._met(graph, is_iterator, is_new, states, state)
        elif self._compares:
            self._look_again(self._known[id(graph)], state, is_iterator)
        return self._known[id(graph)]

    def _met(
        self, graph: Any, is_iterator: bool, is_new: bool, states: Any, state: PythonState
    ) -> Compiled:
        """Return a trace that is not known yet, with its sibling.

        states, state: those of the random generators, and Python values, before it was made.
        """
        after = PythonState(self._model)
        given = states if is_new else None
        if is_new:
            state.rewind()
        form = self._form(graph, is_iterator)
        try:
            traced = self._traced(graph, is_iterator, after, given)
        except Exception as error:
            if is_new or not self._compares or not self._fails_alone(graph, is_iterator, after):
                raise
            found = Compiled(graph, form, None, None, after, after, states)
            found.fails = _no_longer(error)
            return found
        if not self._compares:
            return Compiled(graph, form, traced.sibling, None, after, after, states)
        now = traced.sibling.form()
        if is_new and form.key != now.key:
            # The first trace of a function that makes variables is thrown away: it traces again.
            traced.state.rewind()
            again = self._traced(graph, is_iterator, after, traced.states)
            if again.sibling.form().key == form.key:
                traced, now = again, again.sibling.form()
        states = traced.sibling.generators[0]
        found = Compiled(graph, form, traced.sibling, None, after, after, states)
        if form.key != now.key:
            found.sibling, found.now = None, traced.sibling
            found.stale = differences(self._model, form, now)
        if traced.has_drawn:
            traced.state.rewind()
            again = self._traced(graph, is_iterator, after, traced.states)
            found.drawn = drawn(self._model, now, again.sibling.form())
        return found

    def _look_again(self, known: Compiled, state: PythonState, is_iterator: bool) -> None:
        if not state.changed(known.seen):
            return
        changes = state.changes(known.state)
        if changes in known.inert:
            known.stale, known.now, known.fails, known.seen = (), None, "", state
            return
        try:
            now = self._traced(known.graph, is_iterator, state, known.states).sibling
        except Exception as error:
            known.fails = ""
            if not self._fails_alone(known.graph, is_iterator, state):
                raise
            known.stale, known.now, known.fails, known.seen = (), None, _no_longer(error), state
            return
        known.fails, known.seen = "", state
        known.stale = differences(self._model, known.form, now.form())
        known.now = now if known.stale else None
        if known.stale:
            return
        known.inert.add(changes)
        if known.sibling is None:
            known.sibling = now

    def _fails_alone(self, graph: Any, is_iterator: bool, state: PythonState) -> bool:
        """Return whether the model's own code cannot be traced either, when nothing records it."""
        ((data,), _) = self._on_data(graph, is_iterator).structured_input_signature
        try:
            with generators.kept_by(state):
                trace_alone(self._model, data)
        except Exception:
            return True
        finally:
            state.put_back()
        return False

    def _traced(
        self, graph: Any, is_iterator: bool, state: PythonState, given: Any = None
    ) -> "_Traced":
        """Trace a sibling for the signature of a trace; leave Python values as they are.

        state: those values. given: states of the random generators to begin with.
        """
        sibling = Sibling(*self._given)
        began = PythonState(self._model)
        try:
            with generators.kept_by(began, given):
                before = generators.states()
                in_graph = is_iterator and self._model.steps_per_execution == 1
                if in_graph and not self._model.jit_compile:
                    (iterator,), _ = graph.structured_input_signature
                    sibling.trace(None, iterator)
                else:
                    ((data,), _) = self._on_data(graph, is_iterator).structured_input_signature
                    sibling.trace(data)
                states, ended = generators.states(), PythonState(self._model)
                has_drawn = began.may_draw and not generators.are_equal(states, before)
                has_drawn |= ended.has_drawn(began)
                return _Traced(sibling, states, ended, has_drawn)
        finally:
            state.put_back()

    def _form(self, graph: Any, is_iterator: bool) -> Form:
        inner = self._on_data(graph, is_iterator)
        return form_of(inner, tf.nest.flatten(inner.structured_outputs, expand_composites=True))

    def _on_data(self, graph: Any, is_iterator: bool) -> Any:
        return called(graph, keras_compat.STEP_ON_DATA) if is_iterator else graph


def _no_longer(error: Exception) -> str:
    return f"the model's code no longer traces now: {brief(error)}; compile the model again"
