"""Which choices at kinks a step depends on, and what another choice would give."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from gradaudit.errors import UnsupportedModelError
from gradaudit.numerics import DOUBT, Plain, Rounded, as_rounded
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
    that change the loss are left out: a function that jumps at a tie has no subgradient there. So
    are those by which the step cannot be run: tf.boolean_mask makes another shape.
    """
    watch = ExactTies()
    try:
        with np.errstate(all="ignore"):
            runs.watched(runs.record, Plain(np.float64), watch)
    except UnsupportedModelError:
        return
    if not watch.found:
        return
    own = runs.rounded_gradients()
    jumps = False
    for ties in CONVENTIONS:
        found = _without_jump(own, functools.partial(runs.rounded_gradients, ties))
        if found is None:
            jumps = True
            continue
        yield AtTies(f"{ties.words} ({_where(runs, watch.found)})", _estimates(runs, found))
    kinds = {place.op.kind for place in watch.found}
    if len(watch.found) <= MOST_OPS and (jumps or "Abs" in kinds or len(watch.found) > 1):
        yield from _of_single_ops(runs, watch.found, own)


def _of_single_ops(
    runs: Runs, places: Sequence[Place], own: Mapping[str, Rounded]
) -> Iterator[AtTies]:
    """Yield what `at_ties_of` does where ops choose by themselves.

    own: the gradients as they are. Where all of those beside the ties agree, they are corrected,
        and have no other choice. A run under a watch is not corrected.
    """
    try:
        usual = _chosen(runs, {})
    except UnsupportedModelError:
        return

    def changed(
        choices: Mapping[Op, Convention], words: str, times: float = 1.0
    ) -> Iterator[AtTies]:
        found = _without_jump(usual, functools.partial(_chosen, runs, choices))
        if found is None:
            return
        estimates = _estimates(runs, found)
        for path, each in estimates.items():
            right, before = own[path], usual[path]
            doubt = DOUBT * np.hypot(right.sigma, before.sigma)
            has_choice = ~(np.abs(right.value - before.value) > doubt)
            value = right.value + np.where(has_choice, times * (each.value - before.value), 0.0)
            estimates[path] = replace(each, value=value)
        chosen = [place for place in places if place.op in choices]
        yield AtTies(f"{words} ({_where(runs, chosen)})", estimates)

    last: dict[Op, Convention] = {}
    for place, choice in [(p, c) for p in places for c in choices_of(p.op)]:
        for each in changed({place.op: choice}, choice.words):
            last[place.op] = choice
            yield each
        if place.op.kind == "Abs":  # of which the slope may be 1, too, or any between these
            yield from changed({place.op: choice}, "the slope −1", times=-1.0)
    if len(last) < 2:
        return
    for left_out in (None, *last) if len(last) > 2 else (None,):
        choices = {op: choice for op, choice in last.items() if op is not left_out}
        yield from changed(choices, "other choices together")


def _where(runs: Runs, places: Sequence[Place]) -> str:
    return "; ".join(filter(None, [in_words(places, runs.layer_names), convention_of(places)]))


def _chosen(runs: Runs, choices: Mapping[Op, Convention]) -> dict[str, Rounded]:
    """Return the gradients where some ops choose otherwise, the loss under the empty path."""
    with np.errstate(all="ignore"):
        found = runs.watched(runs.record, runs.rounding(), Choosing(choices))
    return {path: as_rounded(value) for path, value in found.items()}


def _without_jump(
    usual: Mapping[str, Rounded], run: Callable[[], dict[str, Rounded]]
) -> dict[str, Rounded] | None:
    """Return the gradients of a run; None where its loss is another, or where it cannot be run."""
    try:
        found = run()
    except (UnsupportedModelError, ValueError, IndexError):
        return None
    return found if found.pop("").value == usual[""].value else None


def turned_of(runs: Runs) -> Iterator[dict[str, Estimate]]:
    """Yield the gradients with comparisons turned that rounding errors decide.

    None of them where one cannot be run: not each comparison would be turned.
    """
    try:
        found = [runs.rounded_gradients(ties) for ties in TURNED]
    except UnsupportedModelError:
        return
    yield from (_estimates(runs, each) for each in found)


def _estimates(runs: Runs, found: Mapping[str, Rounded]) -> dict[str, Estimate]:
    return {
        path: Estimate(each.value, each.sigma, each.kink, 1.0, runs.oracle)
        for path, each in found.items()
    }
