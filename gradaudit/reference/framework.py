"""What a judgement asks of the framework that trained: random draws, and graphs of code.

`gradaudit.backends` implements it; `reference` itself imports no framework but Keras's classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gradaudit.records import StepRecord
from gradaudit.tracing import Trace


@dataclass(frozen=True)
class CallTrace:
    """A call of a Keras object, traced.

    The outputs of the trace are, in this order: the tensors that the call returned, the masks that
    Keras keeps on some of them, the logits that it keeps on some, the losses added in the call.

    count: number of tensors returned. masked, with_logits: which of them have a mask, or logits.
    """

    trace: Trace
    count: int
    masked: tuple[int, ...]
    with_logits: tuple[int, ...]


class Traces(Protocol):
    """Traces parts of one model's code, each once for tensors of some shapes and dtypes."""

    def variable(self, path: str) -> Any:
        """Return a variable of the spec's model by its path."""

    def call(self, target: Callable, given: Mapping[str, Any]) -> CallTrace:
        """Trace a call as in training.

        given: its arguments by name, with tensors of this run. The inputs of the trace are those
        of `arguments.inputs_of(given)`.

        Raises:
            UnsupportedModelError: it cannot be traced.
        """

    def step(self, record: StepRecord) -> tuple[Trace, Sequence[np.ndarray]]:
        """Trace a whole step up to its loss; return the trace and the arrays of the batch.

        Raises:
            UnsupportedModelError: it cannot be traced.
        """


class Framework(Protocol):
    """The framework as one step used it."""

    def draw(
        self, name: str, state: np.ndarray, shape: tuple[int, ...], dtype: str, **options: Any
    ) -> np.ndarray:
        """Return what the random function `name` of the framework draws at a seed state."""

    def traces(self, expect: tuple[str, ...], anew: bool = False) -> Traces:
        """Return traces of the step's code.

        expect: names of functions and layers whose custom gradients are taken as they are.
        anew: trace everything again, to see whether that gives the same.
        """
