"""What the comparisons of a run add up to."""

from collections import Counter

from gradaudit.compare.score import overall
from gradaudit.records import Comparison

_MOST_FAILURES = 20


class Tally:
    """Counts verdicts over the steps of a run, and keeps its worst weight.

    steps: audited steps. counts: single weights by stage and verdict. max_z, worst: the largest
    score and where it was. failures: the first failing tensors, in words. unjudged: reasons by
    stage and path.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.counts: dict[str, Counter[str]] = {"gradient": Counter(), "update": Counter()}
        self.max_z = 0.0
        self.worst = ""
        self.failures: list[str] = []
        self.failing_tensors = 0
        self.unjudged: dict[str, str] = {}

    def add(self, comparison: Comparison) -> None:
        self.steps += 1
        if comparison.max_z > self.max_z:
            self.max_z = comparison.max_z
            self.worst = (
                f"{comparison.worst_path}{list(comparison.worst_index)} in step {comparison.step}"
            )
        for tensor in comparison.tensors:
            self.counts[tensor.stage].update(tensor.verdicts.ravel().tolist())
            if tensor.verdict == "fail":
                self.failing_tensors += 1
                if len(self.failures) < _MOST_FAILURES:
                    self.failures.append(
                        f"step {comparison.step}, {tensor.stage} of {tensor.path}: {tensor.cause}"
                    )
            if tensor.verdict == "unjudged":
                self.unjudged[f"{tensor.stage} of {tensor.path}"] = tensor.cause

    @property
    def verdict(self) -> str:
        """Verdict of all steps so far; "unjudged" where there are none."""
        present = {v for counter in self.counts.values() for v in counter}
        return overall(present) if present else "unjudged"
