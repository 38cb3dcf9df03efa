"""Traces a callable to a TensorFlow graph, which `interpreter` runs op by op."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from gradaudit.numerics import Arithmetic, Plain, numbers
from gradaudit.numerics.arithmetic import Array
from gradaudit.rules.tape import Provenances
from gradaudit.tracing.graph import Plan, planned
from gradaudit.tracing.interpreter import Interpretation
from gradaudit.tracing.ties import (
    Directions,
    Key,
    Moved,
    Reads,
    Tie,
    contradict,
    corrected,
    of_equality_in,
    provenance,
    sampling,
    settle,
)
from gradaudit.tracing.watch import OpWatch


class Cotangents(NamedTuple):
    """The cotangents that a trace's VJP gives, and their provenance.

    of_inputs: None where no gradient goes. of_variables: by path.
    passed: what the cotangent of each variable passed, by path.
    passed_to_inputs: what those of the inputs passed, taken together.
    """

    of_inputs: list[Any]
    of_variables: Mapping[str, Array]
    passed: Mapping[str, Provenances]
    passed_to_inputs: Provenances


@dataclass(frozen=True)
class Trace:
    """The graph of a callable, for arguments of some shapes and dtypes.

    dtypes: of its outputs. structure: the structure in which it returned them.
    captured: its inputs besides its arguments: Keras variables, and constants.
    """

    dtypes: tuple[str, ...]
    structure: Any
    captured: tuple[Any, ...]
    _plan: Plan

    def run(
        self,
        xs: Sequence[Any],
        step: Any,
        arithmetic: Arithmetic,
        jit: bool,
        back: bool = True,
        watch: OpWatch | None = None,
    ) -> tuple[list[Any], Callable[[Sequence[Any]], Cotangents]]:
        """Return the outputs, and the VJP, which can be called once.

        xs: Arrays of floats, and NumPy arrays of integers. step: holds the variables, see
        `rules.context.Step`. jit: whether XLA compiles the step. back: whether cotangents of xs are
        wanted. watch: is shown each op.

        Raises:
            UnsupportedModelError: an op is not derived.
        """
        reads = Reads(step)
        run, ys, backward = self._begun(xs, reads, arithmetic, jit, back, watch)

        def vjp(dys: Sequence[Any]) -> Cotangents:
            dxs, gradients = backward(dys)[: len(xs)], run.gradients
            found = Cotangents(dxs, gradients.totals(), gradients.provenance, gradients.passing)
            if watch is not None or not contradict(run.ties):
                return found
            return self._settled(found, run.ties, xs, dys, reads, jit, back)

        return ys, vjp

    def _begun(
        self,
        xs: Sequence[Any],
        step: Any,
        arithmetic: Arithmetic,
        jit: bool,
        back: bool,
        watch: OpWatch | None = None,
    ) -> tuple[Interpretation, list[Any], Callable]:
        run = Interpretation(step, arithmetic, jit, watch=watch)
        captured = [self._held(run, held) for held in self.captured]
        wanted = [back] * len(xs) + [isinstance(held, keras.Variable) for held in captured]
        ys, backward = run.run(self._plan, [*xs, *captured], wanted)
        return run, ys, backward

    def _settled(
        self,
        found: Cotangents,
        ties: Sequence[Tie],
        xs: Sequence[Any],
        dys: Sequence[Any],
        reads: Reads,
        jit: bool,
        back: bool,
    ) -> Cotangents:
        """Return cotangents with what gradients beside exact ties say of them."""
        plain = Plain(np.float64)
        bare = [_float64(x) for x in xs]
        given = [None if dy is None else _float64(dy) for dy in dys]

        def beside(
            directions: Directions, size: float
        ) -> tuple[list[Any], list[Any], Mapping[str, Array]]:
            moved = [
                directions.moved(i, x, size) if back and x.dtype.kind == "f" else x
                for i, x in enumerate(bare)
            ]
            step = Moved(reads.held, directions, size)
            run, ys, backward = self._begun(moved, step, plain, jit, back)
            return ys, backward(given)[: len(xs)], run.gradients.totals()

        parts: dict[Key, Any] = dict(enumerate(found.of_inputs))
        parts.update(found.of_variables.items())
        shapes = {key: part.shape for key, part in parts.items() if part is not None}
        settled = settle(sampling(beside, shapes))
        of_equality, made = of_equality_in(ties), dict(parts)
        for key, each in settled.items():
            made[key] = corrected(parts[key], each, of_equality)
        misled = {key: provenance(ties) for key, each in settled.items() if each.known.any()}
        passed = {path: found.passed[path] | misled.get(path, frozenset()) for path in found.passed}
        to_inputs = [misled[i] for i in range(len(xs)) if i in misled]
        return Cotangents(
            [made[i] for i in range(len(xs))],
            {path: made[path] for path in found.of_variables},
            passed,
            found.passed_to_inputs.union(*to_inputs),
        )

    def _held(self, run: Interpretation, held: Any) -> Any:
        is_variable = isinstance(held, keras.Variable) or held.dtype == tf.resource
        return held if is_variable else run.value(held.numpy(), held.dtype)


def _float64(x: Any) -> np.ndarray:
    """Return bare numbers, floats in float64."""
    bare = numbers(x)
    return bare.astype(np.float64) if bare.dtype.kind == "f" else bare


def trace(
    function: Callable,
    arguments: Sequence[Any],
    variables: Sequence[Any],
    expected: Collection[str] = (),
) -> Trace:
    """Trace a callable as Keras traces its train step: its Python code runs once.

    arguments: NumPy arrays, or anything with a shape and a dtype. variables: the Keras variables of
    the model; assignments to others, such as those of metrics, are left out. expected: names of
    functions and layers whose custom gradients are taken as they are.
    """
    specs = [tf.TensorSpec(each.shape, each.dtype) for each in arguments]
    graph = tf.function(function, autograph=False).get_concrete_function(*specs).graph
    strategy = tf.distribute.get_strategy()
    known = {
        id(local.handle): v
        for v in variables
        for local in strategy.experimental_local_results(v.value)
    }
    captured = tuple(known.get(id(outer), outer) for outer, _ in graph.captures)
    inner = [tensor.name for tensor in graph.inputs[len(specs) :]]
    others = {
        name
        for name, held in zip(inner, captured, strict=True)
        if not isinstance(held, keras.Variable) and held.dtype == tf.resource
    }
    dtypes = tuple(tensor.dtype.name for tensor in graph.outputs)
    return Trace(dtypes, graph.structured_outputs, captured, planned(graph, others, expected))
