"""The register of ops: how an entry is declared and found."""

import functools
import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, NamedTuple

from gradaudit.errors import RuleDefinitionError

Function = Callable[..., tuple[Any, Callable | None]]


class Entry(NamedTuple):
    """The entry of one type of ops.

    function: (node, *inputs) to the op's outputs, a tuple where there are several, and its VJP.
        That takes a cotangent for each output and returns one for each input, a tuple where there
        are several, None where no gradient goes. It is None itself where none goes to any.
    always: the entry is used for ops of whole numbers, too; by default TensorFlow runs these.
    misled: TensorFlow's gradient of the op is not its derivative, or TensorFlow has no gradient
        though the op has a derivative: reports name the op.
    """

    function: Function
    always: bool
    misled: bool


_OPS: dict[str, Entry] = {}


def op(*types: str, always: bool = False, misled: bool = False) -> Callable[[Function], Function]:
    """Register the decorated function as the entry of types of ops; see Entry.

    Raises:
        RuleDefinitionError: a type has an entry already.
    """

    def register(function: Function) -> Function:
        for kind in types:
            if kind in _OPS:
                raise RuleDefinitionError(
                    f"{_OPS[kind].function.__module__} has an entry for the op {kind} already. "
                    "Remove one of the two."
                )
            _OPS[kind] = Entry(function, always, misled)
        return function

    return register


@functools.cache
def _discover() -> None:
    package = importlib.import_module("gradaudit.tracing.tf_ops")
    for module in pkgutil.iter_modules(package.__path__, "gradaudit.tracing.tf_ops."):
        importlib.import_module(module.name)


def find_op(kind: str) -> Entry | None:
    """Return the entry for a type of ops, or None."""
    _discover()
    return _OPS.get(kind)


def all_ops() -> dict[str, str]:
    """Return the types of ops that have an entry, by name, with the module of the entry."""
    _discover()
    named = sorted((kind, entry.function.__module__) for kind, entry in _OPS.items())
    return {kind: module.rpartition(".")[2].replace("_", " ") for kind, module in named}
