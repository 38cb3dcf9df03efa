"""One case of a rule as a differentiable function, beside Keras's own."""

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from gradaudit.backends.tensorflow import Replay
from gradaudit.numerics import Arithmetic, Plain
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
from gradaudit.tracing import trace

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
    """One case of the rules for one Keras object, in one dtype.

    primals: random inputs and weights by name, exactly representable in the dtype.
    differentiable: names of the inputs and trainable weights among them: each has a cotangent.
    run: (rule, arithmetic, primals, fixed) to what the rule makes of them; fixed: what variables
        are after an assignment, whatever the rule assigns, by name.
    framework: primals as tensors to Keras's outputs, and what it assigns, by name.
    states: of the seeds that Keras draws from.
    """

    primals: Primals
    differentiable: tuple[str, ...]
    run: Callable[..., Run]
    framework: Callable[
        [Mapping[str, tf.Tensor]], tuple[Mapping[str, tf.Tensor], Mapping[str, tf.Tensor]]
    ]
    states: tuple[keras.Variable, ...] = ()

    @functools.cached_property
    def traced(self) -> Run:
        """What a trace of Keras's own code makes of the primals, in float64.

        To an assigned variable goes the cotangent of its value before, through the assignment.
        """
        names = tuple(self.primals)

        def outputs(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
            return dict(self.framework(dict(zip(names, tensors, strict=True)))[0])

        found = trace(outputs, list(self.primals.values()), self.states)
        step = _Step({v.path: np.asarray(v.value) for v in self.states}, {}, "float64", {})
        with np.errstate(all="ignore"):  # branches that are not taken may be infinite
            ys, vjp = found.run(list(self.primals.values()), step, Plain(np.float64), jit=False)
        order = sorted(found.structure)  # as TensorFlow flattens a dict

        def vjp_by_name(dys: Primals) -> Primals:
            with np.errstate(all="ignore"):
                back = vjp([dys[name] for name in order]).of_inputs
            return {
                name: np.zeros(self.primals[name].shape) if dx is None else dx
                for name, dx in zip(names, back, strict=True)
            }

        return Run(dict(zip(order, ys, strict=True)), vjp_by_name, {})

    def tape(self, primals: Primals) -> Run:
        """Return Keras's outputs and the tape's VJP.

        A variable that is assigned to takes the cotangent of its new value, as TensorFlow's do: no
        gradient goes through an assignment.
        """
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
            sources = {**tensors, **assigned}
            found = tape.gradient(ys, sources, given, unconnected_gradients="zero")
            return _doubles({name: tf.convert_to_tensor(d) for name, d in found.items()})

        return Run(_doubles(ys), vjp, _doubles(assigned))


def _doubles(values: Mapping[str, Any]) -> Primals:
    return {name: np.asarray(value, np.float64) for name, value in values.items()}


Draw = Callable[[np.random.Generator], Subject]
"""From a generator of random numbers to a subject with these as its primals."""


class Subjects:
    """Subjects by case, dtype and seed, each made once: Keras's objects are slow to build.

    A wrong rule that is made from a right one shares them: they are of the Keras object.
    """

    def __init__(self) -> None:
        self._draws: dict[tuple[Case, str], Draw] = {}
        self._made: dict[tuple[Case, str, int], Subject] = {}

    def of(self, rule: Rule, case: Case, dtype: str = "float64", seed: int = 4) -> Subject:
        """Return a case of any rule but an optimizer's; call it, and use it, under `floats`."""
        if (case, dtype) not in self._draws:
            keras.utils.set_random_seed(4)
            self._draws[case, dtype] = _BUILT[rule.kind](case, dtype)
        if (case, dtype, seed) not in self._made:
            draw = self._draws[case, dtype]
            self._made[case, dtype, seed] = draw(np.random.default_rng(seed))
        return self._made[case, dtype, seed]


def random_input(
    case: Case, rng: np.random.Generator, shape: tuple[int, ...], dtype: str
) -> np.ndarray:
    """Return values of the kind that a case asks for."""
    if case.inputs == "index":
        return rng.integers(0, 4, shape).astype(np.int32)
    if case.inputs == "probability":
        return _probabilities(rng, shape).astype(dtype)
    real = rng.standard_normal(shape) + (100.0 if case.inputs == "offset" else 0.0)
    return (np.round(real) if case.ties else real).astype(dtype)


def _probabilities(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    positive = rng.uniform(0.1, 0.9, shape)
    return positive / positive.sum(axis=-1, keepdims=True) if shape[-1] > 1 else positive


@functools.cache
def _replay() -> Replay:
    return Replay(jit=False)


@dataclass
class _Step:
    """Stands for the audited step in one run of a rule: see gradaudit.rules.context.Step."""

    variables: Mapping[str, Array]
    states: Mapping[str, np.ndarray]
    dtype: str
    fixed: Mapping[str, np.ndarray]
    draws: Counter[str] = field(default_factory=Counter)
    assigned: Arrays = field(default_factory=dict)

    def draw(self, layer: Any, name: str, shape: tuple[int, ...], **options: Any) -> np.ndarray:
        path = layer.seed_generator.state.path
        state = self.states[path] + np.array([0, self.draws[path]], self.states[path].dtype)
        self.draws[path] += 1
        return _replay()(name, state, shape, **{"dtype": self.dtype, **options})

    def read(self, variable: Any, dtype: str) -> Array:
        return self.assigned.get(variable.path, self.variables[variable.path])

    def assign(self, variable: Any, value: Array) -> None:
        self.assigned[variable.path] = self.fixed.get(variable.path, value)


def _layer(case: Case, dtype: str) -> Draw:
    """Build a layer."""
    target = case.build()
    rng = np.random.default_rng(4)
    inputs = [random_input(case, rng, shape, dtype) for shape in case.shapes]
    _call(case, target, inputs, case.arguments)
    return lambda rng: _drawn(case, dtype, target, target.weights, target._flatten_layers(), rng)


def _operation(case: Case, dtype: str) -> Draw:
    """Build an operation, which has no weights."""
    target = case.build()
    return lambda rng: _drawn(case, dtype, target, [], [], rng)


def _drawn(
    case: Case,
    dtype: str,
    target: Any,
    weights: Sequence[Any],
    parts: Sequence[Any],
    rng: np.random.Generator,
) -> Subject:
    inputs = {
        "x" if len(case.shapes) == 1 else f"x{n}": random_input(case, rng, shape, dtype)
        for n, shape in enumerate(case.shapes)
    }
    own = own_variables(target)
    variables = {v.path: v for v in weights if "float" in v.dtype}
    names = {path: path.removeprefix(f"{target.name}/") for path in variables}
    names |= {v.path: name for name, v in own.items()}
    primals = {name: value for name, value in inputs.items() if value.dtype.kind == "f"}
    for path, v in variables.items():
        value = rng.standard_normal(v.shape) if v.trainable else rng.uniform(0.5, 1.5, v.shape)
        primals[names[path]] = value.astype(dtype)
    seeds = [seed for part in parts for seed in part._seed_generators]
    states = {
        seed.state.path: rng.integers(2**31, size=seed.state.shape).astype(seed.state.dtype)
        for seed in seeds
    }

    def run(
        rule: Rule,
        arithmetic: Arithmetic,
        given: Mapping[str, np.ndarray],
        fixed: Mapping[str, np.ndarray] = MappingProxyType({}),
    ) -> Run:
        held = {name: arithmetic.array(value, dtype) for name, value in given.items()}
        now = {path: held[names.get(path, path)] for path in variables}
        after = {
            path: fixed[name] for path in variables if (name := names.get(path, path)) in fixed
        }
        step = _Step(now, states, dtype, after)
        own_weights = {name: held[name] for name in own if name in held}
        arguments = case.arguments, case.training
        call = LayerCall(target, own_weights, *arguments, arithmetic, dtype, step)
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
        mode = {"training": case.training} if isinstance(target, keras.Layer) else {}
        with keras.StatelessScope(state_mapping=mapping) as scope:
            tensors = [given.get(name, value) for name, value in inputs.items()]
            ys = _call(case, target, tensors, {**case.arguments, **mode})
        after = {names.get(path, path): scope.get_current_value(v) for path, v in variables.items()}
        assigned = {name: value for name, value in after.items() if value is not given[name]}
        return _outputs(keras.tree.flatten(ys)), assigned

    fixed = {names[path] for path, v in variables.items() if not v.trainable}
    differentiable = tuple(name for name in primals if name not in fixed)
    return Subject(primals, differentiable, run, framework, tuple(seed.state for seed in seeds))


def _call(case: Case, target: Any, tensors: Sequence[Any], arguments: Mapping[str, Any]) -> Any:
    """Return what Keras makes of a case's tensors."""
    if not case.compiled or tensors[0].dtype != np.float64:
        return case.call(target, tensors, arguments)
    compiled = tf.function(lambda *xs: case.call(target, xs, arguments), jit_compile=True)
    return compiled(*map(tf.convert_to_tensor, tensors))


def _outputs(ys: Sequence[Any]) -> dict[str, Any]:
    return {"y" if len(ys) == 1 else f"y{n}": y for n, y in enumerate(ys)}


def _activation(case: Case, dtype: str) -> Draw:
    activation = case.build()

    def run(rule: Rule, arithmetic: Arithmetic, given: Mapping[str, np.ndarray]) -> Run:
        call = ActivationCall(getattr(activation, "keywords", {}))
        y, vjp = rule.function(call, arithmetic.array(given["z"], dtype))
        return Run({"y": y}, lambda dy: {"z": vjp(dy["y"])}, {})

    def draw(rng: np.random.Generator) -> Subject:
        primals = {"z": 2 * random_input(case, rng, case.shape, dtype)}
        return Subject(primals, ("z",), run, lambda given: ({"y": activation(given["z"])}, {}))

    return draw


def _loss(case: Case, dtype: str) -> Draw:
    loss = case.build()
    options = getattr(loss, "_fn_kwargs", {})

    def draw(rng: np.random.Generator) -> Subject:
        y_true = targets(case, case.shape, rng)
        losses = loss.call(tf.constant(y_true, dtype), tf.zeros(case.shape, dtype))
        rows, *others = tuple(losses.shape) or case.shape[:1]
        weight = rng.uniform(0.5, 2.0, (rows,) + (1,) * len(others)).astype(dtype)

        def run(rule: Rule, arithmetic: Arithmetic, given: Mapping[str, np.ndarray]) -> Run:
            call = LossCall(loss, options, dtype, arithmetic, keras.config.epsilon())
            true, y_pred = same_rank(y_true, arithmetic.array(given["y_pred"], dtype))
            losses, vjp = rule.function(call, true, y_pred)
            mask = None if rule.mask is None else rule.mask(call, true, losses)
            value, reduce_vjp = reduce_losses(call, losses, weight, loss.reduction, mask=mask)
            return Run({"y": value}, lambda d: {"y_pred": vjp(reduce_vjp(d["y"]))}, {})

        def framework(given: Mapping[str, tf.Tensor]) -> tuple[Mapping[str, tf.Tensor], dict]:
            return {"y": loss(y_true, given["y_pred"], sample_weight=weight)}, {}

        primals = {"y_pred": random_input(case, rng, case.shape, dtype)}
        return Subject(primals, ("y_pred",), run, framework)

    return draw


def _regularizer(case: Case, dtype: str) -> Draw:
    regularizer = case.build()

    def run(rule: Rule, arithmetic: Arithmetic, given: Mapping[str, np.ndarray]) -> Run:
        call = RegularizerCall(regularizer, dtype, arithmetic, keras.config.epsilon())
        penalty, vjp = rule.function(call, arithmetic.array(given["w"], dtype))
        return Run({"y": penalty}, lambda d: {"w": vjp(d["y"])}, {})

    def draw(rng: np.random.Generator) -> Subject:
        primals = {"w": random_input(case, rng, case.shape, dtype)}
        return Subject(primals, ("w",), run, lambda given: ({"y": regularizer(given["w"])}, {}))

    return draw


_BUILT: dict[str, Callable[[Case, str], Draw]] = {
    "layer": _layer,
    "operation": _operation,
    "activation": _activation,
    "loss": _loss,
    "regularizer": _regularizer,
}


def targets(case: Case, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return targets for predictions of a shape, of the kind that a loss's case names."""
    if case.targets == "real":
        return rng.standard_normal(shape)
    if case.targets == "binary":
        return rng.integers(0, 2, shape).astype(np.float64)
    if case.targets == "probability":
        return _probabilities(rng, shape)
    axis = getattr(case.build(), "_fn_kwargs", {}).get("axis", -1)
    classes = rng.integers(0, shape[axis], np.delete(shape, axis))
    if case.targets == "integer":
        return classes
    return np.moveaxis(np.eye(shape[axis])[classes], -1, axis)
