"""The settings of an audit, validated once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from gradaudit.audit.selection import Selection, check_budget, is_whole, whole_numbers
from gradaudit.audit.sigma import When
from gradaudit.errors import UsageError
from gradaudit.records import DEFAULT_THRESHOLD, Oracle
from gradaudit.reference import Policy
from gradaudit.reference.policy import ORACLES
from gradaudit.report import Format
from gradaudit.scoring import RowsPerTensor


class Mode(StrEnum):
    """What is done with an audited step: judge it, or record it in a file to be judged later."""

    JUDGE = "judge"
    RECORD = "record"


class OnFail(StrEnum):
    """What a failed step does: nothing more, end the training, or raise AuditFailure."""

    RECORD = "record"
    STOP = "stop"
    RAISE = "raise"


@dataclass(frozen=True)
class Settings:
    """How steps are selected, judged and kept. `GradientAudit` documents each setting.

    selection: which steps and weights are audited. budget: share of the training's time.
    oracle, on_fail, mode: a member of the enum, or its value.
    record_steps: numbers of audited steps that are written to files, or "all" of them.
    background: number of processes that judge beside the training; 0 to judge within it.

    Raises:
        UsageError: a setting is out of its range.
    """

    selection: Selection = field(default_factory=Selection)
    budget: float | None = None
    threshold: float = DEFAULT_THRESHOLD
    oracle: str = Oracle.DERIVED
    expect: Mapping[str, str] = field(default_factory=dict)
    rows_per_tensor: RowsPerTensor = None
    format: str = Format.CSV
    sigma: str = When.NEEDED
    on_fail: str = OnFail.RECORD
    mode: str = Mode.JUDGE
    record_steps: Sequence[int] | Literal["all"] = ()
    background: int = 0
    verbose: int = 1

    def __post_init__(self) -> None:
        rows = self.rows_per_tensor
        if rows not in (None, "all") and (not isinstance(rows, int) or rows < 1):
            raise UsageError(
                f"rows_per_tensor is {rows!r}. Expected a whole number from 1 on, 'all', or None."
            )
        if self.format not in list(Format):
            raise UsageError(f"format is {self.format!r}. Expected one of {', '.join(Format)}.")
        if self.sigma not in list(When):
            raise UsageError(f"sigma is {self.sigma!r}. Expected one of {', '.join(When)}.")
        check_threshold(self.threshold)
        check_budget(self.budget)
        if self.oracle not in ORACLES:
            raise UsageError(f"oracle is {self.oracle!r}. Expected one of {', '.join(ORACLES)}.")
        for name, kind in self.expect.items():
            if kind != "custom":
                raise UsageError(f'expect has {name!r}: {kind!r}. Expected "custom".')
        if self.on_fail not in list(OnFail):
            raise UsageError(f"on_fail is {self.on_fail!r}. Expected one of {', '.join(OnFail)}.")
        if self.mode not in list(Mode):
            raise UsageError(f"mode is {self.mode!r}. Expected one of {', '.join(Mode)}.")
        if self.record_steps != "all":
            steps = whole_numbers("record_steps", self.record_steps)
            object.__setattr__(self, "record_steps", steps)
        if not is_whole(self.background, least=0):
            raise UsageError(
                f"background is {self.background!r}. Expected a number of processes from 0 on."
            )
        if self.mode == Mode.RECORD:
            self._check_recording()
        if self.verbose not in (0, 1, 2):
            raise UsageError(f"verbose is {self.verbose!r}. Expected 0, 1 or 2.")
        object.__setattr__(self, "expect", dict(self.expect))

    def _check_recording(self) -> None:
        given = {
            "background": self.background,
            "record_steps": self.record_steps,
            "on_fail": self.on_fail != OnFail.RECORD,
        }
        for name in (name for name, value in given.items() if value):
            raise UsageError(
                f"mode is 'record', and {name} is {getattr(self, name)!r}. Expected no {name}: all "
                "audited steps are written to files, and none is judged."
            )

    def records(self, step: int) -> bool:
        """Return whether an audited step is written to a file."""
        wanted = "all" if self.mode == Mode.RECORD else self.record_steps
        return wanted == "all" or step in wanted

    def options(self) -> dict[str, Any]:
        """Return what was asked for, as run.json has it."""
        return {
            **self.selection.options(),
            "budget": self.budget,
            "oracle": str(self.oracle),
            "expect": self.expect,
            "on_fail": self.on_fail,
            "mode": str(self.mode),
            "record_steps": self.record_steps,
            "background": self.background,
            "rows_per_tensor": self.rows_per_tensor,
            "format": str(self.format),
            "sigma": str(self.sigma),
            "verbose": self.verbose,
        }

    def policy(self) -> Policy:
        """Return how a step is judged by these settings."""
        wanted = self.selection.weight
        return Policy(wanted, oracle=Oracle(self.oracle), expect=tuple(self.expect))

    def check_workers(self) -> None:
        """Validate the settings for several workers that train together.

        Raises:
            UsageError: one of the workers could audit, or end, without the others.
        """
        if self.budget is not None:
            raise UsageError(
                "budget is given, and several workers train together. Expected all of them to "
                "audit the same steps, which their own clocks cannot tell. Choose with every, "
                "steps or first."
            )
        if self.on_fail != OnFail.RECORD:
            raise UsageError(
                f"on_fail is {str(self.on_fail)!r}, and several workers train together: one of "
                "them that ends by itself leaves the others waiting. Expected on_fail='record'."
            )


def check_threshold(threshold: float) -> None:
    """Validate a threshold.

    Raises:
        UsageError: it is not a finite number above 0.
    """
    if not 0 < threshold < float("inf"):
        raise UsageError(f"threshold is {threshold}. Expected a number above 0, such as 8.")
