"""TensorFlow as one step used it: its random draws, and graphs of the model's code."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from gradaudit.backends.tensorflow.python_state import PythonState
from gradaudit.backends.tensorflow.replay import Replay
from gradaudit.backends.tensorflow.traces import Traces
from gradaudit.errors import GapCode, UnsupportedModelError
from gradaudit.records import StepRecord


class Detached:
    """TensorFlow for a step that was read from a file: without the model's code.

    replay: repeats the draws of the step.
    """

    def __init__(self, replay: Replay) -> None:
        self.draw = replay

    def traces(self, expect: tuple[str, ...], anew: bool = False) -> "_NoCode":
        """Return what refuses to trace."""
        return _NoCode()


class _NoCode:
    """Refuses to trace code that a file does not hold."""

    def variable(self, path: str) -> Any:
        raise _no_code()

    def call(self, target: Any, given: Mapping[str, Any]) -> Any:
        raise _no_code()

    def step(self, record: StepRecord) -> Any:
        raise _no_code()


def _no_code() -> UnsupportedModelError:
    return UnsupportedModelError(
        "a part of the model has no derived rule, and the recorded step does not hold the model's "
        "code. Expected derived rules for all parts. Judge the step in the process that trained, "
        "or build the model for it (gradaudit judge --model).",
        GapCode.UNTRACEABLE,
    )


class TensorFlow:
    """What derivations ask of TensorFlow; see `gradaudit.reference.framework.Framework`.

    model: whose code is traced. copy: the model of the spec. live: parts of the first, by the ids
        of those of the second.
    replay: repeats the draws of the step. state: the Python values of the step, None for those of
        the moment in which code is traced.
    """

    def __init__(
        self,
        model: keras.Model,
        copy: keras.Model,
        live: Mapping[int, Any],
        replay: Replay,
        state: PythonState | None = None,
    ) -> None:
        self._given = model, copy, live
        self._state = state
        self._replay = replay
        self._traces: dict[tuple[str, ...], Traces] = {}

    def draw(
        self, name: str, state: np.ndarray, shape: tuple[int, ...], dtype: str, **options: Any
    ) -> np.ndarray:
        """Return what `keras.random.<name>` draws at a seed state."""
        return self._replay(name, state, shape, dtype, **options)

    def traces(self, expect: tuple[str, ...], anew: bool = False) -> Traces:
        """Return traces of the model's code, made once for each set of expectations."""
        if anew:
            return Traces(*self._given, expect, self._state)
        if expect not in self._traces:
            self._traces[expect] = Traces(*self._given, expect, self._state)
        return self._traces[expect]
