"""From the record of a step to its verdicts, whatever happens on the way."""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import keras

from gradaudit.audit.tally import Tally
from gradaudit.errors import GapCode, UnsupportedModelError, UsageError
from gradaudit.records import (
    Comparison,
    Gap,
    Oracle,
    Reference,
    Stage,
    StepRecord,
    StepSpec,
    Verdict,
)
from gradaudit.reference import Policy, derive, rewound
from gradaudit.scoring import compare

_MOST_TRACEBACKS = 20


ORACLES = (Oracle.DERIVED, Oracle.TRACED, Oracle.BOTH)


def check_oracle(oracle: str) -> None:
    """Refuse an oracle that there is not.

    Raises:
        UsageError: it is none of `ORACLES`.
    """
    if oracle not in ORACLES:
        raise UsageError(f"oracle is {oracle!r}. Expected one of {', '.join(ORACLES)}.")


def check_expect(expect: Mapping[str, str]) -> None:
    """Refuse expectations that are none.

    Raises:
        UsageError: something else than "custom" is expected.
    """
    for name, kind in expect.items():
        if kind != "custom":
            raise UsageError(f'expect has {name!r}: {kind!r}. Expected "custom".')


def check_threshold(threshold: float) -> None:
    """Refuse a threshold by which nothing, or everything, would fail.

    Raises:
        UsageError: it is not a number above 0.
    """
    if not 0 < threshold < float("inf"):
        raise UsageError(f"threshold is {threshold}. Expected a number above 0, such as 8.")


class Judge:
    """Judges the steps of one model, and adds up their verdicts.

    A fault of the auditor is kept with its traceback; the step is then unjudged.

    Args:
        model: a compiled Keras model; built by the first step that is judged.
        wanted: whether a weight is judged, by its path.
        threshold: the largest |tape − reference| / (κ σ) that passes.
        rows_per_tensor: most single weights of a tensor that a comparison keeps.
        on_fault: called with a fault and what went wrong, in words; raises where nothing shall go
            on after it.
        stages: which stages are judged.
        oracle: one of `ORACLES`. expect: the custom gradients that are meant; see GradientAudit.
    """

    def __init__(
        self,
        model: keras.Model,
        wanted: Callable[[str], bool],
        threshold: float,
        rows_per_tensor: int,
        on_fault: Callable[[Exception, str], None],
        stages: Sequence[Stage] = tuple(Stage),
        oracle: str = Oracle.DERIVED,
        expect: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.tally = Tally()
        self.faults = 0
        self._tracebacks: list[str] = []
        self._model = model
        self._wanted = wanted
        self._threshold = threshold
        self._rows_per_tensor = rows_per_tensor
        self._on_fault = on_fault
        self._stages = stages
        self._policy = Policy(wanted, stages, Oracle(oracle), tuple(expect))

    def judge(self, record: StepRecord, spec: StepSpec, has_drawn: bool = False) -> Comparison:
        """Return the verdicts on a step.

        has_drawn: whether the record has the seeds as the step's draws have left them.
        """
        try:
            start = time.perf_counter()
            record = rewound(record, spec, self._policy) if has_drawn else record
            reference = derive(record, spec, self._policy)
            derived = time.perf_counter()
            timed = _Timed(reference.updates)
            comparison = self._compare(record, replace(reference, updates=timed))
            compared_ms = (time.perf_counter() - derived) * 1e3
            return replace(
                comparison,
                reference_ms=(derived - start) * 1e3 + timed.milliseconds,
                compare_ms=compared_ms - timed.milliseconds,
            )
        except UnsupportedModelError as error:
            return self.unjudged(record, Gap(error.code, error.part, str(error)))
        except Exception as error:
            reason = self.fault(error, f"judging step {record.step}")
            return self.unjudged(record, Gap(GapCode.FAULT, "", reason))

    def unjudged(self, record: StepRecord, gap: Gap) -> Comparison:
        """Return a step's verdicts where none of its weights can be judged."""
        paths = [v.path for v in self._model.trainable_variables if self._wanted(v.path)]
        gaps = {(stage, path): (gap,) for stage in self._stages for path in paths}
        return self._compare(record, Reference(None, {}, unjudged=gaps))

    def fault(self, error: Exception, doing: str) -> str:
        """Keep a fault of the auditor; return it in words."""
        words = f"the auditor failed in {doing}: {type(error).__name__}: {error}"
        self.faults += 1
        text = "".join(traceback.format_exception(error))
        if text not in self._tracebacks and len(self._tracebacks) < _MOST_TRACEBACKS:
            self._tracebacks.append(text)
        self._on_fault(error, words)
        return words

    def add(self, comparison: Comparison) -> list[str]:
        """Count a step's verdicts; return its failures in words."""
        return self.tally.add(comparison, self._threshold)

    @property
    def verdict(self) -> Verdict:
        """Verdict of all steps so far: "unjudged" also where the auditor failed."""
        verdict = self.tally.verdict
        return Verdict.UNJUDGED if self.faults and verdict is not Verdict.FAIL else verdict

    def _compare(self, record: StepRecord, reference: Reference) -> Comparison:
        return compare(record, reference, self._threshold, self._rows_per_tensor)

    def _unjudged(self) -> list[str]:
        paths = [v.path for v in self._model.trainable_variables]
        if any(self._wanted(path) for path in paths):
            return self.tally.unjudged_in_words()
        return [f"no trainable weight is asked for, of {', '.join(paths[:9]) or 'none'}"]

    def summary(self) -> dict[str, Any]:
        """Return what run.json says of the verdicts."""
        tally = self.tally
        return {
            "verdict": self.verdict,
            "counts": {stage: dict(counts) for stage, counts in tally.counts.items()},
            "max_z": tally.max_z,
            "worst": tally.worst,
            "threshold": self._threshold,
            "failed": tally.failed,
            "failures": tally.failures,
            "unjudged": self._unjudged(),
            "faults": {"count": self.faults, "tracebacks": self._tracebacks},
        }


class _Timed:
    """Calls a function that gives an iterator, and counts the time that its items take."""

    def __init__(self, function: Callable[[], Iterator[Any]]) -> None:
        self._function = function
        self.milliseconds = 0.0

    def __call__(self) -> Iterator[Any]:
        start = time.perf_counter()
        for item in self._function():
            self.milliseconds += (time.perf_counter() - start) * 1e3
            yield item
            start = time.perf_counter()
        self.milliseconds += (time.perf_counter() - start) * 1e3
