"""z-scores and verdicts."""

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
from keras import tree

from gradaudit.records import (
    FAILURES,
    Comparison,
    Estimate,
    Origin,
    Reference,
    Stage,
    StepRecord,
    TensorComparison,
    Verdict,
)
from gradaudit.scoring.elements import Judged
from gradaudit.scoring.kinks import settle_kinks
from gradaudit.scoring.passing import Change, Passing, passing
from gradaudit.scoring.rows import NO_ROWS, RowSink, RowsPerTensor
from gradaudit.scoring.tensors import Tensors

_OTHER = "the step that trained is not the judged one"


@np.errstate(all="ignore")  # NaN and infinity have verdicts
def compare(
    record: StepRecord,
    reference: Reference,
    threshold: float,
    rows_per_tensor: RowsPerTensor = None,
    sink: RowSink = NO_ROWS,
) -> Comparison:
    """Return one verdict for each weight of a step.

    What is NaN or infinite in the framework's step is `NONFINITE`, whatever the reference is: no
    training goes on from such numbers. A reference that is not finite accuses nobody.

    threshold: the largest |tape − reference| / (κ σ) that passes.
    rows_per_tensor, sink: which single weights have a row, and what takes the rows.
    """
    rows = tree.flatten(record.x)
    batch_size = len(rows[0]) if rows and np.ndim(rows[0]) else 0
    before = record.variables | record.optimizer_variables
    after = record.variables_after | record.optimizer_variables_after
    sink.begin()
    tensors = Tensors(record, before, batch_size, rows_per_tensor, sink)
    of_update = functools.cache(lambda: _origin_of_update(record))

    def origin(stage: Stage, path: str, found: np.ndarray | None) -> Origin | None:
        is_moved = path in record.gradients or path in record.optimizer_variables
        if stage is Stage.UPDATE and is_moved and found is not None:
            return (None if np.isfinite(found).all() else of_update()) or reference.origin
        return reference.origin

    def update(path: str, taken: np.ndarray, estimate: Estimate) -> "Passing | Judged":
        change = Change.of(taken, before[path])
        plain = passing(change, estimate, threshold)
        if plain is not None:
            return plain
        tape = change[:].reshape(estimate.value.shape)
        return Judged(tape, estimate, threshold, origin(Stage.UPDATE, path, tape))

    found = list(_gradients(record, reference, threshold, tensors))
    other = {path: update(path, (record.trained or {})[path], e) for path, e in reference.trained()}
    failed = {p: each for p, each in other.items() if isinstance(each, Judged) and each.failed}
    for path, judged in failed.items():
        told = tensors.judged(Stage.UPDATE, path, judged)
        found.append(replace(told, cause=f"{_OTHER}: {told.cause}"))
    for path, estimate in reference.updates():
        if path in failed:
            continue
        each = update(path, after[path], estimate)
        if isinstance(each, Passing):
            found.append(tensors.passed(Stage.UPDATE, path, each))
        else:
            found.append(tensors.judged(Stage.UPDATE, path, each))
    for (stage, path), gaps in reference.unjudged.items():
        tape = record.gradients.get(path)
        if stage is Stage.UPDATE:
            if path in failed:
                continue
            tape = after[path] - before[path] if path in after else None
        found.append(tensors.unjudged(stage, path, tape, gaps, origin(stage, path, tape)))
    order = list(Stage)
    found.sort(key=lambda each: order.index(each.stage))
    return _step(record, reference, threshold, batch_size, tuple(found))


def _gradients(
    record: StepRecord, reference: Reference, threshold: float, tensors: Tensors
) -> Iterator[TensorComparison]:
    """Yield the tensors of the gradient stage, in the order of the reference."""
    plain: dict[str, Passing] = {}
    open_: dict[str, Judged] = {}
    for path, estimate in reference.gradients.items():
        gradient = record.gradients.get(path)
        tape = np.zeros(estimate.value.shape) if gradient is None else np.asarray(gradient)
        found = passing(Change.of(tape), estimate, threshold)
        if found is None:
            wide = np.asarray(tape, np.float64)
            open_[path] = Judged(wide, estimate, threshold, reference.origin)
        else:
            plain[path] = found
    settle_kinks(open_, reference)
    doubts, overflow = functools.cache(reference.doubts), functools.cache(reference.overflow)
    for path in reference.gradients:
        if path in plain:
            yield tensors.passed(Stage.GRADIENT, path, plain.pop(path))
            continue
        judged = open_.pop(path)
        if judged.depends_on_kinks:
            judged.chosen_at(doubts())
        if judged.may_overflow and judged.origin is None:
            judged.origin = overflow()
        yield tensors.judged(Stage.GRADIENT, path, judged)


