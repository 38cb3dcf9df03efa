"""Every private name of Keras and TensorFlow that gradaudit reads, and why it is needed.

Private names may change between versions. They are read here and nowhere else, so that a new
version of Keras is met in one file.
"""

from collections.abc import Mapping
from typing import Any

import keras
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.ops.node import Node
from keras.src.ops.operation import Operation
from keras.src.ops.symbolic_arguments import SymbolicArguments
from keras.src.trainers.compile_utils import CompileLoss

STRUCTURAL = (
    Operation,  # layers and models are operations, too
    KerasTensor,
    Node,
    SymbolicArguments,
    CompileLoss,
    keras.Variable,
    keras.dtype_policies.DTypePolicy,
    keras.losses.Loss,
    keras.optimizers.Optimizer,
    keras.optimizers.schedules.LearningRateSchedule,
    keras.random.SeedGenerator,
    keras.regularizers.Regularizer,
    keras.constraints.Constraint,
)
"""The classes that make up a model. Those that are not exported are needed for its graph."""

QUALIFIED = {CompileLoss.Loss: (CompileLoss.__module__, "CompileLoss.Loss")}
"""Where classes are found that do not say so themselves: this one is a named tuple in a class."""

_NO_STRUCTURE = frozenset(
    {
        "_tracker",  # tracks attributes as they are set
        "history",  # of the last fit, with the callbacks
        "train_function",
        "test_function",
        "predict_function",
        "_compile_metrics",
        "_loss_tracker",
        "_metrics",
        "_distribution_strategy",
    }
)
_OF_CHECKPOINTS = ("_self_", "_unconditional_")
"""Attributes of TensorFlow's checkpoints begin like this."""


def attributes(instance: Any) -> Mapping[str, Any]:
    """Return the attributes of an object of Keras that say what it computes."""
    held = {
        name: x
        for name, x in vars(instance).items()
        if name not in _NO_STRUCTURE and not name.startswith(_OF_CHECKPOINTS)
    }
    if isinstance(instance, keras.Layer):
        # add_loss notes tensors of the running trace: that there are any is what counts.
        held["_losses"] = [None] * len(held.get("_losses", ()))
    return held


def parts(model: keras.Model) -> list[Any]:
    """Return the layers of a model, nested ones too, and the operations of their graphs."""
    layers = list(model._flatten_layers())
    graphs = [getattr(layer, "_functional", layer) for layer in layers]
    found = {
        id(operation): operation
        for graph in graphs
        for operation in getattr(graph, "operations", ())
        if not isinstance(operation, keras.Layer)
    }
    return [*layers, *found.values()]


def identity(variable: keras.Variable) -> tuple[str, str]:
    """Return the name and the unique id of TensorFlow's variable.

    `exclude_from_weight_decay` goes by the name, and optimizers key their slots by the id.
    """
    value = variable._value
    return value.name, value._unique_id
