"""The ops of a TensorFlow graph: what is known of each, and which are needed in which order."""

import functools
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import tensorflow as tf

from gradaudit import keras_compat
from gradaudit.errors import GapCode, UnsupportedModelError
from gradaudit.records import Passed, Provenance
from gradaudit.tracing.place import Place, is_in_library, library_function_of, place_of
from gradaudit.tracing.shifts import shifts
from gradaudit.tracing.tf_ops.table import Entry, find_op

_ASSIGNING = ("AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp")
_CALLING = ("StatefulPartitionedCall", "While", "If", "Case")


@dataclass(frozen=True)
class Plan:
    """The ops of a graph that its outputs or its assignments need, in the order to run them."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ops: "tuple[Op, ...]"

    @functools.cached_property
    def read(self) -> frozenset[str]:
        """Names of the tensors that an op or the caller reads."""
        names = {name for each in self.ops for name in each.inputs}
        for each in self.ops:
            names |= set(each.expected_gradient.captured) if each.is_expected else set()
        return frozenset(names.union(self.outputs))


class Gradient(NamedTuple):
    """A custom gradient, traced.

    differentiable: for each output of the op, whether it has a cotangent. present: for each input,
    whether it gets one. captured: names of the tensors that it takes after the cotangents.
    """

    plan: Plan
    differentiable: tuple[bool, ...]
    present: tuple[bool, ...]
    captured: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Op:
    """One op of a graph.

    expected: names of functions and layers whose custom gradients are taken as they are.
    is_shift: whether it computes a maximum that shifts log Σ exp, see `shifts`.
    functions: plans of the functions that it calls, by name.
    """

    operation: tf.Operation
    expected: Collection[str] = ()
    is_shift: bool = False
    functions: dict[str, Plan] = field(default_factory=dict)

    @functools.cached_property
    def kind(self) -> str:
        return self.operation.type

    @functools.cached_property
    def entry(self) -> Entry | None:
        """The table's entry; an op of TensorFlow's older kind of calls has its function as type."""
        is_call = keras_compat.is_function(self.operation.graph, self.kind)
        return find_op("PartitionedCall" if is_call else self.kind)

    @property
    def called(self) -> str:
        """The name of the function that a call calls."""
        return self.attributes["f"].name if "f" in self.attributes else self.kind

    @functools.cached_property
    def inputs(self) -> tuple[str, ...]:
        return tuple(tensor.name for tensor in self.operation.inputs)

    @functools.cached_property
    def outputs(self) -> tuple[str, ...]:
        return tuple(tensor.name for tensor in self.operation.outputs)

    @functools.cached_property
    def dtypes(self) -> tuple[tf.DType, ...]:
        return tuple(tensor.dtype for tensor in self.operation.outputs)

    @functools.cached_property
    def attributes(self) -> dict[str, Any]:
        return {name: self.operation.get_attr(name) for name in self.operation.node_def.attr}

    @functools.cached_property
    def is_constant(self) -> bool:
        """Whether the op is folded if its inputs are constants, as TensorFlow does."""
        is_asked = self.entry is not None and self.entry.always
        return not self.operation.op_def.is_stateful and not is_asked

    @functools.cached_property
    def numbers(self) -> tuple[bool, ...]:
        """For each input, whether it is a scalar constant."""
        return tuple(t.op.type == "Const" and t.shape.rank == 0 for t in self.operation.inputs)

    @functools.cached_property
    def place(self) -> Place:
        """The line of the user's own code that made the op."""
        return place_of(self.operation)

    @functools.cached_property
    def function_of_library(self) -> str:
        """The name of the function of a library that the user's code called and that made the op.

        It is empty for one that makes the op alone, as tf.abs does.
        """
        return library_function_of(self.operation)

    def provenance(self, kind: Passed, detail: str = "", function: str = "") -> Provenance:
        """Return the provenance of a cotangent that passed the op.

        detail: for which values. function: that of a library whose part the op is.
        """
        name = self.operation.name
        return Provenance(kind, name, self.kind, function, self.scope, *self.place, detail)

    @functools.cached_property
    def custom_gradient(self) -> Provenance | None:
        """The custom gradient that replaces the op's own; None if there is none.

        TensorFlow's own custom gradients, such as that of silu, are right or wrong like its other
        gradients, except tf.grad_pass_through, which is not meant as a derivative. One that is
        expected is named wherever its code is from: a prompt's has no file.
        """
        if self._own_gradient is None:
            return None
        code = getattr(self._grad, "__code__", None)
        is_library = code is not None and is_in_library(code.co_filename)
        if is_library and self._own_name != _PASSED and not self.is_expected:
            return None
        kind, place = Passed.EXPECTED if self.is_expected else Passed.CUSTOM, self.place
        if not place.file and code is not None:
            place = Place(code.co_filename, code.co_firstlineno)
        op, op_type = self.operation.name, self.kind
        return Provenance(kind, op, op_type, self._own_name, self.scope, *place)

    @functools.cached_property
    def is_expected(self) -> bool:
        """Whether the op has a custom gradient that is taken as it is."""
        if self._own_gradient is None:
            return False
        names = {self._own_name, *self.scope.split("/")}
        return any(name in names for name in self.expected)

    @functools.cached_property
    def _own_gradient(self) -> Callable | None:
        """The function that tf.custom_gradient registered for the op."""
        return keras_compat.custom_gradient(self.operation)

    @functools.cached_property
    def _grad(self) -> Callable:
        """The function that returns the gradient, as the user wrote it."""
        return keras_compat.written_gradient(cast(Callable, self._own_gradient))

    @functools.cached_property
    def _own_name(self) -> str:
        """The name of the function with the custom gradient: `grad` is defined within it."""
        parts = getattr(self._grad, "__qualname__", "").split(".<locals>.")
        if _PASSED in parts:
            return _PASSED
        return parts[-2] if len(parts) > 1 else "a function"

    @functools.cached_property
    def scope(self) -> str:
        """The name scope of the op, which names its layers, without the numbers of later calls."""
        scope = self.operation.name.rpartition("/")[0]
        return re.sub(r"_\d+(?=/|$)", "", scope) or "the model"

    @functools.cached_property
    def expected_gradient(self) -> "Gradient":
        """The custom gradient, traced."""
        differentiable = [t.dtype.is_floating for t in self.operation.outputs]
        registered, present = cast(Callable, self._own_gradient), list[bool]()

        def gradient(*dys: tf.Tensor) -> list[tf.Tensor]:
            given = iter(dys)
            back = registered(None, *(next(given) if d else None for d in differentiable))
            present[:] = [dx is not None for dx in back]
            return [dx for dx in back if dx is not None]

        specs = [
            tf.TensorSpec(t.shape, t.dtype) for t in self.operation.outputs if t.dtype.is_floating
        ]
        with self.operation.graph.as_default():
            graph = tf.function(gradient, autograph=False).get_concrete_function(*specs).graph
        captured = tuple(outer.name for outer, _ in graph.captures)
        return Gradient(planned(graph), tuple(differentiable), tuple(present), captured)

    def function(self, name: str) -> Plan:
        """Return the plan of a function that the op calls."""
        if name not in self.functions:
            graph, count = keras_compat.function_graph(self.operation.graph, name)
            self.functions[name] = planned(graph, (), self.expected, count)
        return self.functions[name]

    @property
    def reads(self) -> list[str]:
        """Names of the ops whose outputs it reads."""
        found = [tensor.op.name for tensor in self.operation.inputs]
        if self.is_expected:
            found += [name.partition(":")[0] for name in self.expected_gradient.captured]
        return found

    def owner(self, layers: Collection[str]) -> str:
        """Return the layer, or the loss, in whose name scope the op stands.

        layers: names of the model's layers.
        """
        scope = self.operation.name.split("/")[:-1]
        if scope and scope[0].startswith("compile_loss"):
            return f"the loss {scope[1]!r}" if len(scope) > 1 else "the loss"
        for part in reversed(scope):
            for name in (part, re.sub(r"_\d+$", "", part)):  # a later call has a number at its end
                if name in layers:
                    return f"the layer {name!r}"
        return self.scope

    def located(self, layers: Collection[str]) -> str:
        """Return the owner of the op, and the line of the user's code that made it."""
        return self.owner(layers) + (f" at {self.place}" if self.place.file else "")

    @property
    def described(self) -> str:
        """The op's name and type, and the line of the user's code that made it."""
        where = f" at {self.place}" if self.place.file else ""
        return f"the op {self.operation.name!r} ({self.kind}){where}"

    def unsupported(self, what: str, code: GapCode = GapCode.OP) -> UnsupportedModelError:
        """Return the error that says what about the op is not derived."""
        return UnsupportedModelError(f"{self.described} {what}", code, self.operation.name)


