"""A net around one case of a rule, to be trained under an audit."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradaudit.rules import Case, Rule
from gradaudit.testing.inputs import random_input, random_targets
from gradaudit.testing.kernels import needs_xla
from gradaudit.testing.updates import KINDS


def net(
    rule: Rule, case: Case, rng: np.random.Generator, jit: bool
) -> tuple[keras.Model, Any, Any, int]:
    """Return a compiled model, x and y of three times the case's rows, and the case's rows.

    Args:
        rule: a rule of any kind.
        case: one of its cases.
        rng: draws the data.
        jit: whether the model is compiled under XLA.
    """
    shapes = ((3, 4),) if rule.kind in KINDS else case.shapes
    rows = shapes[0][0]
    x: Any
    y: Any
    if rule.kind in ("layer", "operation"):
        model, x, y = _around_layer(case, rng)
        loss, optimizer = "mean_squared_error", "sgd"
        if case.inputs == "index":  # gathers the parts of sparse gradients, which SGD does not add
            optimizer = keras.optimizers.SGD(gradient_accumulation_steps=2)
    else:
        x = rng.standard_normal((3 * rows, *shapes[0][1:])).astype(np.float32)
        model, loss, optimizer = _around_other(rule, case, x.shape)
        y = None
    model.compile(optimizer=optimizer, loss=loss, jit_compile=jit)
    if y is None:
        y = _targets(rule, case, model, x, rng)
    return model, x, y, rows


def _around_layer(case: Case, rng: np.random.Generator) -> tuple[keras.Model, Any, Any]:
    """Return a layer, or an operation, between Dense layers, with data.

    The arrays among the case's arguments are inputs of the model, too.
    """
    inputs: list[Any] = []
    tensors: list[Any] = []
    x: list[np.ndarray] = []
    for shape in case.shapes:
        x.append(random_input(case, rng, (3 * shape[0], *shape[1:]), "float32"))
        inputs.append(keras.Input(shape[1:], dtype=x[-1].dtype.name))
        dense = keras.layers.Dense(shape[-1], bias_initializer="normal")
        if case.inputs == "probability":  # roots and logarithms have no real value below 0
            positive = keras.initializers.RandomUniform(0.1, 0.5, seed=0)
            dense = keras.layers.Dense(
                shape[-1], kernel_initializer=positive, bias_initializer=positive
            )
        tensors.append(inputs[-1] if case.inputs == "index" else dense(inputs[-1]))

    def as_input(value: Any) -> Any:
        if not np.ndim(value):
            return value
        x.append(np.concatenate([value] * 3))
        inputs.append(keras.Input(value.shape[1:], dtype=value.dtype.name))
        return inputs[-1]

    arguments = {n: keras.tree.map_structure(as_input, v) for n, v in case.arguments.items()}
    made = keras.tree.flatten(case.call(case.build(), tensors, arguments))
    outputs = [keras.layers.Dense(2)(_of_each_sample(part, tensors[0])) for part in made]
    model = keras.Model(_single(inputs), _single(outputs))
    forward = model
    if needs_xla(case, "float32"):
        forward = tf.function(model, jit_compile=True)
    made = keras.tree.flatten(forward(_single(x)))
    y = [rng.standard_normal(tuple(part.shape)).astype(np.float32) for part in made]
    return model, _single(x), _single(y)


def _of_each_sample(made: Any, x: Any) -> Any:
    """Return a tensor made of x in the form that Dense takes: batch axis first, rank 2 or more."""
    if len(made.shape) < 2:
        return keras.ops.expand_dims(made, -1) if made.shape else x * made
    return made if made.shape[0] is None else keras.ops.transpose(made)


def _single(parts: list) -> Any:
    return parts if len(parts) > 1 else parts[0]


def _around_other(rule: Rule, case: Case, shape: tuple[int, ...]) -> tuple[keras.Model, Any, Any]:
    """Return a Dense layer with the rule's object, the loss and the optimizer of the net."""
    target = case.build()
    first = keras.layers.Dense(shape[-1], bias_initializer="normal")
    layers, loss, optimizer = [keras.Input(shape[1:]), first], "mean_squared_error", "sgd"
    if rule.kind == "activation":
        layers.append(keras.layers.Activation(target))
    elif rule.kind == "regularizer":
        first.kernel_regularizer = target
        layers.append(keras.layers.Dense(2))
    elif rule.kind == "loss":
        loss = target
        if case.inputs == "probability":  # softmax and sigmoid would pass their logits on
            layers.append(keras.layers.Activation("hard_sigmoid"))
    elif rule.kind == "constraint":
        first.kernel_constraint = target
    else:
        optimizer = target
    return keras.Sequential(layers), loss, optimizer


def _targets(
    rule: Rule, case: Case, model: keras.Model, x: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    if rule.kind == "loss":
        return random_targets(case, x.shape, rng)
    output = model(np.zeros(x.shape, np.float32))  # Activation declares the shape of its input
    return rng.standard_normal(tuple(output.shape))
