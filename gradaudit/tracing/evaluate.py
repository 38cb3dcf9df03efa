"""Runs a single op in TensorFlow: without a gradient, for a quotient, or for its own gradient."""

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

_RENAMED = {("Squeeze", "axis"): "squeeze_dims"}


def evaluated(
    operation: tf.Operation, given: Sequence[np.ndarray], jit: bool = False
) -> list[np.ndarray]:
    """Return the outputs of an op for some inputs.

    jit: whether XLA compiles it; the random generators of XLA differ from TensorFlow's.
    """
    if operation.type == "Const":
        return [tf.make_ndarray(operation.get_attr("value"))]
    function = _compiled(operation) if jit else functools.partial(run, operation)
    tensors = [tf.constant(x, t.dtype) for x, t in zip(given, operation.inputs, strict=True)]
    return [np.asarray(y.numpy()) for y in tf.nest.flatten(function(*tensors))]


def makes_nan_of_zero(operation: tf.Operation, given: Sequence[np.ndarray]) -> bool:
    """Return whether TensorFlow's own gradient of an op makes NaN of a cotangent of zeros.

    Without XLA, that of Log does so where the slope is not finite, and that of Sqrt does not.
    """
    tensors = [tf.constant(x, t.dtype) for x, t in zip(given, operation.inputs, strict=True)]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        y = run(operation, *tensors)
    found = tape.gradient(y, tensors, output_gradients=tf.zeros_like(y))
    return any(np.isnan(dx.numpy().astype(np.float64)).any() for dx in found if dx is not None)


@functools.lru_cache(maxsize=256)
def _compiled(operation: tf.Operation) -> Any:
    return tf.function(functools.partial(run, operation), jit_compile=True, autograph=False)


def run(operation: tf.Operation, *given: Any) -> Any:
    """Run a single op eagerly, or in the graph that is being traced."""
    function = getattr(tf.raw_ops, operation.type, None)
    if function is None:
        raise tf.errors.UnimplementedError(None, None, "tf.raw_ops does not have it")
    # tf.raw_ops takes the inputs in their order, some under another name, and then the attributes
    # that the inputs do not determine.
    names = [name for name in inspect.signature(function).parameters if name != "name"]
    inputs, tensors = operation.op_def.input_arg, list(given)
    arguments: dict[str, Any] = {}
    for name, argument in zip(names, inputs, strict=False):
        attribute = argument.number_attr or argument.type_list_attr
        if attribute:
            number = operation.get_attr(attribute)
            count = number if argument.number_attr else len(number)
            arguments[name], tensors = tensors[:count], tensors[count:]
        else:
            arguments[name] = tensors.pop(0)
    for name in names[len(inputs) :]:
        arguments[name] = operation.get_attr(_RENAMED.get((operation.type, name), name))
    return function(**arguments)
