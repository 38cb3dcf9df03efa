"""Runs a TensorFlow graph in NumPy, op by op, and goes back along the tape of the ops."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf

from gradaudit.errors import GapCode, UnsupportedFunctionError, UnsupportedModelError
from gradaudit.numerics import Arithmetic, Rounding, SumOfSteps, exact
from gradaudit.numerics.arithmetic import Array
from gradaudit.numerics.ties import Convention
from gradaudit.records import Passed
from gradaudit.rules.tape import Gradients, Primal, Tape
from gradaudit.tracing.differences import PYTHON, by_differences
from gradaudit.tracing.evaluate import evaluated
from gradaudit.tracing.graph import Op, Plan
from gradaudit.tracing.node import Node
from gradaudit.tracing.tf_ops.complex_numbers import OF_COMPLEX, Complex
from gradaudit.tracing.ties import Tie, tie_of
from gradaudit.tracing.values import Value, bare, by_convention, decided, is_discrete, zeros
from gradaudit.tracing.watch import OpWatch

_STATEFUL = (
    "draws from TensorFlow's own generator, whose state is not known: use keras.random and a "
    "keras.random.SeedGenerator"
)
_REASONS = dict.fromkeys(
    ("RandomStandardNormal", "RandomUniform", "RandomUniformInt", "TruncatedNormal"), _STATEFUL
)
"""Why an op is not derived, for ops that need more than "has no entry"."""


@dataclass
class Interpretation:
    """One run of a traced callable in one arithmetic.

    step: holds the variables that ops read and assign to. jit: whether XLA compiles the step.
    gradients: cotangents of variables, with their provenance; called functions share it.
    watch: is shown each op; None for nobody.
    ties: of the ops through which a gradient goes.
    """

    step: Any
    arithmetic: Arithmetic
    jit: bool = False
    gradients: Gradients = field(default_factory=lambda: Gradients(SumOfSteps))
    watch: OpWatch | None = None
    ties: list[Tie] = field(default_factory=list)

    def run(
        self, planned: Plan, inputs: Sequence[Value], wanted: Sequence[bool] | None = None
    ) -> tuple[list[Value], Callable]:
        """Return a graph's outputs, and the VJP from cotangents of these to those of its inputs.

        The cotangent of an input to which no gradient goes is None. Call the VJP once: it uses up
        the tape.

        wanted: for each input, whether a gradient may go to it; all floats where it is left out.
        """
        given = [Primal(value) for value in inputs]
        primals = dict(zip(planned.inputs, given, strict=True))
        may = [True] * len(inputs) if wanted is None else wanted
        active = {x for x, w in zip(given, may, strict=True) if w and not is_discrete(x.value)}
        constants: dict[str, np.ndarray] = {}
        tape = Tape(self.gradients, zeros)
        with self._function():
            self._forward(planned, primals, constants, active, tape)
        outputs = [primals[name] for name in planned.outputs]

        def backward(douts: Sequence[Value]) -> list[Value]:
            for y, dout in zip(outputs, douts, strict=True):
                if dout is not None:
                    y.add(dout)
            with self._function():
                tape.backward()
            gradients = self.gradients
            gradients.passing = gradients.passing.union(*(x.passed for x in given))
            return [x.cotangent for x in given]

        return [y.value for y in outputs], backward

    def by_own_choices(self) -> "Interpretation":
        """Return a run that takes the framework's subgradients at exact ties."""
        own = self.arithmetic
        if not isinstance(own, Rounding) or own.ties is None:
            return self
        return replace(self, arithmetic=replace(own, ties=None))

    def _function(self) -> AbstractContextManager[None]:
        return nullcontext() if self.watch is None else self.watch.function()

    def _forward(
        self,
        planned: Plan,
        primals: dict[str, Primal],
        constants: dict[str, np.ndarray],
        active: set[Primal],
        tape: Tape,
    ) -> None:
        """Run the ops of a graph, and record them on its tape.

        primals: by tensor; those of the inputs are given. constants: the values of constants.
        active: those to which a gradient may go.
        """
        for each in planned.ops:
            if each.is_constant and constants.keys() >= set(each.inputs):
                arrays = _evaluate(each, [constants[name] for name in each.inputs])
                constants.update(zip(each.outputs, arrays, strict=True))
                ys = [Primal(self.value(*pair)) for pair in zip(arrays, each.dtypes, strict=True)]
                primals.update(zip(each.outputs, ys, strict=True))
                continue
            xs = [primals[name] for name in each.inputs]
            read = [name in planned.read for name in each.outputs]
            node = Node(each, self, [x in active for x in xs], read)
            choice = None if self.watch is None else self.watch.choice(each)
            if choice is None:
                made, vjp = self._apply(node, [x.value for x in xs])
            else:
                made, vjp = self._apply_by(choice, node, [x.value for x in xs])
            if any(node.wanted) and (tie := tie_of(each, [x.value for x in xs])) is not None:
                self.ties.append(tie)
            ys = [Primal(value) for value in made]
            primals.update(zip(each.outputs, ys, strict=True))
            if self.watch is not None:
                self.watch.made(each, xs, ys, any(node.wanted))
            if each.is_expected:
                vjp = self._expected(each, primals)
            if vjp is not None and any(node.wanted):
                differentiable = [x if x in active else None for x in xs]
                back = self._watched(each, xs, _named(each, vjp))
                tape.record(differentiable, ys, back, node.provenance)
                active.update(ys)

    def _watched(
        self, each: Op, xs: Sequence[Primal], vjp: Callable[..., Sequence[Value]]
    ) -> Callable[..., Sequence[Value]]:
        if self.watch is None:
            return vjp
        watch = self.watch

        def watched(*dys: Value) -> Sequence[Value]:
            dxs = vjp(*dys)
            watch.carried(each, xs, dys, dxs, vjp)
            return dxs

        return watched

    def _apply(self, node: Node, given: list[Value]) -> tuple[tuple[Value, ...], Callable | None]:
        """Return the outputs of an op and its VJP."""
        each = node.op
        entry, function = each.entry, None if each.entry is None else each.entry.function
        if any(isinstance(x, Complex) for x in given) and each.kind not in OF_COMPLEX:
            if any(node.wanted):
                raise each.unsupported("is not derived for complex numbers")
            function = None
        is_asked = entry is not None and (entry.always or not all(map(is_discrete, given)))
        if function is None or not is_asked:
            given = [decided(each, value) for value in given]
            if each.operation.op_def.is_stateful and each.kind not in PYTHON:
                raise each.unsupported(_REASONS.get(each.kind, "has no entry in the table of ops"))
            is_discrete_made = not any(d.is_floating or d.is_complex for d in each.dtypes)
            if is_discrete_made or not any(node.wanted):
                return self._evaluated(each, given), None
            node.passes(Passed.NUMERIC)
            function = by_differences
        elif entry is not None and entry.misled:
            node.misleads()
        try:
            with _naming(each):
                made, vjp = function(node, *given)
        except UnsupportedModelError:
            is_value = entry is not None and not entry.always
            if any(node.wanted) or not is_value:
                raise
            return self._evaluated(each, given), None
        made = made if isinstance(made, tuple) else (made,)
        made = map(exact, made) if each.is_shift else made
        return tuple(np.asarray(y) if isinstance(y, np.generic) else y for y in made), vjp

    def _apply_by(
        self, choice: Convention, node: Node, given: list[Value]
    ) -> tuple[tuple[Value, ...], Callable | None]:
        """Return the outputs of an op and its VJP, by a choice of its own at exact ties."""
        own = cast(Rounding, self.arithmetic)
        run = replace(self, arithmetic=replace(own, ties=choice))

        def to(ties: Convention | None, values: Sequence[Value]) -> tuple[Value, ...]:
            return tuple(by_convention(value, ties) for value in values)

        made, vjp = self._apply(replace(node, run=run), [*to(choice, given)])
        if vjp is None:
            return to(own.ties, made), None
        named = _named(node.op, vjp)
        return to(own.ties, made), lambda *dys: to(own.ties, named(*to(choice, dys)))

    def _evaluated(self, each: Op, given: list[Value]) -> tuple[Value, ...]:
        """Return the outputs of an op, computed by TensorFlow: no gradient goes through it."""
        jit = self.jit and each.kind.startswith("Stateless")  # draws: XLA has other generators
        given = [bare(decided(each, value)) for value in given]
        made = _evaluate(each, given, jit)
        if each.kind in PYTHON and not _equal(made, _evaluate(each, given)):
            raise each.unsupported("returns other values for the same inputs")
        return tuple(self.value(y, t) for y, t in zip(made, each.dtypes, strict=True))

    def _expected(self, each: Op, primals: dict[str, Primal]) -> Callable:
        """Return the VJP of an op whose custom gradient the user declared as expected."""
        gradient = each.expected_gradient
        captured = [primals[name].value for name in gradient.captured]
        inputs = [primals[name].value for name in each.inputs]

        def vjp(*dys: Value) -> tuple[Value, ...]:
            kept = [dy for dy, d in zip(dys, gradient.differentiable, strict=True) if d]
            found = iter(self.run(gradient.plan, [*kept, *captured])[0])
            back = [next(found) if present else None for present in gradient.present]
            for place, (x, dx) in enumerate(zip(inputs, back, strict=True)):
                if isinstance(x, keras.Variable) and dx is not None:
                    self.collect(x.path, dx)
                    back[place] = None
            return tuple(back)

        return vjp

    def value(self, array: np.ndarray, dtype: tf.DType) -> Value:
        """Return a constant of a dtype as a value of this run."""
        if dtype.is_floating:
            return self.arithmetic.array(np.asarray(array, np.float64), dtype.name)
        if dtype.is_complex:
            parts = (np.real(array), np.imag(array))
            return Complex(*(self.value(part, dtype.real_dtype) for part in parts))
        return np.asarray(array)

    def collect(self, path: str, cotangent: Array) -> None:
        """Add a part of a variable's cotangent."""
        self.gradients.add(path, cotangent)


def _named(each: Op, vjp: Callable) -> Callable[..., Sequence[Value]]:
    """Return the VJP of an op with one cotangent for each input, and errors that name the op."""

    def named(*dys: Value) -> Sequence[Value]:
        with _naming(each):
            found = vjp(*dys)
        return found if isinstance(found, tuple) else (found,)

    return named


@contextmanager
def _naming(each: Op) -> Iterator[None]:
    """Turn an error about values that cannot be derived into one that names the op."""
    try:
        yield
    except (UnsupportedFunctionError, np.linalg.LinAlgError) as error:
        what = f"is not derived for such values: {error}"
        raise each.unsupported(what, GapCode.VALUES) from error


def _evaluate(each: Op, given: Sequence[np.ndarray], jit: bool = False) -> list[np.ndarray]:
    try:
        return evaluated(each.operation, given, jit)
    except tf.errors.OpError as error:
        words = str(error).partition("\n")[0]
        raise each.unsupported(f"does not run by itself: {words}") from error


def _equal(made: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> bool:
    return all(np.array_equal(y, z) for y, z in zip(made, others, strict=True))
