"""A rule and one of its cases as a differentiable function, beside Keras's own."""

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from gradaudit.capture import Replay
from gradaudit.numerics import Arithmetic
from gradaudit.numerics.arithmetic import Array
from gradaudit.rules import (
    ActivationCall,
    Case,
    LayerCall,
    LossCall,
    RegularizerCall,
    Rule,
    own_variables,
)
from gradaudit.rules.losses.reduction import reduce_losses, same_rank

Primals = dict[str, np.ndarray]
Arrays = dict[str, Array]
Vjp = Callable[[Arrays], Arrays]


class Run(NamedTuple):
    """y: outputs by name. vjp: cotangents of these to those of the primals.

    assigned: new values of variables that no gradient moves, by name.
    """

    y: Arrays
    vjp: Vjp
    assigned: Arrays


@dataclass(frozen=True)
class Subject:
    """One case of a rule in one dtype.

    primals: random inputs and weights by name, exactly representable in the dtype.
    variables: names of the primals that are weights of the layer.
    rule: (arithmetic, primals) to what the rule makes of them.
    framework: primals as tensors to Keras's outputs, and what it assigns, by name.
    """

    primals: Primals
    variables: tuple[str, ...]
    rule: Callable[[Arithmetic, Mapping[str, np.ndarray]], Run]
    framework: Callable[
        [Mapping[str, tf.Tensor]], tuple[Mapping[str, tf.Tensor], Mapping[str, tf.Tensor]]
    ]

    def tape(self, primals: Primals) -> Run:
        """Return Keras's outputs and the tape's VJP."""
        return self._own_tape if primals is self.primals else self._taped(primals)

    @functools.cached_property
    def _own_tape(self) -> Run:
        return self._taped(self.primals)

    def _taped(self, primals: Primals) -> Run:
        tensors = {name: tf.constant(value) for name, value in primals.items()}
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(tensors)
            ys, assigned = self.framework(tensors)

        def vjp(dys: Primals) -> Primals:
            given = {name: tf.constant(dy, ys[name].dtype) for name, dy in dys.items()}
            found = tape.gradient(ys, tensors, given, unconnected_gradients="zero")
            return {name: np.asarray(value, np.float64) for name, value in found.items()}

        return Run(_doubles(ys), vjp, _doubles(assigned))


def _doubles(values: Mapping[str, Any]) -> Primals:
    return {name: np.asarray(value, np.float64) for name, value in values.items()}


def subject(rule: Rule, case: Case, dtype: str, rng: np.random.Generator) -> Subject:
    """Return a case of any rule but an optimizer's; call it, and use it, under `floats`."""
    made = {
        "layer": _layer,
        "operation": _layer,
        "activation": _activation,
        "loss": _loss,
        "regularizer": _regularizer,
    }
    return made[rule.kind](rule, case, dtype, rng)


def random_input(
    case: Case, rng: np.random.Generator, shape: tuple[int, ...], dtype: str
) -> np.ndarray:
    """Return values of the kind that a case asks for."""
    if case.inputs == "index":
        return rng.integers(0, 4, shape).astype(np.int32)
    if case.inputs == "probability":
        positive = rng.uniform(0.1, 0.9, shape)
        if shape[-1] > 1:
            positive /= positive.sum(axis=-1, keepdims=True)
        return positive.astype(dtype)
    real = rng.standard_normal(shape)
    return (np.round(real) if case.ties else real).astype(dtype)


@functools.cache
def _replay() -> Replay:
    return Replay(jit=False)


@dataclass
class _Step:
    """Stands for the audited step in one run of a rule: see gradaudit.rules.calls.Step."""

    variables: Mapping[str, Array]
    states: Mapping[str, np.ndarray]
    dtype: str
    draws: Counter[str] = field(default_factory=Counter)
    assigned: Arrays = field(default_factory=dict)

    def draw(self, layer: Any, name: str, shape: tuple[int, ...], **options: Any) -> np.ndarray:
        path = layer.seed_generator.state.path
        state = self.states[path] + np.array([0, self.draws[path]], self.states[path].dtype)
        self.draws[path] += 1
        return _replay()(name, state, shape, self.dtype, **options)

    def read(self, variable: Any, dtype: str) -> Array:
        return self.assigned.get(variable.path, self.variables[variable.path])

    def assign(self, variable: Any, value: Array) -> None:
        self.assigned[variable.path] = value


