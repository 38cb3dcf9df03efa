"""Subjects by case, dtype and seed, each made once."""

from collections.abc import Callable

import keras
import numpy as np

from gradaudit.rules import Case, Rule
from gradaudit.testing.function_subject import of_activation, of_loss, of_regularizer
from gradaudit.testing.layer_subject import of_layer, of_operation
from gradaudit.testing.subject import Draw, Subject

_BUILT: dict[str, Callable[[Case, str], Draw]] = {
    "layer": of_layer,
    "operation": of_operation,
    "activation": of_activation,
    "loss": of_loss,
    "regularizer": of_regularizer,
}


class Subjects:
    """Subjects by case, dtype and seed, each made once: Keras's objects are slow to build.

    A subject belongs to the Keras object and not to a rule: a wrong rule that is made from a right
    one shares it.
    """

    def __init__(self) -> None:
        self._draws: dict[tuple[Case, str], Draw] = {}
        self._made: dict[tuple[Case, str, int], Subject] = {}

    def of(self, rule: Rule, case: Case, dtype: str = "float64", seed: int = 4) -> Subject:
        """Return the subject of a case; call this, and use the subject, under `floats(dtype)`.

        Args:
            rule: of any kind but an optimizer or a constraint; only its kind matters.
            case: one of its cases.
            dtype: "float64" or "float32".
            seed: of the random inputs and weights.
        """
        if (case, dtype) not in self._draws:
            keras.utils.set_random_seed(4)
            self._draws[case, dtype] = _BUILT[rule.kind](case, dtype)
        if (case, dtype, seed) not in self._made:
            draw = self._draws[case, dtype]
            self._made[case, dtype, seed] = draw(np.random.default_rng(seed))
        return self._made[case, dtype, seed]