def _step(
    record: StepRecord,
    reference: Reference,
    threshold: float,
    batch_size: int,
    tensors: tuple[TensorComparison, ...],
) -> Comparison:
    """Return the verdict on a step, from those on its tensors and on its loss."""
    scored = [each for each in tensors if not np.isnan(each.max_z)]
    worst = max(scored, key=lambda each: each.max_z, default=None)
    loss_reference, loss_z, verdict = np.nan, np.nan, of_stages(stage_verdicts(tensors))
    if record.loss is not None:
        loss = reference.loss
        if loss is not None:
            loss_reference = float(loss.value)
            loss_z = float(Judged(np.asarray(record.loss), loss, threshold, None).z)
        if loss_z > threshold and np.isfinite(record.loss):
            verdict = Verdict.FAIL
        elif not np.isfinite(record.loss) and verdict is not Verdict.FAIL:
            verdict = Verdict.NONFINITE
    return Comparison(
        step=record.step,
        epoch=record.epoch,
        replica=record.replica,
        batch_size=batch_size,
        loss_tape=record.loss,
        loss_reference=loss_reference,
        loss_z=loss_z,
        tensors=tensors,
        max_z=np.nan if worst is None else worst.max_z,
        worst_path="" if worst is None else worst.path,
        worst_index=() if worst is None else worst.worst_index,
        verdict=verdict,
        capture_ms=record.capture_ms,
        origin="" if reference.origin is None else reference.origin.words,
    )


def _origin_of_update(record: StepRecord) -> Origin | None:
    """Return why the update is not finite, where the gradients and the weights before it are."""
    gradients = [gradient for gradient in record.gradients.values() if gradient is not None]
    given = (*gradients, *record.variables.values(), *record.optimizer_variables.values())
    floats = [np.asarray(a, np.float64) for a in given if a.dtype.kind not in "biuOSU"]
    if not all(np.isfinite(array).all() for array in floats):
        return None
    largest = max((float(np.max(np.abs(g), initial=0.0)) for g in gradients), default=0.0)
    rates = " and ".join(f"{rate:.6g}" for rate in record.learning_rates)
    return Origin(
        f"the optimizer makes it, of finite weights, slots and gradients of up to {largest:.3g}; "
        f"the learning rate is {rates}"
    )


def stage_verdicts(tensors: Iterable[TensorComparison]) -> dict[Stage, set[Verdict]]:
    """Return the verdicts on the weights of each stage, without scalars that pass.

    A scalar such as the optimizer's iterations says nothing about the weights beside it.
    """
    stages: dict[Stage, set[Verdict]] = {}
    for tensor in tensors:
        present = stages.setdefault(tensor.stage, set())
        if tensor.shape or tensor.verdict is not Verdict.PASS:
            present.update(tensor.counts)
    return {stage: present or {Verdict.PASS} for stage, present in stages.items()}


def of_stages(stages: Mapping[Stage, set[Verdict]]) -> Verdict:
    """Return the verdict on a step or a run, from the verdicts on the weights of each stage.

    It is "unresolved" where every weight of a stage is, and "unjudged" where there is no gradient.
    """
    present: set[Verdict] = set().union(*stages.values())
    for verdict in (*FAILURES, Verdict.UNJUDGED):
        if verdict in present:
            return verdict
    if not stages.get(Stage.GRADIENT):
        return Verdict.UNJUDGED
    return Verdict.UNRESOLVED if {Verdict.UNRESOLVED} in stages.values() else Verdict.PASS
