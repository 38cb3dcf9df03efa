"""What the comparisons of a run add up to."""

from collections import Counter

from gradaudit.compare.score import of_stages, stage_verdicts
from gradaudit.records import Comparison

_MOST_FAILURES = 20


class Tally:
    """Counts verdicts over the steps of a run, and keeps its worst weight.

    steps: audited steps. counts: single weights by stage and verdict. max_z, worst: the largest
    score and where it was. failed: how many losses and tensors failed; failures: the first of them,
    in words. unjudged: reasons by stage and path.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.counts: dict[str, Counter[str]] = {"gradient": Counter(), "update": Counter()}
        self.max_z = 0.0
        self.worst = ""
        self.failures: list[str] = []
        self.failed = 0
        self._stages: dict[str, set[str]] = {"gradient": set(), "update": set()}
        self.unjudged: dict[str, str] = {}

    def add(self, comparison: Comparison, threshold: float) -> None:
        self.steps += 1
        if comparison.max_z > self.max_z:
            self.max_z = comparison.max_z
            self.worst = (
                f"{comparison.worst_path}{list(comparison.worst_index)} in step {comparison.step}"
            )
        if comparison.loss_z > threshold:
            self._fail(
                f"step {comparison.step}: the loss is {comparison.loss_tape!r} and should be "
                f"{comparison.loss_reference!r}, z = {comparison.loss_z:.3g}"
            )
        for stage, verdicts in stage_verdicts(comparison.tensors).items():
            self._stages[stage].update(verdicts)
        for tensor in comparison.tensors:
            self.counts[tensor.stage].update(tensor.verdicts.ravel().tolist())
            if tensor.verdict == "fail":
                self._fail(
                    f"step {comparison.step}, {tensor.stage} of {tensor.path}: {tensor.cause}"
                )
            if tensor.verdict == "unjudged":
                self.unjudged[f"{tensor.stage} of {tensor.path}"] = tensor.cause

    def _fail(self, words: str) -> None:
        self.failed += 1
        if len(self.failures) < _MOST_FAILURES:
            self.failures.append(words)

    @property
    def verdict(self) -> str:
        """Verdict of all steps so far; "unjudged" where there are none."""
        if self.failed:
            return "fail"
        return of_stages(self._stages) if self.steps else "unjudged"
