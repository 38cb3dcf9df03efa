"""What a step should have changed, and why some of it is not derived."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from gradaudit import keras_compat
from gradaudit.errors import GapCode
from gradaudit.records import Estimate, Gap, Stage
from gradaudit.reference.coverage import Coverage
from gradaudit.reference.found import Found
from gradaudit.reference.policy import Policy
from gradaudit.reference.runs import Runs
from gradaudit.reference.update import takes_parts
from gradaudit.rules import assigned_weights, moved_by, single_optimizers

Unjudged = dict[tuple[Stage, str], tuple[Gap, ...]]

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


def updates_of(
    runs: Runs,
    found: Found | None,
    variables: Sequence[Any],
    policy: Policy,
    covered: Coverage,
    unjudged: Unjudged,
) -> Callable[[], Iterator[tuple[str, Estimate]]]:
    """Return what derives the updates, and note those that cannot be derived."""
    gaps = (*covered.update, *step_gaps(runs))
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


def step_gaps(runs: Runs) -> list[Gap]:
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
