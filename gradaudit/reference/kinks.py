"""Which choices at kinks a step depends on, and what another choice would give."""

from collections.abc import Iterator, Mapping

import numpy as np

from gradaudit.errors import UnsupportedModelError
from gradaudit.numerics import Plain, Rounded
from gradaudit.numerics.ties import CONVENTIONS, TURNED
from gradaudit.records import AtTies, Estimate
from gradaudit.reference.runs import Runs
from gradaudit.tracing.kinks import Doubts, ExactTies, convention_of, in_words


def doubts_of(runs: Runs) -> str:
    """Return the ops at which rounding errors may turn a choice, in words; "" if not known."""
    watch = Doubts()
    try:
        with np.errstate(all="ignore"):
            runs.watched(runs.record, runs.rounding(), watch)
    except UnsupportedModelError:
        return ""
    return in_words(watch.found, runs.layer_names)


def at_ties_of(runs: Runs) -> Iterator[AtTies]:
    """Yield the gradients by each other convention at the exact ties of a step, where it has some.

    Conventions that change the loss are left out: a function that jumps at a tie has no subgradient
    there.
    """
    watch = ExactTies()
    try:
        with np.errstate(all="ignore"):
            runs.watched(runs.record, Plain(np.float64), watch)
    except UnsupportedModelError:
        return
    if not watch.found:
        return
    where, usual = in_words(watch.found, runs.layer_names), convention_of(watch.found)
    loss = runs.rounded_gradients()[""].value
    for ties in CONVENTIONS:
        found = runs.rounded_gradients(ties)
        if found.pop("").value == loss:
            words = f"{ties.words} ({where}{'; ' + usual if usual else ''})"
            yield AtTies(words, _estimates(runs, found))


def turned_of(runs: Runs) -> Iterator[dict[str, Estimate]]:
    """Yield the gradients with comparisons turned that rounding errors decide."""
    for ties in TURNED:
        yield _estimates(runs, runs.rounded_gradients(ties))


def _estimates(runs: Runs, found: Mapping[str, Rounded]) -> dict[str, Estimate]:
    return {
        path: Estimate(each.value, each.sigma, each.kink, 1.0, runs.oracle)
        for path, each in found.items()
    }
