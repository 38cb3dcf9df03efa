"""TensorFlow as one step used it: its random draws, and graphs of the model's code."""

from typing import Any

import keras
import numpy as np

from gradaudit.backends.tensorflow.replay import Replay
from gradaudit.backends.tensorflow.traces import Traces


class TensorFlow:
    """What derivations ask of TensorFlow; see `gradaudit.reference.framework.Framework`.

    model: whose code is traced. replay: repeats the draws of the step.
    """

    def __init__(self, model: keras.Model, replay: Replay) -> None:
        self._model = model
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
            return Traces(self._model, expect)
        if expect not in self._traces:
            self._traces[expect] = Traces(self._model, expect)
        return self._traces[expect]
