"""What a graph of TensorFlow says of its ops, and which of them are needed in which order."""

import functools
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from gradaudit.errors import UnsupportedModelError
from gradaudit.rules.ops.table import find_op

_ASSIGNING = ("AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp")
_CALLING = ("StatefulPartitionedCall", "While", "If", "Case")


@dataclass(frozen=True)
class Plan:
    """The ops of a graph that its outputs or its assignments need, in order."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ops: "tuple[Op, ...]"


@dataclass(frozen=True, eq=False)
class Op:
    """What stands in a graph for one op. functions: plans of those that it calls, by name."""

    operation: tf.Operation
    functions: dict[str, Plan] = field(default_factory=dict)

    @functools.cached_property
    def kind(self) -> str:
        return self.operation.type

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
        """Whether the op makes constants of constants: TensorFlow does, before any step."""
        entry = find_op(self.kind)
        return not self.operation.op_def.is_stateful and (entry is None or not entry.always)

    @functools.cached_property
    def numbers(self) -> tuple[bool, ...]:
        """Which of the inputs are a single number, and constant."""
        return tuple(t.op.type == "Const" and t.shape.rank == 0 for t in self.operation.inputs)

    @functools.cached_property
    def place(self) -> str:
        """The line of the user's own code that made the op: the innermost outside libraries.

        Empty for an op that a library makes by itself, in no call of the user's code.
        """
        frames = list(self.operation.traceback)
        ours = [i for i, frame in enumerate(frames) if _is_in(frame.filename, _OURS)]
        frames = [
            f for f in frames[max(ours, default=-1) + 1 :] if not _is_in(f.filename, _LIBRARIES)
        ]
        if not frames:
            return ""
        last = frames[-1]
        return f"{last.filename}:{last.lineno}" + (f" ({last.line})" if last.line else "")

    @functools.cached_property
    def custom_gradient(self) -> str:
        """Where a gradient of the user's own takes the place of the op's; empty for none."""
        kind = self.attributes.get("_gradient_op_type", b"")
        if not kind.startswith(b"CustomGradient") or not self.place:
            return ""
        scope = self.operation.name.rpartition("/")[0]
        return f"{scope} at {self.place}" if scope else self.place

    def function(self, name: str) -> Plan:
        """Return the plan of a function that the op calls."""
        if name not in self.functions:
            self.functions[name] = planned(self.operation.graph._functions[name].graph)
        return self.functions[name]

    def unsupported(self, what: str) -> UnsupportedModelError:
        """Return the error that says what about the op is not derived."""
        where = f" at {self.place}" if self.place else ""
        return UnsupportedModelError(f"the op {self.operation.name!r} ({self.kind}){where} {what}")


_OURS = (str(Path(__file__).parents[2]),)
_LIBRARIES = (*tf.__path__, *keras.__path__, "<")  # what is generated has names in angle brackets


def _is_in(filename: str, folders: tuple[str, ...]) -> bool:
    return filename.startswith(folders)


def planned(graph: Any, others: Collection[str] = ()) -> Plan:
    """Return the plan of a FuncGraph.

    others: names of inputs that hold variables which do not count; nothing is assigned to them.
    """
    operations = graph.get_operations()
    needed = {tensor.op.name for tensor in graph.outputs}
    needed |= {
        each.name
        for each in operations
        if each.type in _CALLING or (each.type in _ASSIGNING and each.inputs[0].name not in others)
    }
    kept = []
    for operation in reversed(operations):
        if operation.name in needed:
            kept.append(Op(operation))
            needed |= {tensor.op.name for tensor in operation.inputs}
    names = ([tensor.name for tensor in part] for part in (graph.inputs, graph.outputs))
    ops = tuple(each for each in reversed(kept) if each.kind not in ("Placeholder", "NoOp"))
    return Plan(*map(tuple, names), ops)
