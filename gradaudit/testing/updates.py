"""Optimizers and constraints: updates of one weight by the rule, beside Keras's own."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from gradaudit.nets.precision import floats
from gradaudit.numerics import Arithmetic, Rounding
from gradaudit.reference.bounds import SAMPLE
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
    found = []
    for step in _steps(rule, case, case.shapes[0], dtype, seed):
        ours = step.by_rule(arithmetic)
        found.append((_named(ours, step.optimizer), _named(step.after, step.optimizer)))
    return found


def updates_and_bounds(rule: Rule, case: Case) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return three float32 updates: (values by the rule, the same with lower bounds of σ), by name.

    The weight has the axes of the case's own, and as many elements as an update by blocks needs.
    """
    first, *others = case.shapes[0] or (1,)
    most = -(-4 * SAMPLE // math.prod((first, *others)))
    found = []
    for step in _steps(rule, case, (first * most, *others), "float32", seed=4):
        pair = step.by_rule(Rounding()), step.by_rule(Rounding(), taken=step.after)
        found.append((_named(pair[0], step.optimizer), _named(pair[1], step.optimizer)))
    return found


@dataclass(frozen=True)
class _Step:
    """One update by Keras. before, after: the values of its variables, by key."""

    rule: Rule
    optimizer: Any
    weight: Any
    gradient: np.ndarray
    rate: float
    before: dict[str, np.ndarray]
    after: dict[str, np.ndarray]

    def by_rule(
        self, arithmetic: Arithmetic, taken: dict[str, np.ndarray] | None = None
    ) -> dict[str, Any]:
        """Return the values after the update by the rule; taken: see `reference.update`."""
        with np.errstate(all="ignore"), registered(self.rule):
            parts = updated(
                self.optimizer,
                [self.weight],
                self.before,
                [{self.weight.path: self.gradient}],
                [self.rate],
                arithmetic,
                keras.config.epsilon(),
                taken=taken,
            )
            return {key: value for part in parts for key, value in part.items()}


def _steps(
    rule: Rule, case: Case, shape: tuple[int, ...], dtype: str, seed: int
) -> Iterator[_Step]:
    """Yield three updates of a random weight, each from the state that the last one left."""
    rng = np.random.default_rng(seed)
    with floats(dtype):
        target = case.build()
        constrained = rule.kind == "constraint"
        optimizer = keras.optimizers.SGD(0.1) if constrained else target
        with keras.name_scope("model"):
            weight = keras.Variable(rng.standard_normal(shape), dtype=dtype, name="weight")
        weight.constraint = target if constrained else None
        optimizer.build([weight])
        variables = {weight.path: weight, **keyed(optimizer.variables)}
        for _ in range(3):
            gradient = rng.standard_normal(shape).astype(dtype)
            before = {key: np.array(v.value.numpy()) for key, v in variables.items()}
            rate = float(keras.ops.convert_to_tensor(optimizer.learning_rate))
            optimizer.apply([keras.ops.convert_to_tensor(gradient)], [weight])
            after = {key: np.array(v.value.numpy(), np.float64) for key, v in variables.items()}
            yield _Step(rule, optimizer, weight, gradient, rate, before, after)


def _named(values: dict[str, Any], optimizer: Any) -> dict[str, Any]:
    """Return values by names without the numbers that Keras adds: adam_1/..., variable_1."""
    own = f"{optimizer.name}/"
    return {re.sub(r"^variable_\d+$", "variable", k.removeprefix(own)): values[k] for k in values}
