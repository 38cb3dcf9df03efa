"""From the record of a step to its verdicts."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from gradaudit.audit.sigma import Sigma, When
from gradaudit.errors import UnsupportedModelError
from gradaudit.records import Comparison, Gap, Reference, StepRecord, StepSpec, WeightRows
from gradaudit.reference import Policy, derive, has_bound, rewound
from gradaudit.scoring import NO_ROWS, RowSink, RowsPerTensor, compare


class Judge:
    """Judges the steps of one model. No step changes the verdicts on the next one.

    Args:
        paths: gives the keys of the model's trainable weights, once a step has run.
        policy: which weights and stages are judged, and by which oracle.
        threshold: the largest |tape − reference| / (κ σ) that passes.
        rows_per_tensor, sink: which single weights have a row, and what takes the rows.
        sigma: when σ itself is derived, and not only a lower bound; see `audit.sigma`.
    """

    def __init__(
        self,
        paths: Callable[[], list[str]],
        policy: Policy,
        threshold: float,
        rows_per_tensor: RowsPerTensor = None,
        sink: RowSink = NO_ROWS,
        sigma: str = When.ALWAYS,
    ) -> None:
        self._paths = paths
        self._policy = policy
        self._threshold = threshold
        self._rows_per_tensor = rows_per_tensor
        self._sink = _TimedRows(sink)
        self._sigma = Sigma(sigma)

    def judge(self, record: StepRecord, spec: StepSpec, has_drawn: bool = False) -> Comparison:
        """Return the verdicts on a step, with the time that they took.

        What the rules do not cover is unjudged, with the reason.

        has_drawn: the record has the states of the seeds after the draws of the step.
        """
        start = time.perf_counter()
        try:
            record = rewound(record, spec, self._policy) if has_drawn else record
            by_bound = self._by_bound(record, spec)
            if by_bound is not None and self._sigma.settles(by_bound, self._threshold):
                return self._sigma.told(by_bound)
            found = self._judged(record, spec, self._policy)
        except UnsupportedModelError as error:
            return self.unjudged(record, Gap(error.code, error.part, str(error)))
        self._sigma.measured(found, by_bound)
        spent = (time.perf_counter() - start) * 1e3
        others = found.update_ms + found.compare_ms + found.report_ms
        return replace(found, reference_ms=spent - others)

    def _by_bound(self, record: StepRecord, spec: StepSpec) -> Comparison | None:
        """Return the verdicts by a lower bound of σ; None where these are not asked for."""
        if not self._sigma.wants_bound() or not has_bound(record, spec, self._policy):
            return None
        policy = replace(self._policy, bound=True, twin=self._sigma.wants_twin)
        return self._judged(record, spec, policy)

    def _judged(self, record: StepRecord, spec: StepSpec, policy: Policy) -> Comparison:
        start = time.perf_counter()
        reference = derive(record, spec, policy)
        derived = time.perf_counter()
        updates = _Timed(reference.updates)
        comparison = self._compare(record, replace(reference, updates=updates))
        compared_ms = (time.perf_counter() - derived) * 1e3
        return replace(
            comparison,
            reference_ms=(derived - start) * 1e3,
            update_ms=updates.milliseconds,
            compare_ms=compared_ms - updates.milliseconds - self._sink.milliseconds,
            report_ms=self._sink.milliseconds,
        )

    def unjudged(self, record: StepRecord, gap: Gap) -> Comparison:
        """Return the verdicts on a step none of whose weights can be judged."""
        gaps = {(stage, path): (gap,) for stage in self._policy.stages for path in self.paths()}
        return self._compare(record, Reference(None, {}, unjudged=gaps))

    def paths(self) -> list[str]:
        """Return the paths of the weights that are judged."""
        return [path for path in self._paths() if self._policy.wanted(path)]

    def _compare(self, record: StepRecord, reference: Reference) -> Comparison:
        return compare(record, reference, self._threshold, self._rows_per_tensor, self._sink)


class _TimedRows:
    """Hands on rows, and counts the time that this takes since a step was begun."""

    def __init__(self, sink: RowSink) -> None:
        self._sink = sink
        self.milliseconds = 0.0

    def begin(self) -> None:
        self.milliseconds = 0.0
        self._sink.begin()

    def add(self, rows: WeightRows) -> None:
        start = time.perf_counter()
        self._sink.add(rows)
        self.milliseconds += (time.perf_counter() - start) * 1e3


class _Timed:
    """Calls a function that returns an iterator, and counts the time that its items take."""

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
