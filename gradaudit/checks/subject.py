"""A rule and one of its cases as a differentiable function, beside Keras's own."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradaudit.capture import Replay
from gradaudit.numerics import Arithmetic
from gradaudit.numerics.arithmetic import Array
from gradaudit.rules import ActivationCall, Case, LayerCall, LossCall, RegularizerCall, Rule
from gradaudit.rules.losses.reduction import reduce_losses, same_rank

Primals = dict[str, np.ndarray]
Vjp = Callable[[Array], dict[str, Array]]


@dataclass(frozen=True)
class Subject:
    """One case of a rule in one dtype.

    primals: random inputs and weights by name, exactly representable in the dtype.
    variables: names of the primals that are weights of the layer.
    rule: (arithmetic, primals) to the output and its VJP, by name.
    framework: primals as tensors to Keras's output.
    """

    primals: Primals
    variables: tuple[str, ...]
    rule: Callable[[Arithmetic, Mapping[str, np.ndarray]], tuple[Array, Vjp]]
    framework: Callable[[Mapping[str, tf.Tensor]], tf.Tensor]

    def tape(
        self, primals: Primals, dy: np.ndarray | None = None
    ) -> tuple[np.ndarray, Callable[[np.ndarray], Primals]]:
        """Return Keras's output and the tape's VJP."""
        tensors = {name: tf.constant(value) for name, value in primals.items()}
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(tensors)
            y = self.framework(tensors)

        def vjp(dy: np.ndarray) -> Primals:
            given = tf.constant(dy, y.dtype)
            found = tape.gradient(y, tensors, given, unconnected_gradients="zero")
            return {name: np.asarray(value, np.float64) for name, value in found.items()}

        return np.asarray(y, np.float64), vjp


def subject(rule: Rule, case: Case, dtype: str, rng: np.random.Generator) -> Subject:
    """Return a case of any rule but an optimizer's; call it, and use it, under `floats`."""
    made = {
        "layer": _layer,
        "activation": _activation,
        "loss": _loss,
        "regularizer": _regularizer,
    }
    return made[rule.kind](rule, case, dtype, rng)


def _random(
    rng: np.random.Generator, shape: tuple[int, ...], dtype: str, inputs: str = "real"
) -> np.ndarray:
    if inputs == "real":
        return rng.standard_normal(shape).astype(dtype)
    positive = rng.uniform(0.1, 0.9, shape)
    if shape[-1] > 1:
        positive /= positive.sum(axis=-1, keepdims=True)
    return positive.astype(dtype)


@functools.cache
def _replay() -> Replay:
    return Replay(jit=False)


def _layer(rule: Rule, case: Case, dtype: str, rng: np.random.Generator) -> Subject:
    layer = case.build()
    layer.build(case.shape)
    variables = {v.name: v for v in layer.weights}
    primals = {"x": _random(rng, case.shape, dtype, case.inputs)}
    for name, variable in variables.items():
        primals[name] = _random(rng, tuple(variable.shape), dtype)
    seed = getattr(layer, "seed_generator", None)
    state = None if seed is None else np.array(seed.state.value.numpy())

    def draw(layer: Any, name: str, shape: tuple[int, ...], **options: Any) -> np.ndarray:
        return _replay()(name, state, shape, dtype, **options)

    def apply(arithmetic: Arithmetic, given: Mapping[str, np.ndarray]) -> tuple[Array, Vjp]:
        arrays = {name: arithmetic.array(value, dtype) for name, value in given.items()}
        x = arrays.pop("x")
        call = LayerCall(layer, arrays, case.training, arithmetic, draw)
        y, vjp = rule.function(call, x)

        def named(dy: Array) -> dict[str, Array]:
            dx, cotangents = vjp(dy)
            return {"x": dx, **cotangents}

        return y, named

    def framework(given: Mapping[str, tf.Tensor]) -> tf.Tensor:
        if seed is not None:
            seed.state.assign(state)
        mapping = [(variable, given[name]) for name, variable in variables.items()]
        with keras.StatelessScope(state_mapping=mapping):
            return layer(given["x"], training=case.training)

    trainable = tuple(v.name for v in layer.trainable_weights)
    return Subject(primals, trainable, apply, framework)


def _activation(rule: Rule, case: Case, dtype: str, rng: np.random.Generator) -> Subject:
    activation = case.build()

    def apply(arithmetic: Arithmetic, given: Mapping[str, np.ndarray]) -> tuple[Array, Vjp]:
        call = ActivationCall(getattr(activation, "keywords", {}))
        y, vjp = rule.function(call, arithmetic.array(given["z"], dtype))
        return y, lambda dy: {"z": vjp(dy)}

    primals = {"z": 2 * _random(rng, case.shape, dtype, case.inputs)}
    return Subject(primals, (), apply, lambda given: activation(given["z"]))


def _loss(rule: Rule, case: Case, dtype: str, rng: np.random.Generator) -> Subject:
    loss = case.build()
    y_true = targets(case, rng)
    options = getattr(loss, "_fn_kwargs", {})
    rows = (case.shape[0],) + (1,) * (len(case.shape) - 2)
    weight = rng.uniform(0.5, 2.0, rows).astype(dtype)

    def apply(arithmetic: Arithmetic, given: Mapping[str, np.ndarray]) -> tuple[Array, Vjp]:
        call = LossCall(loss, options, dtype, arithmetic, keras.config.epsilon())
        true, y_pred = same_rank(y_true, arithmetic.array(given["y_pred"], dtype))
        losses, vjp = rule.function(call, true, y_pred)
        value, reduce_vjp = reduce_losses(call, losses, weight, loss.reduction)
        return value, lambda d: {"y_pred": vjp(reduce_vjp(d))}

    def framework(given: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return loss(y_true, given["y_pred"], sample_weight=weight)

    primals = {"y_pred": _random(rng, case.shape, dtype, case.inputs)}
    return Subject(primals, (), apply, framework)


def _regularizer(rule: Rule, case: Case, dtype: str, rng: np.random.Generator) -> Subject:
    regularizer = case.build()

    def apply(arithmetic: Arithmetic, given: Mapping[str, np.ndarray]) -> tuple[Array, Vjp]:
        call = RegularizerCall(regularizer, dtype, arithmetic, keras.config.epsilon())
        penalty, vjp = rule.function(call, arithmetic.array(given["w"], dtype))
        return penalty, lambda d: {"w": vjp(d)}

    primals = {"w": _random(rng, case.shape, dtype, case.inputs)}
    return Subject(primals, (), apply, lambda given: regularizer(given["w"]))


def targets(case: Case, rng: np.random.Generator) -> np.ndarray:
    """Return targets for a loss case, of the kind that it names."""
    if case.targets == "real":
        return rng.standard_normal(case.shape)
    if case.targets == "binary":
        return rng.integers(0, 2, case.shape).astype(np.float64)
    axis = getattr(case.build(), "_fn_kwargs", {}).get("axis", -1)
    classes = rng.integers(0, case.shape[axis], np.delete(case.shape, axis))
    if case.targets == "integer":
        return classes
    return np.moveaxis(np.eye(case.shape[axis])[classes], -1, axis)
