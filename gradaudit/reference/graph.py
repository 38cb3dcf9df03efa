"""What Keras's functional graph says of a model: its calls, their arguments, its inputs' order."""

import inspect
from typing import Any

import keras
from keras import tree

from gradaudit import keras_compat
from gradaudit.keras_compat import numpy_operations as operations
from gradaudit.rules import find_rule


def graph_of(model: keras.Model) -> Any:
    """Return the functional graph of a model; None for a Sequential one that is not built."""
    return keras_compat.functional(model) if isinstance(model, keras.Sequential) else model


def nodes(graph: Any) -> list[Any]:
    """Return the calls of a functional model in an order in which inputs come before outputs."""
    by_depth = keras_compat.nodes_by_depth(graph)
    return [
        node
        for depth in sorted(by_depth, reverse=True)
        for node in by_depth[depth]
        if not isinstance(node.operation, keras.layers.InputLayer)
    ]


def bound(node: Any) -> dict[str, Any]:
    """Return what a call in a functional model was given, by the names of its arguments."""
    given = node.arguments
    signature = inspect.signature(node.operation.call)
    named = signature.bind(*given.args, **given.kwargs).arguments
    return {name: value for name, value in named.items() if value is not None}


def has_no_gradient(node: Any) -> bool:
    """Return whether a call in a functional model is an operation that no gradient goes through.

    Such are those that Keras makes masks with: it compares with a value that is left out, makes
    zeros or ones, or takes integers and masks only.
    """
    operation = node.operation
    if isinstance(operation, (operations.NotEqual, operations.ZerosLike, operations.OnesLike)):
        return True
    tensors = [*node.outputs, *node.input_tensors]
    known = isinstance(operation, keras.Layer) or find_rule(operation) is not None
    return not known and not any(is_float(x.dtype) for x in tensors)


def is_mask(name: str) -> bool:
    """Return whether an argument of a layer's call is a mask, which no gradient goes through."""
    return name == "mask" or name.endswith("_mask")


def in_order(model: keras.Model, x: Any) -> list[Any]:
    """Return the inputs that a model was given, in the order of its own.

    As in keras/src/models/functional.py: those of a dict go by the names of the inputs where the
    model was not made with a dict.
    """
    own = graph_of(model).input
    if isinstance(x, dict) and isinstance(own, dict):
        x = {key: x[key] for key in own}  # it may hold more
    elif isinstance(x, dict):
        return [x[symbol.name] for symbol in tree.flatten(own)]
    return tree.flatten(x)


def packed(model: keras.Model, outputs: list[Any]) -> Any:
    """Return a model's outputs in the structure in which its call returns them."""
    structure = tree.pack_sequence_as(graph_of(model).output, outputs)
    single = isinstance(structure, (list, tuple)) and len(structure) == 1
    return structure[0] if single else structure


def is_float(dtype: str) -> bool:
    """Return whether a dtype is one that gradients go through."""
    return "float" in dtype
