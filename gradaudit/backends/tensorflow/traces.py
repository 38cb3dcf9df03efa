"""What a model's own code traces to: a layer that has no derived rule, a loss, or a whole step."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import tree

from gradaudit import keras_compat
from gradaudit.backends.tensorflow import generators
from gradaudit.backends.tensorflow.python_state import PythonState
from gradaudit.errors import UnsupportedModelError
from gradaudit.records import StepRecord
from gradaudit.reference.arguments import Tensor, dense, inputs_of
from gradaudit.reference.framework import CallTrace
from gradaudit.tracing import Trace, trace


class Spec(NamedTuple):
    """A tensor of a trace: the shape and the dtype that it has in a step."""

    shape: tuple[int, ...]
    dtype: str


_DRAWS = (
    "draws random numbers from Python or NumPy while it is traced, and what it drew for the step "
    "is not known: draw with keras.random and a keras.random.SeedGenerator"
)


class Traces:
    """Traces of one model's parts, each made once for tensors of some shapes and dtypes.

    model: whose code is traced. copy: the model of the spec. live: parts of the first, by the ids
        of those of the second.
    expected: names of functions and layers whose custom gradients are taken as they are.
    state: the Python values of the step, which its code is traced with; None for those of now.
    """

    def __init__(
        self,
        model: keras.Model,
        copy: keras.Model,
        live: Mapping[int, Any],
        expected: Collection[str] = (),
        state: PythonState | None = None,
    ) -> None:
        self._state = state
        self._expected = expected
        self._live = live
        self._by_path = {v.path: v for v in copy.variables}
        self._model = model
        # A run of a trace reads the copies: their paths are the keys of the record.
        self._copies = {id(live[id(v)]): v for v in copy.variables if id(v) in live}
        self._variables = [v for v in model.variables if id(v) in self._copies]
        self._calls: dict[Any, CallTrace] = {}
        self._steps: dict[Any, tuple[Trace, Any]] = {}  # with the generators' states, if it draws

    def variable(self, path: str) -> Any:
        """Return a variable of the spec's model by its path."""
        return self._by_path[path]

    def call(self, target: Callable, given: Mapping[str, Any]) -> CallTrace:
        """Return the trace of a call as in training.

        given: its arguments by name, with tensors of this run. The inputs of the trace are theirs:
        see `inputs_of`.

        Raises:
            UnsupportedModelError: it cannot be traced.
        """
        target, inputs = self._live.get(id(target), target), inputs_of(given)
        key = (
            id(target),
            repr(tree.map_structure(_described, dict(given))),
            tuple(map(_spec, inputs)),
        )
        if key not in self._calls:
            self._calls[key] = self._traced_call(target, given, inputs)
        return self._calls[key]

    def _traced_call(
        self, target: Callable, given: Mapping[str, Any], inputs: Sequence[Tensor]
    ) -> CallTrace:
        found: dict[str, Any] = {}

        def call(*symbols: Any) -> list[Any]:
            arguments = _with_symbols(given, symbols)
            ys = tree.flatten(target(**arguments))
            masks = [keras_compat.mask_of(y) for y in ys]
            logits = [keras_compat.logits_of(y) for y in ys]
            found.update(
                count=len(ys),
                masked=tuple(i for i, mask in enumerate(masks) if mask is not None),
                with_logits=tuple(i for i, z in enumerate(logits) if z is not None),
            )
            kept = [part for part in (*masks, *logits) if part is not None]
            return [*ys, *kept, *keras_compat.added_losses(self._model)]

        name = getattr(target, "name", getattr(target, "__name__", target))
        made, _ = self._trace(call, map(_spec, inputs), f"{name!r}")
        return CallTrace(made, **found)

    def step(self, record: StepRecord) -> tuple[Trace, list[np.ndarray]]:
        """Return the trace of a whole step up to its loss, and the arrays of the batch.

        Raises:
            UnsupportedModelError: it cannot be traced.
        """
        model, batch = self._model, (record.x, record.y, record.sample_weight)
        arrays = [
            dense(leaf, "a part of the batch") for leaf in tree.flatten(batch) if leaf is not None
        ]

        def loss(*symbols: Any) -> Any:
            given = iter(symbols)
            x, y, sample_weight = tree.map_structure(
                lambda leaf: None if leaf is None else next(given), batch
            )
            return keras_compat.training_loss(model, x, y, sample_weight)

        specs = tuple(Spec(array.shape, array.dtype.name) for array in arrays)
        made, states = self._steps.get(specs, (None, None))
        is_other = states is not None and not generators.are_equal(states, record.generators)
        if made is None or is_other:
            made, has_drawn = self._trace(
                loss, specs, "the model", record.generators, keras_compat.whole_call
            )
            self._steps[specs] = made, record.generators if has_drawn else None
        return made, arrays

    def _trace(
        self,
        function: Callable,
        specs: Any,
        what: str,
        given: Any = None,
        called: Callable = keras_compat.training_call,
    ) -> tuple[Trace, bool]:
        """Trace a function; Python values and random generators stay as they are.

        given: the states in which the step's own trace met them.
        called: within which context the function runs.

        Returns:
            The trace, and whether it drew from these generators.
        """
        present = PythonState(self._model)
        if self._state is not None:
            self._state.put_back()
        began = self._state or present
        try:
            with generators.kept_by(began, given):
                before = generators.states()
                with self._model.distribute_strategy.scope(), called(self._model):
                    made = trace(function, list(specs), self._variables, self._expected)
                captured = tuple(self._copies.get(id(held), held) for held in made.captured)
                has_drawn = began.may_draw
                has_drawn &= not generators.are_equal(generators.states(), before)
                has_drawn |= PythonState(self._model).has_drawn(began)
            if has_drawn and given is None:
                raise UnsupportedModelError(_DRAWS)
            return dataclasses.replace(made, captured=captured), has_drawn
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"{what} {error}") from error
        except Exception as error:
            raise UnsupportedModelError(
                f"{what} could not be traced to a graph: {type(error).__name__}: {error}"
            ) from error
        finally:
            present.put_back()


def _with_symbols(given: Mapping[str, Any], symbols: Sequence[Any]) -> dict[str, Any]:
    """Return a call's arguments with the symbols of a trace for the tensors of `inputs_of`."""
    tensors = [leaf for leaf in tree.flatten(given) if isinstance(leaf, Tensor)]
    own, others = symbols[: len(tensors)], iter(symbols[len(tensors) :])
    for symbol, x in zip(own, tensors, strict=True):
        if x.mask is not None:
            keras_compat.set_mask(symbol, next(others))
    for symbol, x in zip(own, tensors, strict=True):
        if x.logits is not None:
            keras_compat.set_logits(symbol, next(others))
    place = iter(own)
    return tree.map_structure(
        lambda leaf: next(place) if isinstance(leaf, Tensor) else leaf, dict(given)
    )


def _spec(x: Tensor) -> Spec:
    return Spec(tuple(x.value.shape), x.dtype)


def _described(leaf: Any) -> Any:
    return (
        (_spec(leaf), leaf.mask is None, leaf.logits is None) if isinstance(leaf, Tensor) else leaf
    )
