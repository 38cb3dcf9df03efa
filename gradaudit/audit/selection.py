"""Which steps and weights are audited, and at most which share of the training's time."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gradaudit.errors import UsageError


@dataclass(frozen=True)
class Selection:
    """Which steps and weights are audited. A step is audited if one of the options selects it.

    every: each `every`-th step from step 0 on, or the first step of each "epoch".
    steps: numbers of steps. first: how many steps from step 0 on.
    layers: a regular expression, found in the path of a weight's layer; None for all weights.

    Raises:
        UsageError: an option is out of its range.
    """

    every: int | Literal["epoch"] | None = None
    steps: Sequence[int] = ()
    first: int = 0
    layers: str | None = None

    def __post_init__(self) -> None:
        if self.every is None and not self.steps and not self.first:
            object.__setattr__(self, "every", 1)
        if self.every not in (None, "epoch") and not is_whole(self.every, least=1):
            raise UsageError(
                f"every is {self.every!r}. Expected a whole number from 1 on, or 'epoch'."
            )
        object.__setattr__(self, "steps", whole_numbers("steps", self.steps))
        if not is_whole(self.first, least=0):
            raise UsageError(f"first is {self.first!r}. Expected a whole number from 0 on.")
        if self.layers is not None:
            try:
                re.compile(self.layers)
            except (re.error, TypeError) as error:
                raise UsageError(
                    f"layers is {self.layers!r}, which is no regular expression ({error}). "
                    "Expected one that names layers, such as 'encoder.*'."
                ) from error

    def step(self, step: int, batch: int) -> bool:
        """Return whether a step is audited; batch: its number within the epoch."""
        if step in self.steps or step < self.first:
            return True
        if self.every == "epoch":
            return batch == 0
        return self.every is not None and step % self.every == 0

    def weight(self, path: str) -> bool:
        """Return whether a weight is audited."""
        return self.layers is None or bool(re.search(self.layers, path.rpartition("/")[0]))

    def options(self) -> dict[str, Any]:
        """Return the options by name."""
        return {name: getattr(self, name) for name in ("every", "steps", "first", "layers")}

    def left_out(self) -> list[str]:
        """Describe what is not audited."""
        words = []
        if self.every != 1:
            taken = []
            if self.first:
                taken.append(f"the first {self.first}")
            if self.steps:
                taken.append(f"number {', '.join(map(str, self.steps))}")
            if self.every == "epoch":
                taken.append("the first of each epoch")
            elif self.every is not None:
                taken.append(f"multiples of {self.every}")
            words.append(f"all steps but {' and '.join(taken)}")
        if self.layers is not None:
            words.append(f"weights of layers in whose path {self.layers!r} is not found")
        return words


class Budget:
    """Keeps the time of an audit below a share of the time of the training without it.

    share: such as 0.05; None for no limit. The first selected step is always audited, since the
    cost of an audit is not known before.

    Raises:
        UsageError: the share is not a number above 0.
    """

    def __init__(self, share: float | None, clock: Callable[[], float] = time.perf_counter) -> None:
        check_budget(share)
        self.share = share
        self.audit_s = 0.0
        self.passed_over = 0
        self._clock = clock
        self._last_s = 0.0
        self._elapsed_s = 0.0
        self._started: float | None = None

    def start(self) -> None:
        """Start the clock at the beginning of a training."""
        self._started = self._clock()

    def stop(self) -> None:
        """Stop the clock at its end."""
        self._elapsed_s = self.elapsed_s
        self._started = None

    @property
    def elapsed_s(self) -> float:
        """Time of the training so far, the audit included."""
        running = 0.0 if self._started is None else self._clock() - self._started
        return self._elapsed_s + running

    def allows(self) -> bool:
        """Return whether one more audited step that costs as much as the last one is allowed."""
        if self.share is None or self.audit_s == 0:
            return True
        training = self.elapsed_s - self.audit_s
        allowed = self.audit_s + self._last_s <= self.share * training
        self.passed_over += not allowed
        return allowed

    def spend(self, seconds: float) -> None:
        """Count an audited step, its training included: the two cannot be told apart."""
        self.audit_s += seconds
        self._last_s = seconds

    def words(self) -> list[str]:
        """Describe what the limit left out."""
        if self.share is None:
            return []
        reached = self.audit_s / max(self.elapsed_s - self.audit_s, 1e-9)
        words = (
            f"{self.passed_over} selected executions, for budget={self.share}: the audit took "
            f"{reached:.1%} of the training's own time"
        )
        if reached > self.share:
            words += ", since the first audited step compiles and the training was short"
        return [words]


def check_budget(share: float | None) -> None:
    """Validate a share of the training's time.

    Raises:
        UsageError: it is not a finite number above 0.
    """
    if share is not None and not 0 < share < float("inf"):
        raise UsageError(f"budget is {share!r}. Expected a share of the time, such as 0.05.")


def whole_numbers(name: str, steps: Any) -> tuple[int, ...]:
    """Return numbers of steps that an argument gives.

    Raises:
        UsageError: these are no whole numbers from 0 on.
    """
    if not isinstance(steps, Sequence) or isinstance(steps, str):
        raise UsageError(f"{name} is {steps!r}. Expected numbers of steps, as (0, 10).")
    if not all(is_whole(step, least=0) for step in steps):
        raise UsageError(f"{name} is {steps!r}. Expected whole numbers from 0 on.")
    return tuple(steps)


def is_whole(value: Any, least: int) -> bool:
    """Return whether a value is a whole number from `least` on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
