"""Traces a callable to a TensorFlow graph, which `interpreter` runs op by op."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from gradaudit.numerics import Arithmetic
from gradaudit.numerics.arithmetic import Array
from gradaudit.rules.tape import Provenances
from gradaudit.tracing.graph import Plan, planned
from gradaudit.tracing.interpreter import Interpretation
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
        run = Interpretation(step, arithmetic, jit, watch=watch)
        captured = [self._held(run, held) for held in self.captured]
        wanted = [back] * len(xs) + [isinstance(held, keras.Variable) for held in captured]
        ys, backward = run.run(self._plan, [*xs, *captured], wanted)

        def vjp(dys: Sequence[Any]) -> Cotangents:
            dxs, gradients = backward(dys)[: len(xs)], run.gradients
            return Cotangents(dxs, gradients.totals(), gradients.provenance, gradients.passing)

        return ys, vjp

    def _held(self, run: Interpretation, held: Any) -> Any:
        is_variable = isinstance(held, keras.Variable) or held.dtype == tf.resource
        return held if is_variable else run.value(held.numpy(), held.dtype)


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
