"""Which choices at kinks a step depends on, and what another choice would give."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from gradaudit.errors import UnsupportedModelError
from gradaudit.numerics import Plain, Rounded, as_rounded
from gradaudit.numerics.ties import CONVENTIONS, TURNED, Convention
from gradaudit.records import AtTies, Estimate
from gradaudit.reference.runs import Runs
from gradaudit.tracing.graph import Op
from gradaudit.tracing.kinks import (
    Choosing,
    Doubts,
    ExactTies,
    Place,
    choices_of,
    convention_of,
    in_words,
)

MOST_OPS = 8
"""Most ops with exact ties of which each may choose by itself; each takes a run of the step."""


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
    """Yield the gradients by each other choice at the exact ties of a step, where it has some.

    First all ops choose alike, then one op alone, then all, each its own, and all but one. Choices
    that change the loss are left out: a function that jumps at a tie has no subgradient there.
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
    jumps = False
    for ties in CONVENTIONS:
        found = runs.rounded_gradients(ties)
        if found.pop("").value == loss:
            words = f"{ties.words} ({where}{'; ' + usual if usual else ''})"
            yield AtTies(words, _estimates(runs, found))
        else:
            jumps = True
    if len(watch.found) <= MOST_OPS and (jumps or len(watch.found) > 1):
        yield from _of_single_ops(runs, watch.found)


def _of_single_ops(runs: Runs, places: Sequence[Place]) -> Iterator[AtTies]:
    loss = _chosen(runs, {})[""].value
    kept: list[dict[Op, Convention]] = []
    for place in places:
        for choice in choices_of(place.op):
            found = _chosen(runs, {place.op: choice})
            if found.pop("").value == loss:
                kept.append({place.op: choice})
                words = f"{choice.words} ({in_words([place], runs.layer_names)})"
                yield AtTies(words, _estimates(runs, found))
    last = {op: choice for each in kept for op, choice in each.items()}
    for left_out in (None, *last) if len(last) > 2 else (None,):
        choices = {op: choice for op, choice in last.items() if op is not left_out}
        found = _chosen(runs, choices)
        del found[""]
        own = [place for place in places if place.op is left_out]
        but = f" but those of {in_words(own, runs.layer_names)}" if own else ""
        yield AtTies(f"other choices at all ties{but}", _estimates(runs, found))


def _chosen(runs: Runs, choices: Mapping[Op, Convention]) -> dict[str, Rounded]:
    """Return the gradients where some ops choose otherwise, the loss under the empty path."""
    with np.errstate(all="ignore"):
        found = runs.watched(runs.record, runs.rounding(), Choosing(choices))
    return {path: as_rounded(value) for path, value in found.items()}


def turned_of(runs: Runs) -> Iterator[dict[str, Estimate]]:
    """Yield the gradients with comparisons turned that rounding errors decide."""
    for ties in TURNED:
        yield _estimates(runs, runs.rounded_gradients(ties))


def _estimates(runs: Runs, found: Mapping[str, Rounded]) -> dict[str, Estimate]:
    return {
        path: Estimate(each.value, each.sigma, each.kink, 1.0, runs.oracle)
        for path, each in found.items()
    }
