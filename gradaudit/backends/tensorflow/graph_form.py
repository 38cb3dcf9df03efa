"""What a traced function computes, in a form in which two traces of the same code are equal."""

import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from gradaudit import keras_compat
from gradaudit.tracing.place import Place, place_of

Key = bytes
"""The digest of what a tensor is: the op that makes it, its attributes, and all that it reads."""

_READS = frozenset({"ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape"})
_CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
_LEFT_OUT = frozenset({"shared_name", "container", "seed", "seed2", "token", "config_proto"})
"""Attributes that differ from trace to trace, or that say how and not what.

The seeds of an op with a generator of its own belong to the function, see `draws`. A token is the
name of a Python function, made anew in each trace.
"""


@dataclass(frozen=True, eq=False)
class Piece:
    """One op of a form.

    key: of all its outputs. reads: the keys of what it reads, and of who wrote that last.
    """

    key: Key
    operation: tf.Operation
    reads: tuple[Key, ...]

    @property
    def makes(self) -> tuple[Key, ...]:
        """The keys of its outputs, one by one; of an op without one, that of its effect."""
        count = max(len(self.operation.outputs), 1)
        return tuple(_digest(self.key, number) for number in range(count))

    @property
    def constant(self) -> np.ndarray | None:
        """The value of a constant; None of another op."""
        if self.operation.type != "Const":
            return None
        return np.asarray(tf.make_ndarray(self.operation.get_attr("value")))

    @property
    def place(self) -> Place:
        """The line of the user's own code that made the op."""
        return place_of(self.operation)

    @property
    def scope(self) -> tuple[str, ...]:
        """The name scopes around the op, which name its layers, without the numbers of calls."""
        scope = self.operation.name.rpartition("/")[0]
        return tuple(re.sub(r"_\d+$", "", part) for part in scope.split("/") if part)


@dataclass(frozen=True, eq=False)
class Form:
    """What a function computes: of two with equal keys, each result is computed alike.

    The ops that its results and effects need, with their types, attributes, wiring and constants,
    and the variables that they read and assign, in which order. Names are left out, what only
    other outputs need, and the bounds of functions that are called.

    assigned: ids of the handles of the variables that it assigns to.
    """

    key: Key
    pieces: tuple[Piece, ...]
    assigned: frozenset[int]

    @functools.cached_property
    def keys(self) -> frozenset[Key]:
        """The keys of its pieces."""
        return frozenset(piece.key for piece in self.pieces)

    @functools.cached_property
    def given(self) -> frozenset[Key]:
        """The keys of what is read and made by none of its pieces, such as arguments."""
        made = {key for piece in self.pieces for key in piece.makes}
        return frozenset(key for piece in self.pieces for key in piece.reads if key not in made)


def form_of(graph: Any, outputs: Iterable[Any]) -> Form:
    """Return the form of a traced function, as far as some of its outputs and its effects need."""
    run = _Run()
    inputs = _inputs_of(graph, run)
    results = run.body(graph, inputs, list(outputs))
    key = _digest("form", *results, *run.effects)
    return Form(key, tuple(run.pieces), frozenset(run.assigned))


def called(graph: Any, name: str) -> Any:
    """Return the graph of the function of that Python name that a graph calls, however deep.

    Raises:
        LookupError: it calls none.
    """
    return next(_called(graph, name))


def _called(graph: Any, name: str) -> Iterator[Any]:
    for operation in graph.get_operations():
        for function in functions_of(operation):
            inner, _ = keras_compat.function_graph(graph, function)
            if re.fullmatch(rf"__inference_{re.escape(name)}_\d+", function):
                yield inner
            yield from _called(inner, name)


def draws(graph: Any) -> list[tf.Operation]:
    """Return the ops that draw from a generator which only the running function has."""
    return [
        operation
        for operation in operations_of(graph)
        if operation.op_def.is_stateful and "seed2" in operation.node_def.attr
    ]


def operations_of(graph: Any) -> Iterator[tf.Operation]:
    """Yield the ops of a graph and of all functions that it calls, however deep."""
    for operation in graph.get_operations():
        yield operation
        for function in functions_of(operation):
            yield from operations_of(keras_compat.function_graph(graph, function)[0])


def drawing(operations: list[tf.Operation]) -> str:
    """Return the kinds of ops that draw, and the lines of the user's code that they come from."""
    kinds = ", ".join(sorted({each.type for each in operations}))
    places = {str(place): None for each in operations if (place := place_of(each)).file}
    return kinds + (f" at {', '.join(places)}" if places else "")


def functions_of(operation: tf.Operation) -> list[str]:
    """Return the names of the functions that an op calls, in the order of its attributes' names.

    The attributes themselves come in another order in each trace.
    """
    found = []
    for _, value in sorted(operation.node_def.attr.items(), key=lambda item: item[0]):
        found += [value.func.name] if value.HasField("func") else []
        found += [each.name for each in value.list.func] if value.HasField("list") else []
    if keras_compat.is_function(operation.graph, operation.type):
        found.append(operation.type)
    return found


def _inputs_of(graph: Any, run: "_Run") -> list[Key]:
    captured = {id(inner): outer for outer, inner in graph.captures}
    keys, number = [], 0
    for tensor in graph.inputs:
        if id(tensor) in captured:
            keys.append(run.held(captured[id(tensor)]))
        else:
            keys.append(_digest("argument", number))
            number += 1
    return keys


