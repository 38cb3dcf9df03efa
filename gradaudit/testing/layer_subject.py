"""Layers and operations as subjects: inputs, weights, random draws, assigned variables."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradaudit import keras_compat
from gradaudit.backends.tensorflow import present_config
from gradaudit.numerics import Arithmetic
from gradaudit.rules import Case, LayerCall, Rule, own_variables
from gradaudit.testing.inputs import random_input
from gradaudit.testing.kernels import needs_xla
from gradaudit.testing.steps import SubjectStep
from gradaudit.testing.subject import Arrays, Draw, Primals, Run, Subject


def of_layer(case: Case, dtype: str) -> Draw:
    """Build a layer."""
    target = case.build()
    rng = np.random.default_rng(4)
    inputs = [random_input(case, rng, shape, dtype) for shape in case.shapes]
    _call(case, target, inputs, case.arguments)
    parts = keras_compat.all_layers(target)
    return lambda rng: _drawn(case, dtype, target, target.weights, parts, rng)


def of_operation(case: Case, dtype: str) -> Draw:
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
    seeds = [seed for part in parts for seed in keras_compat.seed_generators(part)]
    states = {
        seed.state.path: rng.integers(2**31, size=seed.state.shape).astype(seed.state.dtype)
        for seed in seeds
    }

    def run(
        rule: Rule,
        arithmetic: Arithmetic,
        given: Primals,
        fixed: Arrays = MappingProxyType({}),
    ) -> Run:
        held = {name: arithmetic.array(value, dtype) for name, value in given.items()}
        now = {path: held[names[path]] for path in variables}
        after = {path: fixed[names[path]] for path in variables if names[path] in fixed}
        step = SubjectStep(now, states, dtype, after)
        own_weights = {name: held[name] for name in own if name in held}
        arguments = case.arguments, case.training
        call = LayerCall(target, own_weights, *arguments, arithmetic, dtype, step, present_config())
        xs = tuple(held.get(name, value) for name, value in inputs.items())
        x = xs[0] if len(xs) == 1 else xs
        made, rule_vjp = rule.function(call, x)
        ys = made if isinstance(made, tuple) else (made,)

        def vjp(dys: Arrays) -> dict[str, Any]:
            dy = tuple(dys.values())
            dx, cotangents = rule_vjp(dy if isinstance(made, tuple) else dy[0])
            dxs = (dx,) if len(inputs) == 1 else dx
            found = dict(zip(inputs, dxs, strict=True))
            found = {name: part for name, part in found.items() if part is not None}
            return found | {names.get(key, key): c for key, c in cotangents.items()}

        assigned = {names.get(path, path): value for path, value in step.assigned.items()}
        mask = None if rule.mask is None else rule.mask(call, x, None)
        mask = mask if isinstance(mask, np.ndarray) else None
        return Run(_outputs(ys), vjp, assigned, frozenset(call.passed), mask)

    def framework(
        given: Mapping[str, tf.Tensor],
    ) -> tuple[Mapping[str, tf.Tensor], Mapping[str, tf.Tensor]]:
        for seed in seeds:
            seed.state.assign(states[seed.state.path])
        mapping = [(v, given[names[path]]) for path, v in variables.items()]
        mode = {"training": case.training} if isinstance(target, keras.Layer) else {}
        with keras.StatelessScope(state_mapping=mapping) as scope:
            tensors = [given.get(name, value) for name, value in inputs.items()]
            ys = _call(case, target, tensors, {**case.arguments, **mode})
        after = {names[path]: scope.get_current_value(v) for path, v in variables.items()}
        assigned = {name: value for name, value in after.items() if value is not given[name]}
        return _outputs(keras.tree.flatten(ys)), assigned

    fixed_names = {names[path] for path, v in variables.items() if not v.trainable}
    differentiable = tuple(name for name in primals if name not in fixed_names)
    moved = tuple(name for name in inputs if name in primals)
    states_of = tuple(seed.state for seed in seeds)
    return Subject(primals, moved, differentiable, run, framework, states_of)


def _call(case: Case, target: Any, tensors: Sequence[Any], arguments: Mapping[str, Any]) -> Any:
    """Return what Keras makes of a case's tensors, under XLA where there is no other kernel."""
    if not needs_xla(case, tf.as_dtype(tensors[0].dtype).name):
        return case.call(target, tensors, arguments)
    compiled = tf.function(lambda *xs: case.call(target, xs, arguments), jit_compile=True)
    return compiled(*map(tf.convert_to_tensor, tensors))


def _outputs(ys: Sequence[Any]) -> dict[str, Any]:
    return {"y" if len(ys) == 1 else f"y{n}": y for n, y in enumerate(ys)}
