"""Runs a graph of TensorFlow in NumPy, op by op, keeping a tape, and back along the tape."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradaudit.errors import UnsupportedFunctionError, UnsupportedModelError
from gradaudit.numerics import Arithmetic, Decision, Rounded, Simulated, SumOfSteps, exact
from gradaudit.numerics.arithmetic import Array
from gradaudit.tracing.differences import NUMERIC, PYTHON, by_differences
from gradaudit.tracing.evaluate import evaluated
from gradaudit.tracing.graph import Op, Plan
from gradaudit.tracing.tf_ops.complex_numbers import OF_COMPLEX, Complex
from gradaudit.tracing.tf_ops.tensor_list import TensorList

Value = Any
"""Of a tensor: an Array of floats, a Complex, a NumPy array of others, a Decision, a TensorList, or
a Keras variable for its handle."""


_STATEFUL = (
    "draws from a state of TensorFlow's own, which is not known: draw with keras.random and a "
    "keras.random.SeedGenerator"
)
_REASONS = dict.fromkeys(
    ("RandomStandardNormal", "RandomUniform", "RandomUniformInt", "TruncatedNormal"), _STATEFUL
)
"""Why an op is not derived, where there is more to say than that it has no entry."""


@dataclass(frozen=True)
class Node:
    """What the entry of an op is given besides the values of its inputs.

    wanted: which of the inputs a gradient may go to. read: which of the outputs are read.
    """

    op: Op
    run: "Interpretation"
    wanted: Sequence[bool] = ()
    read: Sequence[bool] = ()

    def attribute(self, name: str) -> Any:
        return self.op.attributes[name]

    @property
    def dtype(self) -> str:
        """The dtype of the first output."""
        return self.op.dtypes[0].name

    def array(self, value: Any) -> Array:
        """Return constants in the dtype of the first output."""
        return self.run.arithmetic.array(value, self.dtype)

    def numbers(self, x: Value) -> np.ndarray:
        """Return bare numbers, for decisions that rounding has no part in."""
        return np.asarray(getattr(x, "value", x))

    def zeros(self, shape: Sequence[int]) -> Value:
        """Return zeros as an item of the op's list."""
        dtype = self.attribute("element_dtype")
        return self.run.value(np.zeros(shape, dtype.as_numpy_dtype), dtype)

    def number(self, place: int, x: Value) -> float | None:
        """Return an input that is one constant number; None for another."""
        return float(self.numbers(x)) if self.op.numbers[place] else None

    def whole(self, x: Value) -> np.ndarray:
        """Return whole numbers or truth values, which rounding has no part in.

        Raises:
            UnsupportedModelError: they come of a comparison that rounding may turn.
        """
        return _decided(self.op, x)

    def call(
        self, name: str, inputs: Sequence[Value], wanted: Sequence[bool] | None = None
    ) -> tuple[list[Value], Callable]:
        """Run a function of the graph; see Interpretation.run."""
        return self.run.run(self.op.function(name), inputs, wanted)

    def misleads(self) -> None:
        """Note that TensorFlow's gradient of the op is not the derivative for such values."""
        self.run.misled.add(self.op)

    def unsupported(self, what: str) -> UnsupportedModelError:
        return self.op.unsupported(what)