@dataclass
class _Run:
    """Goes through the ops of a function and of those that it calls, as they would run.

    effects: the keys of the ops that do more than compute, in order.
    """

    pieces: list[Piece] = field(default_factory=list)
    effects: list[Key] = field(default_factory=list)
    assigned: set[int] = field(default_factory=set)
    _writers: dict[Key, Key] = field(default_factory=dict)  # of each variable, who wrote it last
    _handles: dict[Key, int] = field(default_factory=dict)

    def held(self, tensor: Any) -> Key:
        """Return the key of a tensor that a function captured."""
        while tf.is_symbolic_tensor(tensor):
            outer = {id(inner): outer for outer, inner in tensor.graph.captures}
            if id(tensor) not in outer:
                return _digest("outside", tensor.name)
            tensor = outer[id(tensor)]
        if tensor.dtype in (tf.resource, tf.variant):
            key = _digest("held", id(tensor))
            self._handles[key] = id(tensor)
            return key
        return _digest("value", tensor.dtype.name, tensor.shape, _bytes(tensor.numpy()))

    def body(self, graph: Any, inputs: Sequence[Key], outputs: Sequence[Any]) -> list[Key]:
        """Run the ops of a graph that are needed; return the keys of outputs."""
        keys = {t.ref(): key for t, key in zip(graph.inputs, inputs, strict=True)}
        operations = graph.get_operations()
        effects = [o for o in operations if o.op_def.is_stateful and o.type not in _READS]
        needed = _needed([t.op for t in outputs] + effects)
        for operation in operations:
            if operation in needed:
                self._operation(operation, keys)
        return [keys[t.ref()] for t in outputs]

    def _operation(self, operation: tf.Operation, keys: dict[Any, Key]) -> None:
        waiting = [operation]
        while waiting:  # what a loop was given later, for its gradient, stands behind it
            top = waiting[-1]
            missing = [t.op for t in top.inputs if t.ref() not in keys]
            if missing and not (len(waiting) > 1 and missing[0] in waiting):
                waiting += missing
                continue
            waiting.pop()
            if all(t.ref() in keys for t in top.outputs) and top.outputs:
                continue
            self._run(top, keys)

    def _run(self, operation: tf.Operation, keys: dict[Any, Key]) -> None:
        reads = tuple(keys[t.ref()] for t in operation.inputs)
        if operation.type == "Identity":  # as where a function begins and ends
            keys[operation.outputs[0].ref()] = reads[0]
            return
        resources = [
            key
            for t, key in zip(operation.inputs, reads, strict=True)
            if t.dtype in (tf.resource, tf.variant)
        ]
        functions = functions_of(operation)
        if functions and (operation.type in _CALLS or operation.type in functions):
            graph, _ = keras_compat.function_graph(operation.graph, functions[0])
            made = self.body(graph, reads, graph.outputs)
            keys.update({t.ref(): key for t, key in zip(operation.outputs, made, strict=True)})
            return
        bodies = [self._within(operation, name, reads) for name in functions]
        versions = [self._writers.get(key, b"") for key in resources]
        key = _digest(operation.type, *_attributes(operation), *reads, *versions, *bodies)
        writers = tuple(_digest(writer, 0) for writer in versions if writer)
        self.pieces.append(Piece(key, operation, reads + writers))
        for number, tensor in enumerate(operation.outputs):
            keys[tensor.ref()] = _digest(key, number)
        if operation.op_def.is_stateful and operation.type not in _READS:
            self.effects.append(key)
            for resource in resources:
                self._writers[resource] = key
                if operation.type.startswith(("Assign", "Resource")) and resource in self._handles:
                    self.assigned.add(self._handles[resource])

    def _within(self, operation: tf.Operation, name: str, reads: Sequence[Key]) -> Key:
        """Return the key of a function that an op runs under a condition, or several times."""
        graph, _ = keras_compat.function_graph(operation.graph, name)
        given = reads[len(reads) - len(graph.inputs) :]
        inputs = [
            key if t.dtype == tf.resource else _digest("given", number)
            for number, (t, key) in enumerate(zip(graph.inputs, given, strict=True))
        ]
        inner = _Run(self.pieces, [], self.assigned, dict(self._writers), self._handles)
        return _digest("body", *inner.body(graph, inputs, graph.outputs), *inner.effects)


def _needed(operations: Iterable[tf.Operation]) -> set[tf.Operation]:
    found, waiting = set(), list(operations)
    while waiting:
        operation = waiting.pop()
        if operation not in found:
            found.add(operation)
            waiting += [tensor.op for tensor in operation.inputs]
    return found


def _attributes(operation: tf.Operation) -> Iterator[Any]:
    attributes = operation.node_def.attr
    for name in sorted(attributes):
        value = attributes[name]
        functions = value.HasField("func") or (value.HasField("list") and value.list.func)
        if not (name.startswith("_") or name in _LEFT_OUT or functions):
            yield name
            yield value.SerializeToString(deterministic=True)


def _bytes(value: Any) -> bytes:
    array = np.asarray(value)
    return repr(array.tolist()).encode() if array.dtype == object else array.tobytes()


def _digest(*parts: Any) -> Key:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        text = part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(text).to_bytes(8, "little"))
        digest.update(text)
    return digest.digest()