_PASSED = "grad_pass_through"


def planned(
    graph: Any,
    others: Collection[str] = (),
    expected: Collection[str] = (),
    count: int | None = None,
) -> Plan:
    """Return the plan of a FuncGraph.

    others: names of inputs that hold variables outside the model; assignments to them are left out.
    expected: names of functions and layers whose custom gradients are taken as they are.
    count: number of outputs that are wanted; all of them where it is left out.
    """
    outputs = graph.outputs[:count]
    operations = graph.get_operations()
    needed = [tensor.op for tensor in outputs]
    needed += [
        each
        for each in operations
        if each.type in _CALLING or (each.type in _ASSIGNING and each.inputs[0].name not in others)
    ]
    ops, shifting = {}, shifts(graph)
    while needed:
        operation = needed.pop()
        if operation.name in ops:
            continue
        op = ops[operation.name] = Op(operation, expected, operation.name in shifting)
        needed += [tensor.op for tensor in operation.inputs]
        if op.is_expected:
            needed += [graph.get_tensor_by_name(name).op for name in op.expected_gradient.captured]
    kept = [ops[each.name] for each in operations if each.name in ops]
    ordered = (each for each in _ordered(kept) if each.kind not in ("Placeholder", "NoOp"))
    inputs, names = ([tensor.name for tensor in part] for part in (graph.inputs, outputs))
    return Plan(tuple(inputs), tuple(names), tuple(ordered))


def _ordered(ops: Sequence[Op]) -> Iterator[Op]:
    """Yield ops in the order in which they were created, but each after those that it reads.

    A loop that was differentiated reads lists that were created after it.
    """
    by_name = {op.operation.name: op for op in ops}
    done: set[str] = set()
    for op in ops:
        waiting = [op]
        while waiting:
            missing = [n for n in waiting[-1].reads if n not in done and n in by_name]
            if missing:
                waiting += [by_name[name] for name in missing]
                continue
            ready = waiting.pop()
            if ready.operation.name not in done:
                done.add(ready.operation.name)
                yield ready
