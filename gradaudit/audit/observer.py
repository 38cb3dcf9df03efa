"""What a backend tells an audit about the steps that it runs."""

from collections.abc import Sequence
from typing import Protocol

from gradaudit.records import Gap, StepRecord, StepSpec


class Observer(Protocol):
    """Is given the steps of a training, by the hook of a backend.

    What these methods raise ends the training.
    """

    def taken(self, records: Sequence[StepRecord], spec: StepSpec, apart: float) -> None:
        """Take a step that was recorded.

        Args:
            records: one for each local replica.
            spec: the same for all of them.
            apart: largest relative 2-norm distance, over the variables, between the recorded step
                and the one that trained; 0 where they are one and the same.
        """

    def stale(self, step: int, words: Sequence[str]) -> None:
        """Take note that a step's compiled function is not what the model's code says now.

        Told before the step is taken or missed. words: what the function still does, and what the
        code says; or which of its constants are random numbers.
        """

    def missed(self, step: int, epoch: int, gap: Gap) -> None:
        """Take note of a step that trained, and was not recorded."""

    def failed(self, error: Exception, doing: str) -> Gap:
        """Return why a step is not recorded, or raise; doing: what failed, as "reading step 3"."""

    def executed(self, seconds: float) -> None:
        """Take note of an execution whose steps were recorded.

        seconds: the time that it took, with all that the observer did.
        """
