"""From a StepRecord and its StepSpec to the Reference, as a function of these two and a policy."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradaudit.errors import GapCode, UnsupportedModelError
from gradaudit.numerics import Rounded
from gradaudit.records import (
    Estimate,
    Gap,
    Oracle,
    Origin,
    Reference,
    Stage,
    StepRecord,
    StepSpec,
)
from gradaudit.reference.arguments import empty_gaps
from gradaudit.reference.changes import Unjudged, step_gaps, updates_of
from gradaudit.reference.coverage import Coverage, coverage
from gradaudit.reference.found import Found
from gradaudit.reference.graph import is_float
from gradaudit.reference.kinks import at_ties_of, doubts_of, turned_of
from gradaudit.reference.origin import is_finite, origin_of, overflow_of
from gradaudit.reference.policy import DEFAULT, Policy
from gradaudit.reference.runs import Runs
from gradaudit.reference.settle import settled
from gradaudit.reference.trained import trained

_UNSTEADY = (
    "tracing the model's code twice gave different results, and those of the step are not known: "
    "it draws from a generator of its own, say, or counts in Python. Draw with keras.random and a "
    "keras.random.SeedGenerator, and count in a weight"
)


def derive(record: StepRecord, spec: StepSpec, policy: Policy = DEFAULT) -> Reference:
    """Derive what one step should have done.

    The result depends on the three arguments alone: no step changes how another one is judged.
    What cannot be derived is in `Reference.unjudged`, with its reasons.
    """
    covered = coverage(spec)
    variables = [v for v in spec.model.trainable_variables if policy.wanted(v.path)]
    unjudged: Unjudged = {}
    runs = _runs(record, spec, policy, covered)
    found, gaps = None, (*covered.step, *empty_gaps(record))
    untraced: tuple[Gap, ...] = ()
    if not gaps:
        try:
            runs, found = _found(runs)
            if not runs.bound and _is_unsteady(runs, found.loss, policy):
                raise UnsupportedModelError(_UNSTEADY, GapCode.UNSTEADY)
            if policy.oracle is Oracle.BOTH and not runs.whole:
                disputed, untraced = _second_opinion(runs)
                unjudged.update(disputed)
        except UnsupportedModelError as error:  # what only the data of a step shows
            found = None
            gaps = (*covered.model, Gap(error.code, error.part, str(error)))
    gradients = {}
    if found is not None:
        gradients = _gradients(runs, found, variables, policy, unjudged, untraced)
        gradients = gradients if runs.bound else settled(runs, gradients)
    unjudged.update({(Stage.GRADIENT, v.path): gaps for v in variables if gaps})
    loss = None if found is None else found.loss
    origin = None if runs.bound or is_finite(record) else _origin(runs)
    reference = Reference(
        loss,
        gradients,
        unjudged=unjudged,
        origin=origin,
        doubts=functools.partial(doubts_of, runs),
        at_ties=functools.partial(at_ties_of, runs),
        turned=functools.partial(turned_of, runs),
        overflow=functools.partial(overflow_of, runs),
    )
    if Stage.UPDATE not in policy.stages:
        return reference
    updates = updates_of(runs, found, variables, policy, covered, unjudged)
    reference = dataclasses.replace(reference, updates=updates)
    if record.trained is None or found is None or covered.update or step_gaps(runs):
        return reference
    return dataclasses.replace(reference, trained=functools.partial(trained, runs, found))


def _origin(runs: Runs) -> Origin:
    """Return where what is not finite comes from; of a step that cannot be traced, why."""
    try:
        return origin_of(runs)
    except UnsupportedModelError as error:
        return Origin(f"the step cannot be replayed op by op: {error}")


def has_bound(record: StepRecord, spec: StepSpec, policy: Policy = DEFAULT) -> bool:
    """Return whether a step can be judged by a lower bound of σ first; see `Policy`.

    A step that trained beside the recorded one cannot, nor can one with two oracles.
    """
    if policy.oracle is Oracle.BOTH or record.trained is not None:
        return False
    return _runs(record, spec, policy, coverage(spec)).has_bound


def rewound(record: StepRecord, spec: StepSpec, policy: Policy) -> StepRecord:
    """Undo what the forward pass did to integer variables, such as the states of seeds.

    The record is one whose variables were read after the forward pass.

    Raises:
        UnsupportedModelError: the loss depends on other variables that the forward assigns to.
    """
    runs = _runs(record, spec, policy, coverage(spec))
    dtype_of = {v.path: v.dtype for v in spec.model.variables}
    try:
        loss, assigned = runs.loss()
    except UnsupportedModelError:
        return record  # derive() says why nothing can be judged
    floats = {path for path in assigned if is_float(dtype_of[path])}
    shifted = {path: record.variables[path] * 1.01 + 0.01 for path in floats}
    moved = dataclasses.replace(record, variables={**record.variables, **shifted})
    if floats and runs.loss(moved)[0] != loss:
        raise UnsupportedModelError(
            f"the loss depends on {', '.join(sorted(floats))}, which the forward has changed "
            "already: what it was before is not known",
            GapCode.ASSIGNED_UNSEEN,
        )
    before = {
        path: 2 * record.variables[path] - assigned[path] for path in assigned.keys() - floats
    }
    return dataclasses.replace(record, variables={**record.variables, **before})


def _runs(record: StepRecord, spec: StepSpec, policy: Policy, covered: Coverage) -> Runs:
    whole = covered.whole or policy.oracle is Oracle.TRACED
    traces = spec.framework.traces(policy.expect)
    return Runs(record, spec, traces, covered.traced, whole, policy.bound, policy.twin)


def _found(runs: Runs) -> tuple[Runs, Found]:
    """Run the derived rules, or a trace of this step where its data show a gap of the rules.

    Raises:
        UnsupportedModelError: neither rules nor a trace cover the step.
    """
    try:
        return runs, runs.gradients()
    except UnsupportedModelError:
        if runs.whole:
            raise
    traced = dataclasses.replace(runs, whole=True)
    return traced, traced.gradients()


def _is_unsteady(runs: Runs, loss: Estimate, policy: Policy) -> bool:
    """Return whether tracing the model's code twice gives different losses.

    It is traced again only where the loss is not the step's.
    """
    if runs.record.loss is None or not (np.isfinite(runs.record.loss) & np.isfinite(loss.value)):
        return False
    beyond = 8 * loss.sigma + (0.0 if loss.kink is None else loss.kink)
    if not np.abs(runs.record.loss - loss.value) > beyond:
        return False
    anew = runs.spec.framework.traces(policy.expect, anew=True)
    again, _ = dataclasses.replace(runs, traces=anew).loss()
    return again != runs.loss()[0]


def _second_opinion(runs: Runs) -> tuple[Unjudged, tuple[Gap, ...]]:
    """Return the gradients that `_disputed` finds, and why the step could not be traced."""
    try:
        traced = dataclasses.replace(runs, whole=True).rounded_gradients()
    except UnsupportedModelError as error:  # the derived rules are then the only oracle
        return {}, (Gap(error.code, error.part, str(error)),)
    return _disputed(runs.rounded_gradients(), traced), ()


def _disputed(derived: Mapping[str, Rounded], traced: Mapping[str, Rounded]) -> Unjudged:
    """Return the gradients on which the derived rules and a trace of the whole step differ.

    By more than the rounding errors of the step's own precision: constants in a graph were rounded
    to it.
    """
    where = "forward" if _differ(derived[""], traced[""]) else "on the way back"
    words = f"the derived rules and a trace of the model's code do not agree, {where}"
    return {
        (Stage.GRADIENT, path): (Gap(GapCode.DISAGREEMENT, path, words),)
        for path in derived.keys() | traced.keys()
        if path and _differ(derived.get(path), traced.get(path))
    }


def _differ(a: Rounded | None, b: Rounded | None) -> bool:
    """Return whether two runs differ by more than rounding errors may."""
    if a is None or b is None:
        other = a if b is None else b
        return other is not None and bool(np.any(np.abs(other.value) > other.doubt))
    with np.errstate(all="ignore"):
        apart = np.abs(a.value - b.value) > a.doubt + b.doubt
    return bool(np.any(apart & ~(np.isnan(a.value) & np.isnan(b.value))))


def _gradients(
    runs: Runs,
    found: Found,
    variables: Sequence[Any],
    policy: Policy,
    unjudged: Unjudged,
    untraced: tuple[Gap, ...],
) -> dict[str, Estimate]:
    """Return the estimates of gradients, with the oracles that they rest on.

    untraced: why `Oracle.BOTH` has no trace to compare with; they are then those of the rules.
    """
    gradients = {v.path: found.gradients.get(v.path) or runs.nothing(v) for v in variables}
    if policy.oracle is not Oracle.BOTH or runs.whole:
        return gradients
    if untraced:
        return {
            path: dataclasses.replace(estimate, gaps=untraced)
            for path, estimate in gradients.items()
        }
    return {
        path: dataclasses.replace(estimate, oracle=Oracle.BOTH)
        for path, estimate in gradients.items()
        if (Stage.GRADIENT, path) not in unjudged
    }