def _layer(rule: Rule, case: Case, dtype: str, rng: np.random.Generator) -> Subject:
    """Return a case of a layer, or of an operation, which has no weights."""
    target = case.build()
    inputs = {
        "x" if len(case.shapes) == 1 else f"x{n}": random_input(case, rng, shape, dtype)
        for n, shape in enumerate(case.shapes)
    }
    reals = {name: value for name, value in inputs.items() if value.dtype.kind == "f"}
    is_layer = rule.kind == "layer"
    parts = target._flatten_layers() if is_layer else []
    if is_layer:
        case.call(target, list(inputs.values()), case.arguments)  # builds it
    own = own_variables(target)
    names = {v.path: name for name, v in own.items()}
    variables = {v.path: v for v in (target.weights if is_layer else [])}
    primals = dict(reals)
    for path, v in variables.items():
        value = rng.standard_normal(v.shape) if v.trainable else rng.uniform(0.5, 1.5, v.shape)
        primals[names.get(path, path)] = value.astype(dtype)
    seeds = [seed for part in parts for seed in part._seed_generators]
    states = {seed.state.path: np.array(seed.state.value.numpy()) for seed in seeds}

    def apply(arithmetic: Arithmetic, given: Mapping[str, np.ndarray]) -> Run:
        held = {name: arithmetic.array(value, dtype) for name, value in given.items()}
        step = _Step({path: held[names.get(path, path)] for path in variables}, states, dtype)
        weights = {name: held[name] for name in own}
        call = LayerCall(
            target, weights, case.arguments, case.training, arithmetic, dtype, step
        )  # fmt: skip
        xs = tuple(held.get(name, value) for name, value in inputs.items())
        made, rule_vjp = rule.function(call, xs[0] if len(xs) == 1 else xs)
        ys = made if isinstance(made, tuple) else (made,)

        def vjp(dys: Arrays) -> Arrays:
            dy = tuple(dys.values())
            dx, cotangents = rule_vjp(dy if isinstance(made, tuple) else dy[0])
            dxs = (dx,) if len(inputs) == 1 else dx
            found = dict(zip(inputs, dxs, strict=True))
            found = {name: part for name, part in found.items() if part is not None}
            return found | {names.get(key, key): c for key, c in cotangents.items()}

        assigned = {names.get(path, path): value for path, value in step.assigned.items()}
        return Run(_outputs(ys), vjp, assigned)

    def framework(
        given: Mapping[str, tf.Tensor],
    ) -> tuple[Mapping[str, tf.Tensor], Mapping[str, tf.Tensor]]:
        for seed in seeds:
            seed.state.assign(states[seed.state.path])
        mapping = [(v, given[names.get(path, path)]) for path, v in variables.items()]
        mode = {"training": case.training} if is_layer else {}
        with keras.StatelessScope(state_mapping=mapping) as scope:
            tensors = [given.get(name, value) for name, value in inputs.items()]
            ys = case.call(target, tensors, {**case.arguments, **mode})
        after = {names.get(path, path): scope.get_current_value(v) for path, v in variables.items()}
        assigned = {name: value for name, value in after.items() if value is not given[name]}
        return _outputs(keras.tree.flatten(ys)), assigned

    trainable = tuple(names.get(path, path) for path, v in variables.items() if v.trainable)
    return Subject(primals, trainable, apply, framework)


def _outputs(ys: Sequence[Any]) -> dict[str, Any]:
    return {"y" if len(ys) == 1 else f"y{n}": y for n, y in enumerate(ys)}


def _activation(rule: Rule, case: Case, dtype: str, rng: np.random.Generator) -> Subject:
    activation = case.build()

    def apply(arithmetic: Arithmetic, given: Mapping[str, np.ndarray]) -> Run:
        call = ActivationCall(getattr(activation, "keywords", {}))
        y, vjp = rule.function(call, arithmetic.array(given["z"], dtype))
        return Run({"y": y}, lambda dy: {"z": vjp(dy["y"])}, {})

    primals = {"z": 2 * random_input(case, rng, case.shape, dtype)}
    return Subject(primals, (), apply, lambda given: ({"y": activation(given["z"])}, {}))


def _loss(rule: Rule, case: Case, dtype: str, rng: np.random.Generator) -> Subject:
    loss = case.build()
    y_true = targets(case, rng)
    options = getattr(loss, "_fn_kwargs", {})
    rows = (case.shape[0],) + (1,) * (len(case.shape) - 2)
    weight = rng.uniform(0.5, 2.0, rows).astype(dtype)

    def apply(arithmetic: Arithmetic, given: Mapping[str, np.ndarray]) -> Run:
        call = LossCall(loss, options, dtype, arithmetic, keras.config.epsilon())
        true, y_pred = same_rank(y_true, arithmetic.array(given["y_pred"], dtype))
        losses, vjp = rule.function(call, true, y_pred)
        value, reduce_vjp = reduce_losses(call, losses, weight, loss.reduction)
        return Run({"y": value}, lambda d: {"y_pred": vjp(reduce_vjp(d["y"]))}, {})

    def framework(given: Mapping[str, tf.Tensor]) -> tuple[Mapping[str, tf.Tensor], dict]:
        return {"y": loss(y_true, given["y_pred"], sample_weight=weight)}, {}

    primals = {"y_pred": random_input(case, rng, case.shape, dtype)}
    return Subject(primals, (), apply, framework)


def _regularizer(rule: Rule, case: Case, dtype: str, rng: np.random.Generator) -> Subject:
    regularizer = case.build()

    def apply(arithmetic: Arithmetic, given: Mapping[str, np.ndarray]) -> Run:
        call = RegularizerCall(regularizer, dtype, arithmetic, keras.config.epsilon())
        penalty, vjp = rule.function(call, arithmetic.array(given["w"], dtype))
        return Run({"y": penalty}, lambda d: {"w": vjp(d["y"])}, {})

    primals = {"w": random_input(case, rng, case.shape, dtype)}
    return Subject(primals, (), apply, lambda given: ({"y": regularizer(given["w"])}, {}))


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
