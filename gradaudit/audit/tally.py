"""Sums up the comparisons of a run."""

import math
from collections import Counter

from gradaudit.records import FAILURES, Comparison, Passed, Provenance, Stage, Verdict
from gradaudit.scoring.score import of_stages, stage_verdicts

_MOST_FAILURES = 20


class Tally:
    """Counts verdicts over the steps of a run, and keeps its worst weight.

    counts: single weights by stage and verdict. max_z, worst: the largest score and where it was.
    failed: how many losses and tensors failed; failures: the first of them, in words.
    unjudged: reasons by stage and path. expected: custom gradients that were taken as they are.
    rows_left_out: weights compared but not kept.
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self.counts: dict[Stage, Counter[Verdict]] = {stage: Counter() for stage in Stage}
        self.max_z = 0.0
        self.worst = ""
        self.failures: list[str] = []
        self.failed = 0
        self._verdicts: set[Verdict] = set()
        self.rows_left_out = 0
        self._stages: dict[Stage, set[Verdict]] = {stage: set() for stage in Stage}
        self.unjudged: dict[tuple[Stage, str], str] = {}
        self.expected: set[Provenance] = set()

    def add(self, comparison: Comparison, threshold: float) -> list[str]:
        """Count a step of a replica; return its failures in words."""
        self._seen.add(comparison.step)
        where = f"step {comparison.step}"
        if comparison.replica:
            where += f", replica {comparison.replica}"
        if comparison.max_z > self.max_z:
            self.max_z = comparison.max_z
            self.worst = f"{comparison.worst_path}{list(comparison.worst_index)} in {where}"
        failures, not_finite = [], Counter[str]()
        loss = comparison.loss_tape
        if loss is not None and not math.isfinite(loss):
            not_finite["the loss"] = 1
        elif comparison.loss_z > threshold:
            failures.append(
                f"{where}: the loss is {loss!r} and should be "
                f"{comparison.loss_reference!r}, z = {comparison.loss_z:.3g}"
            )
        for stage, verdicts in stage_verdicts(comparison.tensors).items():
            self._stages[stage].update(verdicts)
        for tensor in comparison.tensors:
            self.rows_left_out += tensor.count - tensor.rows
            self.counts[tensor.stage].update(tensor.counts)
            self.expected.update(p for p in tensor.provenance if p.kind is Passed.EXPECTED)
            if tensor.verdict is Verdict.FAIL:
                failures.append(f"{where}, {tensor.stage} of {tensor.path}: {tensor.cause}")
            if tensor.verdict is Verdict.NONFINITE:
                not_finite[tensor.stage] += 1
            if tensor.verdict is Verdict.UNJUDGED:
                self.unjudged[tensor.stage, tensor.path] = tensor.cause
        self.failed += len(failures) + not_finite.total()
        self._verdicts.update([Verdict.FAIL] * bool(failures))
        if not_finite:
            self._verdicts.add(Verdict.NONFINITE)
            failures.append(f"{where}: {_not_finite_in_words(not_finite, comparison)}")
        self.failures += failures[: _MOST_FAILURES - len(self.failures)]
        return failures

    def unjudged_in_words(self) -> list[str]:
        """Return what was not judged, one line for each stage and reason."""
        paths: dict[tuple[Stage, str], list[str]] = {}
        for (stage, path), reason in self.unjudged.items():
            paths.setdefault((stage, reason), []).append(path)
        return [
            f"{stage} of {', '.join(found[:3])}"
            + (f" and {len(found) - 3} more" if len(found) > 3 else "")
            + f": {reason}"
            for (stage, reason), found in paths.items()
        ]

    @property
    def steps(self) -> int:
        """Number of audited steps."""
        return len(self._seen)

    @property
    def verdict(self) -> Verdict:
        """Verdict of all steps so far; "unjudged" where there are none."""
        for verdict in FAILURES:
            if verdict in self._verdicts:
                return verdict
        return of_stages(self._stages) if self.steps else Verdict.UNJUDGED


def _not_finite_in_words(found: Counter[str], comparison: Comparison) -> str:
    """Return what is not finite in a step, and why. found: number of tensors by stage."""
    parts = [
        what if what == "the loss" else f"{n} {what}{'s' * (n > 1)}" for what, n in found.items()
    ]
    listed = " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
    reasons = [tensor.cause for tensor in comparison.tensors if tensor.verdict is Verdict.NONFINITE]
    why = comparison.origin or reasons[0] if reasons else comparison.origin
    return f"{listed} {'is' if found.total() == 1 else 'are'} not finite: {why}"
