"""From a StepRecord and its StepSpec to the Reference, as a function of these two and a policy."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gradaudit import keras_compat
from gradaudit.errors import GapCode, UnsupportedModelError
from gradaudit.numerics import Rounded
from gradaudit.records import (
    Estimate,
    Gap,
    Oracle,
    Reference,
    Stage,
    StepRecord,
    StepSpec,
)
from gradaudit.reference.coverage import Coverage, coverage
from gradaudit.reference.graph import is_float
from gradaudit.reference.policy import DEFAULT, Policy
from gradaudit.reference.runs import Found, Runs
from gradaudit.reference.trained import trained
from gradaudit.reference.update import takes_parts
from gradaudit.rules import assigned_weights, moved_by, single_optimizers

Unjudged = dict[tuple[Stage, str], tuple[Gap, ...]]

_UNSTEADY = (
    "tracing the model's code twice gave different results, and those of the step are not known: "
    "it draws from a generator of its own, say, or counts in Python. Draw with keras.random and a "
    "keras.random.SeedGenerator, and count in a weight"
)
_IN_PARTS = (
    "the gradient came as tf.IndexedSlices with an index more than once, and Keras takes the parts "
    "one by one (a² + b² for the square of a + b): what the update and the slots must be is not "
    "derived"
)
_OF_REPLICAS = (
    "the model runs on several replicas, whose batches all move this variable: a replica's record "
    "has its own batch only"
)
_UNSEEN = (
    "a layer assigns to this weight before the optimizer moves it, and what it assigned is not "
    "known"
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
    found, gaps = None, covered.step
    untraced: tuple[Gap, ...] = ()
    if not gaps:
        try:
            runs, found = _found(runs)
            if _is_unsteady(runs, found.loss, policy):
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
    unjudged.update({(Stage.GRADIENT, v.path): gaps for v in variables if gaps})
    loss = None if found is None else found.loss
    if Stage.UPDATE not in policy.stages:
        return Reference(loss, gradients, unjudged=unjudged)
    updates = _updates(runs, found, variables, policy, covered, unjudged)
    if record.trained is None or found is None or covered.update or _step_gaps(runs):
        return Reference(loss, gradients, updates, unjudged=unjudged)
    return Reference(loss, gradients, updates, functools.partial(trained, runs, found), unjudged)


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
    return Runs(record, spec, spec.framework.traces(policy.expect), covered.traced, whole)


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
    beyond = 8 * loss.sigma + (0.0 if loss.kink is None else loss.kink)
    if runs.record.loss is None or not np.abs(runs.record.loss - loss.value) > beyond:
        return False
    anew = runs.spec.framework.traces(policy.expect, anew=True)
    again, _ = dataclasses.replace(runs, traces=anew).loss()
    return again != runs.loss()[0]


def _second_opinion(runs: Runs) -> tuple[Unjudged, tuple[Gap, ...]]:
    """Return the gradients that `_disputed` finds, and why the step could not be traced."""
    try:
        traced = runs.plain_gradients(traced=True)
    except UnsupportedModelError as error:  # the derived rules are then the only oracle
        return {}, (Gap(error.code, error.part, str(error)),)
    return _disputed(runs.plain_gradients(traced=False), traced), ()


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


def _updates(
    runs: Runs,
    found: Found | None,
    variables: Sequence[Any],
    policy: Policy,
    covered: Coverage,
    unjudged: Unjudged,
) -> Callable[[], Iterator[tuple[str, Estimate]]]:
    """Return what derives the updates, and note those that cannot be derived."""
    gaps = (*covered.update, *_step_gaps(runs))
    unjudged.update({(Stage.UPDATE, v.path): gaps for v in variables if gaps})
    by_layers = [] if found is None else _moved_by_layers(runs, found, policy, unjudged)
    if gaps:
        return lambda: iter(by_layers)
    left_out: set[str] = set()
    for paths, code, words in (
        (_moved_in_parts(runs), GapCode.SPARSE_PARTS, _IN_PARTS),
        (_assigned_unseen(runs, found), GapCode.ASSIGNED_UNSEEN, _UNSEEN),
    ):
        left_out |= paths
        unjudged.update(
            {(Stage.UPDATE, p): (Gap(code, p, words),) for p in paths if policy.wanted(p)}
        )
    return functools.partial(_moved, runs, found, by_layers, policy, left_out)


def _moved(
    runs: Runs,
    found: Found | None,
    by_layers: Sequence[tuple[str, Estimate]],
    policy: Policy,
    left_out: set[str],
) -> Iterator[tuple[str, Estimate]]:
    """Yield the change of each variable. A weight that is left out takes its slots with it."""
    weights = {v.path for v in runs.spec.model.trainable_variables}
    for changes in runs.updates([] if found is None else found.assigned):
        own = changes.keys() & weights
        if all(policy.wanted(path) and path not in left_out for path in own):
            yield from changes.items()
    yield from by_layers


def _step_gaps(runs: Runs) -> list[Gap]:
    """Return why the update of this step cannot be derived."""
    record, gaps = runs.record, []
    if record.applications is None:
        words = "optimizer.apply stands in a branch or a loop of train_step"
        gaps.append(Gap(GapCode.APPLICATIONS, "", words))
    elif record.applications != 1:
        words = f"optimizer.apply ran {record.applications} times in the step, not once"
        gaps.append(Gap(GapCode.APPLICATIONS, "", words))
    for single in single_optimizers(runs.spec.optimizer):
        if single.gradient_accumulation_steps and record.replicas > 1:
            words = (
                f"the optimizer {single.name!r} ({type(single).__name__}) gathers gradients on "
                f"{record.replicas} replicas (gradient_accumulation_steps), each in accumulators "
                "of its own, of which those of one are captured"
            )
            gaps.append(Gap(GapCode.ACCUMULATION, single.name, words))
    return gaps


def _moved_by_layers(
    runs: Runs, found: Found, policy: Policy, unjudged: Unjudged
) -> list[tuple[str, Estimate]]:
    """Return the changes of the weights that no gradient moves, and of those that must not move.

    A weight that rightly did not move, such as one of a frozen layer, is left out: there may be
    many.
    """
    record, changes = runs.record, []
    for variable in runs.spec.model.non_trainable_weights:
        path = variable.path
        if not policy.wanted(path) or path not in record.variables_after:
            continue
        before, after = record.variables[path], record.variables_after[path]
        if path in found.moved and record.replicas > 1:
            unjudged[Stage.UPDATE, path] = (Gap(GapCode.REPLICAS, path, _OF_REPLICAS),)
        elif path in found.moved:
            changes.append((path, found.moved[path]))
        elif not np.array_equal(before, after):
            changes.append((path, runs.nothing(variable)))
    return changes


def _moved_in_parts(runs: Runs) -> set[str]:
    """Return the weights with a sparse gradient that repeats an index: Keras applies each part."""
    optimizer, weights = runs.spec.optimizer, runs.spec.model.trainable_variables
    found = {
        v.path for v in weights if v.path in runs.record.repeating and takes_parts(optimizer, v)
    }
    norms = [moved_by(optimizer, v) for v in weights if v.path in found]
    shared = [single for single in norms if single.global_clipnorm]
    return found | {v.path for v in weights if moved_by(optimizer, v) in shared}


def _assigned_unseen(runs: Runs, found: Found | None) -> set[str]:
    """Return the weights that a layer assigns to before the optimizer, to a value not known."""
    if found is not None and runs.record.replicas == 1:
        return set()
    layers = keras_compat.all_layers(runs.spec.model)
    return {path for layer in layers for path in assigned_weights(layer)}