@dataclass
class Interpretation:
    """One run of a traced callable in one arithmetic.

    step: what is read from and assigned to. jit: whether XLA compiles the step.
    cotangents: what comes back to variables, by path.
    custom: where custom gradients stood on the way back to a variable, by its path.
    custom_of_inputs: where they stood on the way back to the inputs of the last run.
    misled: ops whose gradient in TensorFlow is not the derivative for the values that they have.
    """

    step: Any
    arithmetic: Arithmetic
    jit: bool = False
    cotangents: dict[str, SumOfSteps] = field(default_factory=dict)
    custom: dict[str, frozenset[str]] = field(default_factory=dict)
    custom_of_inputs: frozenset[str] = frozenset()
    misled: set[Op] = field(default_factory=set)
    _passed: frozenset[str] = frozenset()
    _numeric: set[Op] = field(default_factory=set)

    def run(
        self, planned: Plan, inputs: Sequence[Value], wanted: Sequence[bool] | None = None
    ) -> tuple[list[Value], Callable]:
        """Return a graph's outputs, and the VJP from cotangents of these to those of its inputs.

        The cotangent of what no gradient goes to is None.

        wanted: which of its inputs a gradient may go to; all floats where it is left out.
        """
        values: dict[str, Value] = dict(zip(planned.inputs, inputs, strict=True))
        wanted = wanted or [True] * len(inputs)
        given = zip(values.items(), wanted, strict=True)
        active = {name for (name, value), may in given if may and not is_whole(value)}
        constants: dict[str, np.ndarray] = {}
        tape = []
        for each in planned.ops:
            if each.is_constant and constants.keys() >= set(each.inputs):
                made = _alone(each, [constants[name] for name in each.inputs])
                constants.update(zip(each.outputs, made, strict=True))
                made = map(self.value, made, each.dtypes)
                values.update(zip(each.outputs, made, strict=True))
                continue
            wanted = [name in active for name in each.inputs]
            node = Node(each, self, wanted, [name in planned.read for name in each.outputs])
            made, vjp = self._apply(node, [values[name] for name in each.inputs])
            values.update(zip(each.outputs, made, strict=True))
            if each.is_expected:
                vjp = self._expected(each, values)
            if vjp is not None and not active.isdisjoint(each.inputs):
                tape.append((each, vjp))
                active.update(each.outputs)

        def backward(douts: Sequence[Value]) -> list[Value]:
            held: dict[str, Value] = {}
            before, passed = self._passed, {}
            for name, dout in zip(planned.outputs, douts, strict=True):
                _add_to(held, name, dout)
            for each, vjp in reversed(tape):
                dys = [held.pop(name, None) for name in each.outputs]
                if all(dy is None for dy in dys):
                    continue
                self._passed = before.union(
                    self._stands(each), *(passed.get(n, ()) for n in each.outputs)
                )
                self.custom_of_inputs = self._passed  # a function within has more
                dys = map(_or_zeros, dys, [values[name] for name in each.outputs])
                with _told_of(each):
                    found = vjp(*dys)
                found = found if isinstance(found, tuple) else (found,)
                for name, dx in zip(each.inputs, found, strict=True):
                    if name in active and dx is not None:
                        _add_to(held, name, dx)
                        passed[name] = self.custom_of_inputs.union(passed.get(name, ()))
            self._passed = before
            self.custom_of_inputs = before.union(*(passed.get(n, ()) for n in planned.inputs))
            return [held.get(name) for name in planned.inputs]

        return [values[name] for name in planned.outputs], backward

    def _stands(self, each: Op) -> set[str]:
        """Return what of an op stands on the way back, and is told of."""
        found = {each.custom_gradient} - {""}
        if each in self._numeric:
            found |= {NUMERIC, f"the derivative by differences of {each.described}"}
        if each in self.misled or (each.entry is not None and each.entry.misled):
            found.add(f"TensorFlow's gradient of {each.described}, which is not its derivative,")
        return found

    def _apply(self, node: Node, given: list[Value]) -> tuple[tuple[Value, ...], Callable | None]:
        """Return the outputs of an op and its VJP."""
        each = node.op
        function = None if each.entry is None else each.entry.function
        if any(isinstance(x, Complex) for x in given) and each.kind not in OF_COMPLEX:
            if any(node.wanted):
                raise each.unsupported("is not derived for complex numbers")
            function = None
        if function is None or (all(map(is_whole, given)) and not each.entry.always):
            given = [_decided(each, value) for value in given]
            if each.operation.op_def.is_stateful and each.kind not in PYTHON:
                raise each.unsupported(_REASONS.get(each.kind, "has no entry in the table of ops"))
            is_whole_made = not any(d.is_floating or d.is_complex for d in each.dtypes)
            if is_whole_made or not any(node.wanted):
                return self._evaluated(each, given), None
            self._numeric.add(each)
            function = by_differences
        try:
            with _told_of(each):
                made, vjp = function(node, *given)
        except UnsupportedModelError:
            is_value = each.entry is not None and not each.entry.always
            if any(node.wanted) or not is_value:
                raise
            return self._evaluated(each, given), None
        made = made if isinstance(made, tuple) else (made,)
        made = map(exact, made) if each.is_shift else made
        return tuple(np.asarray(y) if isinstance(y, np.generic) else y for y in made), vjp

    def _evaluated(self, each: Op, given: list[Value]) -> tuple[Value, ...]:
        """Return what TensorFlow itself makes of inputs that no gradient goes to."""
        jit = self.jit and each.kind.startswith("Stateless")  # draws: XLA has other generators
        given = [_bare(_decided(each, value)) for value in given]
        made = _alone(each, given, jit)
        if each.kind in PYTHON and not _equal(made, _alone(each, given)):
            raise each.unsupported("returns other values for the same inputs")
        return tuple(self.value(y, t) for y, t in zip(made, each.dtypes, strict=True))

    def _expected(self, each: Op, values: dict[str, Value]) -> Callable:
        """Return the VJP of an op whose gradient is the user's own, and taken for right."""
        gradient = each.expected_gradient
        captured = [values[name] for name in gradient.captured]
        inputs = [values[name] for name in each.inputs]

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
        """Return constants of a dtype as a value of this run."""
        if dtype.is_floating:
            return self.arithmetic.array(np.asarray(array, np.float64), dtype.name)
        if dtype.is_complex:
            parts = (np.real(array), np.imag(array))
            return Complex(*(self.value(part, dtype.real_dtype) for part in parts))
        return np.asarray(array)

    def collect(self, path: str, cotangent: Array) -> None:
        """Add a part of a variable's cotangent."""
        self.cotangents.setdefault(path, SumOfSteps()).add(cotangent)
        self.custom[path] = self._passed.union(self.custom.get(path, ()))


