"""The variables of a step while it runs: read, assigned to, and drawn random numbers from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradaudit.numerics import Arithmetic
from gradaudit.numerics.arithmetic import Array
from gradaudit.reference.graph import is_float

Replay = Callable[..., np.ndarray]


@dataclass
class State:
    """The variables of one run of a step; the `Step` that rules and traces are given.

    variables: values before the step, by path. arithmetic: that of the run.
    replay: repeats a random draw from a seed's state, see `framework.Framework.draw`.
    assigned: what layers made of variables that no gradient moves, by path.
    """

    variables: Mapping[str, np.ndarray]
    arithmetic: Arithmetic
    replay: Replay
    assigned: dict[str, Array] = field(default_factory=dict, init=False)
    _read: dict[tuple[str, str], Array] = field(default_factory=dict, init=False)

    def draw(self, layer: Any, name: str, shape: tuple[int, ...], **options: Any) -> np.ndarray:
        """Repeat the layer's next random draw of this step.

        Each draw adds (0, 1) to the seed's state: keras/src/random/seed_generator.py.
        """
        seed = layer.seed_generator.state
        state = self.read(seed, seed.dtype)
        self.assign(seed, state + np.array([0, 1], seed.dtype))
        return self.replay(name, state, shape, **{"dtype": layer.compute_dtype, **options})

    def read(self, variable: Any, dtype: str) -> Array:
        """Return a variable's present value in this step, cast to a dtype."""
        key = variable.path, dtype
        if key not in self._read:
            value: Any = self.assigned.get(variable.path)
            if value is None:
                value = self.variables[variable.path]
                if is_float(variable.dtype):
                    value = self.arithmetic.array(value, variable.dtype)
            floats = is_float(dtype) and is_float(variable.dtype)
            self._read[key] = self.arithmetic.cast(value, dtype) if floats else value
        return self._read[key]

    def assign(self, variable: Any, value: Array) -> None:
        """Note a variable's new value."""
        floats = is_float(variable.dtype)
        self.assigned[variable.path] = (
            self.arithmetic.cast(value, variable.dtype) if floats else value
        )
        self._read = {key: value for key, value in self._read.items() if key[0] != variable.path}
