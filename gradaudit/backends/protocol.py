"""What the rooms above ask of a backend. The package of a backend implements it as a module."""

from collections.abc import Callable
from os import PathLike
from typing import TYPE_CHECKING, Any, Protocol

import keras
import numpy as np

from gradaudit.backends.fit import StepCounter
from gradaudit.records import Config, StepRecord, StepSpec

if TYPE_CHECKING:
    from gradaudit.audit.observer import Observer


class Hook(Protocol):
    """Takes the place of a model's train function, and hands each step to an observer."""

    def arm(self, records: bool = True) -> bool:
        """Take the place of Keras's function for the next execution; False if another hook has.

        records: whether the execution is recorded, or only watched.
        """

    def disarm(self) -> None:
        """Give the model its own function back."""

    def trace(self, data: Any, iterator: Any) -> Any:
        """Compile the step for a batch, and make the variables that the first step makes.

        Raises:
            UnsupportedModelError: the step cannot be captured.
        """

    def execute(self, iterator: Any) -> Any:
        """Run one execution on the batches of an iterator; return its logs."""


class Backend(Protocol):
    """A framework that Keras runs on, as `gradaudit.backends.backend_of` returns it.

    `StepHook` and `Replay` may be classes.
    """

    def StepHook(
        self, model: keras.Model, observer: "Observer", counter: StepCounter | None = None
    ) -> Hook:
        """Return a hook for a compiled model; counter: numbers the steps, None to begin at 0."""

    def Replay(self, jit: bool) -> Callable[..., np.ndarray]:
        """Return what repeats random draws, see `reference.framework.Framework.draw`.

        jit: whether the step was compiled by XLA.
        """

    def uncaptured(self, model: keras.Model, step: int, epoch: int) -> StepRecord:
        """Return a record of a step of which nothing is known but the weights."""

    def specified(self, model: keras.Model, replay: Any) -> StepSpec:
        """Return the spec of a step that the model takes now; replay: what `Replay` returned."""

    def present_config(self) -> Config:
        """Return the settings of Keras as they are now."""

    def write_step(self, path: str | PathLike, record: StepRecord, spec: StepSpec) -> None:
        """Write a recorded step to a file, whole or not at all.

        Raises:
            DataError: no file holds the step.
        """

    def read_step(
        self, path: str | PathLike, model: keras.Model | None = None
    ) -> tuple[StepRecord, StepSpec]:
        """Read a recorded step; model: the one that took it, for code without a derived rule.

        Raises:
            DataError: the file is not a recorded step, or one of another model.
        """

    def environment(self, model: keras.Model) -> dict[str, Any]:
        """Return the entries of run.json that describe the framework and the model."""

    def to_numpy(self, structure: Any) -> Any:
        """Return a structure with its tensors as NumPy arrays."""

    def worker(self, strategy: Any) -> tuple[int, int]:
        """Return the number of this process among the workers, and the number of workers.

        strategy: the model's `distribute_strategy`.
        """

    def wait_for_all(self, strategy: Any) -> None:
        """Wait until every worker has called this."""
