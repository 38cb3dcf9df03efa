"""Runs an optimizer's update through its rule: from the captured gradients to the new variables."""

from typing import Any

import keras
import numpy as np

from gradaudit.numerics import Arithmetic
from gradaudit.numerics.arithmetic import Array
from gradaudit.records import StepRecord
from gradaudit.rules import UpdateCall, find_rule


def updated(
    optimizer: Any, variables: list[Any], record: StepRecord, arithmetic: Arithmetic
) -> dict[str, Array]:
    """Return the value after the step of each variable that the optimizer's step writes, by path.

    variables: the model's trainable Keras variables.
    As keras/src/optimizers/base_optimizer.py and loss_scale_optimizer.py: gradients g / s for a
    loss scale s; under a LossScaleOptimizer a step with a gradient that is not finite is skipped
    and halves s, and every `dynamic_growth_steps` finite ones in a row double it.
    """
    before = record.optimizer_variables
    inner, scale, after = optimizer, getattr(optimizer, "loss_scale_factor", None), {}
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        inner = optimizer.inner_optimizer
        given = [g for g in record.gradients.values() if g is not None]
        finite = all(np.isfinite(g).all() for g in given)
        scale, count = before[optimizer.dynamic_scale.path], before[optimizer.step_counter.path]
        grow = finite and count == optimizer.dynamic_growth_steps - 1
        factor = 0.5 if not finite else 2.0 if grow else 1.0
        after[optimizer.dynamic_scale.path] = arithmetic.array(scale * factor, "float32")
        after[optimizer.step_counter.path] = arithmetic.array(
            count + 1 if finite and not grow else 0, "float64"
        )
        if not finite:
            return after | _unchanged(inner, variables, record, arithmetic)
    step = int(before[inner.iterations.path])
    after[inner.iterations.path] = arithmetic.array(step + 1, "float64")
    rule = find_rule(inner)
    for variable in variables:
        gradient = record.gradients.get(variable.path)
        weight = arithmetic.array(record.variables[variable.path], variable.dtype)
        slots = {
            name: (slot, arithmetic.array(before[slot.path], slot.dtype))
            for name, slot in _slots(inner, rule, variable)
        }
        if gradient is None:
            after[variable.path] = weight
            continue
        g = arithmetic.array(gradient, variable.dtype)
        if scale is not None:
            g = g / arithmetic.array(scale, variable.dtype)
        learning_rate = arithmetic.array(record.learning_rate, variable.dtype)
        call = UpdateCall(inner, step, learning_rate, variable.dtype, arithmetic)
        after[variable.path], new_slots = rule.function(
            call, weight, g, {name: value for name, (_, value) in slots.items()}
        )
        after.update({slots[name][0].path: value for name, value in new_slots.items()})
    return after


def _slots(optimizer: Any, rule: Any, variable: Any) -> list[tuple[str, Any]]:
    """Return the optimizer variables that belong to one weight, by the name that its rule uses."""
    index = optimizer._get_variable_index(variable)
    lists = [(name, getattr(optimizer, attribute, None)) for name, attribute in rule.slots]
    return [(name, held[index]) for name, held in lists if held]


def _unchanged(
    optimizer: Any, variables: list[Any], record: StepRecord, arithmetic: Arithmetic
) -> dict[str, Array]:
    """Return what a skipped step leaves: weights, slots and the count of steps as they were."""
    held = {v.path: (record.variables[v.path], v.dtype) for v in variables}
    for variable in variables:
        for _, slot in _slots(optimizer, find_rule(optimizer), variable):
            held[slot.path] = (record.optimizer_variables[slot.path], slot.dtype)
    path = optimizer.iterations.path
    held[path] = (record.optimizer_variables[path], "float64")
    return {path: arithmetic.array(value, dtype) for path, (value, dtype) in held.items()}
