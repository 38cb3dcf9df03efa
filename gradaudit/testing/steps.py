"""A stand-in for the audited step, in which the checks run a rule."""

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradaudit.backends.tensorflow import Replay


@functools.cache
def _replay() -> Replay:
    return Replay(jit=False)


@dataclass
class SubjectStep:
    """The variables and draws of one run of a rule: see gradaudit.rules.context.Step.

    variables: arrays of any arithmetic by variable path.
    states: those of the seed generators, by path.
    dtype: of draws that name none.
    fixed: values by variable path that replace what the rule assigns to them.
    draws: how many draws were made from each seed generator so far.
    assigned: what the rule assigned, by variable path.
    """

    variables: Mapping[str, Any]
    states: Mapping[str, np.ndarray]
    dtype: str
    fixed: Mapping[str, Any]
    draws: Counter[str] = field(default_factory=Counter)
    assigned: dict[str, Any] = field(default_factory=dict)

    def draw(self, layer: Any, name: str, shape: tuple[int, ...], **options: Any) -> np.ndarray:
        """Repeat the layer's next draw."""
        path = layer.seed_generator.state.path
        state = self.states[path] + np.array([0, self.draws[path]], self.states[path].dtype)
        self.draws[path] += 1
        return _replay()(name, state, shape, **{"dtype": self.dtype, **options})

    def read(self, variable: Any, dtype: str) -> Any:
        """Return the value of a variable, after the last assignment."""
        return self.assigned.get(variable.path, self.variables[variable.path])

    def assign(self, variable: Any, value: Any) -> None:
        """Record what the rule assigns to a variable."""
        self.assigned[variable.path] = self.fixed.get(variable.path, value)