@contextmanager
def _told_of(each: Op) -> Iterator[None]:
    """Say of which op it is that some values are not derived."""
    try:
        yield
    except (UnsupportedFunctionError, np.linalg.LinAlgError) as error:
        raise each.unsupported(f"is not derived for such values: {error}") from error


def _alone(each: Op, given: Sequence[np.ndarray], jit: bool = False) -> list[np.ndarray]:
    try:
        return evaluated(each.operation, given, jit)
    except tf.errors.OpError as error:
        words = str(error).partition("\n")[0]
        raise each.unsupported(f"does not run by itself: {words}") from error


def _bare(value: Value) -> np.ndarray:
    if isinstance(value, Complex):
        return _bare(value.re) + 1j * _bare(value.im)
    return np.asarray(getattr(value, "value", value))


def _equal(made: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> bool:
    return all(np.array_equal(y, z) for y, z in zip(made, others, strict=True))


def is_whole(value: Value) -> bool:
    """Return whether a value has no gradient: whole numbers, truth values, words."""
    return isinstance(value, np.ndarray) and value.dtype.kind != "f"


def _decided(each: Op, value: Value) -> Value:
    """Return the outcome of a comparison as bare truth values, if rounding cannot turn any."""
    if not isinstance(value, Decision):
        return value
    if value.doubtful.any():
        raise each.unsupported("goes by a comparison that rounding may turn")
    return value.value


def _add_to(held: dict[str, Value], name: str, cotangent: Value) -> None:
    if cotangent is not None:
        held[name] = cotangent if name not in held else held[name] + cotangent


def _or_zeros(cotangent: Value, value: Value) -> Value:
    """Return zeros for a cotangent that none arrived of, if gradients go there at all."""
    if cotangent is None and isinstance(value, TensorList):
        return value.unset()
    holds_numbers = isinstance(value, np.ndarray | Rounded | Simulated | Complex)
    if cotangent is None and holds_numbers and not is_whole(value):
        return np.zeros_like(value)
    return cotangent
