"""Optimizers and constraints: updates of one weight by the rule, beside Keras's own."""

import re
from typing import Any

import keras
import numpy as np

from gradaudit.nets.precision import floats
from gradaudit.numerics import Arithmetic
from gradaudit.reference.update import updated
from gradaudit.rules import Case, Rule, keyed
from gradaudit.rules.registry import registered
from gradaudit.testing.subject import Primals

KINDS = ("optimizer", "constraint")
"""The kinds of rules that describe an update and have no VJP."""


def updates(
    rule: Rule, case: Case, dtype: str, arithmetic: Arithmetic, seed: int = 4
) -> list[tuple[dict[str, Any], Primals]]:
    """Return three updates: (values by the rule, values by Keras), each from the same state.

    The values are those of the weight and of the optimizer's variables after the update, by name.

    Args:
        rule: of an optimizer or a constraint; a constraint is run after SGD.
        case: one of its cases.
        dtype: of the weight and of Keras's arithmetic, "float64" or "float32".
        arithmetic: in which the rule is run.
        seed: of the random weight and gradients.
    """
    rng = np.random.default_rng(seed)
    found = []
    with floats(dtype), registered(rule):
        target = case.build()
        constrained = rule.kind == "constraint"
        optimizer = keras.optimizers.SGD(0.1) if constrained else target
        with keras.name_scope("model"):
            weight = keras.Variable(rng.standard_normal(case.shapes[0]), dtype=dtype, name="weight")
        weight.constraint = target if constrained else None
        optimizer.build([weight])
        variables = {weight.path: weight, **keyed(optimizer.variables)}
        for _ in range(3):
            gradient = rng.standard_normal(case.shapes[0]).astype(dtype)
            before = {key: np.array(v.value.numpy()) for key, v in variables.items()}
            rate = float(keras.ops.convert_to_tensor(optimizer.learning_rate))
            parts = updated(
                optimizer,
                [weight],
                before,
                [{weight.path: gradient}],
                [rate],
                arithmetic,
                keras.config.epsilon(),
            )
            ours = {key: value for part in parts for key, value in part.items()}
            optimizer.apply([keras.ops.convert_to_tensor(gradient)], [weight])
            after = {key: np.array(v.value.numpy(), np.float64) for key, v in variables.items()}
            found.append((_named(ours, optimizer), _named(after, optimizer)))
    return found


def _named(values: dict[str, Any], optimizer: Any) -> dict[str, Any]:
    """Return values by names without the numbers that Keras adds: adam_1/..., variable_1."""
    own = f"{optimizer.name}/"
    return {re.sub(r"^variable_\d+$", "variable", k.removeprefix(own)): values[k] for k in values}
