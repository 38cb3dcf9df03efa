"""Steps whose compiled function is not what the model's code says now."""

from collections.abc import Sequence
from dataclasses import replace

from gradaudit.records import Comparison, Verdict

_MOST = 20


class Stale:
    """Keeps what of compiled steps is stale, in words, with the first and the last such step.

    count: number of such steps.
    """

    def __init__(self) -> None:
        self.count = 0
        self._steps: dict[str, tuple[int, int]] = {}
        self._left_out = 0

    def add(self, step: int, words: Sequence[str]) -> list[str]:
        """Count a step; return those of its words that are new."""
        self.count += 1
        new = [each for each in words if each not in self._steps]
        kept = new[: _MOST - len(self._steps)]
        self._left_out += len(new) - len(kept)
        for each in words:
            if each in self._steps or each in kept:
                self._steps[each] = self._steps.get(each, (step, step))[0], step
        return kept

    def in_words(self) -> list[str]:
        """Return what is stale, one line each."""
        found = [
            f"{words} (" + (f"steps {first} to {last})" if last > first else f"step {first})")
            for words, (first, last) in self._steps.items()
        ]
        return [*found, f"and {self._left_out} more"] if self._left_out else found


def blamed(comparison: Comparison, words: Sequence[str]) -> Comparison:
    """Return a comparison whose failures name what of its step is stale, in words."""
    if not words:
        return comparison
    first, *others = words
    cause = f"stale: {first}" + (f", and {len(others)} more" if others else "")
    tensors = tuple(
        replace(each, cause=f"{cause} ({each.cause})") if each.verdict is Verdict.FAIL else each
        for each in comparison.tensors
    )
    return replace(comparison, tensors=tensors)
