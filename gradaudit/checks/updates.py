"""An optimizer's rule beside Keras's own optimizer."""

from typing import Any

import keras
import numpy as np

from gradaudit.checks.subject import Primals, floats
from gradaudit.numerics import Arithmetic
from gradaudit.rules import Case, Rule, UpdateCall


def updates(
    rule: Rule, case: Case, dtype: str, arithmetic: Arithmetic, seed: int = 4
) -> list[tuple[dict[str, Any], Primals]]:
    """Return three updates by Keras's optimizer, each beside the rule's from the same state."""
    rng = np.random.default_rng(seed)
    found = []
    with floats(dtype):
        weight = keras.Variable(rng.standard_normal(case.shape), dtype=dtype, name="weight")
        optimizer = case.build()
        optimizer.build([weight])
        lists = {name: getattr(optimizer, attribute, None) for name, attribute in rule.slots}
        slots = {name: held[0] for name, held in lists.items() if held}
        for _ in range(3):
            gradient = rng.standard_normal(case.shape).astype(dtype)
            before = {name: np.array(slot.value.numpy()) for name, slot in slots.items()}
            call = UpdateCall(
                optimizer,
                int(optimizer.iterations.value),
                arithmetic.array(np.array(optimizer.learning_rate.value.numpy()), dtype),
                dtype,
                arithmetic,
            )
            new_weight, new_slots = rule.function(
                call,
                arithmetic.array(np.array(weight.value.numpy()), dtype),
                arithmetic.array(gradient, dtype),
                {name: arithmetic.array(value, dtype) for name, value in before.items()},
            )
            optimizer.apply([keras.ops.convert_to_tensor(gradient)], [weight])
            after = {name: np.array(slot.value.numpy(), np.float64) for name, slot in slots.items()}
            after["weight"] = np.array(weight.value.numpy(), np.float64)
            found.append(({"weight": new_weight, **new_slots}, after))
    return found
