"""z-scores and verdicts."""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from keras import tree

from gradaudit.errors import GapCode
from gradaudit.records import (
    FAILURES,
    Comparison,
    Gap,
    Origin,
    Reference,
    Stage,
    StepRecord,
    TensorComparison,
    Verdict,
    WeightComparisons,
)
from gradaudit.scoring.elements import (
    NONFINITE,
    UNJUDGED,
    VERDICTS,
    Judged,
    not_finite,
    words_of,
)
from gradaudit.scoring.kinks import settle_kinks
from gradaudit.scoring.provenance import described

_OTHER = "the step that trained is not the judged one"


@np.errstate(all="ignore")  # NaN and infinity have verdicts
def compare(
    record: StepRecord, reference: Reference, threshold: float, rows_per_tensor: int = 10_000
) -> Comparison:
    """Return one verdict for each weight of a step.

    What is NaN or infinite in the framework's step is `NONFINITE`, whatever the reference is: no
    training goes on from such numbers. A reference that is not finite accuses nobody.

    threshold: the largest |tape − reference| / (κ σ) that passes.
    rows_per_tensor: most single weights of a tensor that are kept, those with the largest z.
    """
    rows = tree.flatten(record.x)
    batch_size = len(rows[0]) if rows and np.ndim(rows[0]) else 0
    before = record.variables | record.optimizer_variables
    after = record.variables_after | record.optimizer_variables_after
    of_update = functools.cache(lambda: _origin_of_update(record))

    def origin(stage: Stage, path: str, found: np.ndarray | None) -> Origin | None:
        is_moved = path in record.gradients or path in record.optimizer_variables
        if stage is Stage.UPDATE and is_moved and found is not None:
            return (None if np.isfinite(found).all() else of_update()) or reference.origin
        return reference.origin

    def tensor(stage: Stage, path: str, judged: Judged) -> TensorComparison:
        if stage is Stage.GRADIENT and judged.depends_on_kinks:
            judged.chosen_at(doubts())
        if stage is Stage.GRADIENT and judged.may_overflow and judged.origin is None:
            judged.origin = overflow()
        return _tensor(stage, path, before[path], judged, batch_size, rows_per_tensor)

    doubts, overflow = functools.cache(reference.doubts), functools.cache(reference.overflow)
    gradients = {}
    for path, estimate in reference.gradients.items():
        gradient = record.gradients.get(path)
        tape = np.zeros(estimate.value.shape) if gradient is None else gradient
        tape = np.asarray(tape, np.float64)
        gradients[path] = Judged(tape, estimate, threshold, reference.origin)
    settle_kinks(gradients, reference)
    tensors = [tensor(Stage.GRADIENT, path, judged) for path, judged in gradients.items()]
    for path, estimate in reference.updates():
        tape = np.asarray(after[path], np.float64) - np.asarray(before[path], np.float64)
        judged = Judged(tape, estimate, threshold, origin(Stage.UPDATE, path, tape))
        tensors.append(tensor(Stage.UPDATE, path, judged))
    for (stage, path), gaps in reference.unjudged.items():
        found = record.gradients.get(path)
        if stage is Stage.UPDATE:
            found = after[path] - before[path] if path in after else None
        unjudged = _unjudged(
            stage, path, found, before[path], gaps, rows_per_tensor, origin(stage, path, found)
        )
        tensors.append(unjudged)
    for path, estimate in reference.trained():
        trained = (record.trained or {})[path]
        moved = np.asarray(trained, np.float64) - np.asarray(before[path], np.float64)
        judged = Judged(moved, estimate, threshold, origin(Stage.UPDATE, path, moved))
        other = tensor(Stage.UPDATE, path, judged)
        if other.verdict is Verdict.FAIL:
            place = (Stage.UPDATE, path)
            tensors = [each for each in tensors if (each.stage, each.path) != place]
            tensors.append(replace(other, cause=f"{_OTHER}: {other.cause}"))

    order = list(Stage)
    tensors.sort(key=lambda each: order.index(each.stage))
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
        tensors=tuple(tensors),
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


def _tensor(
    stage: Stage, path: str, weight: np.ndarray, judged: Judged, batch_size: int, rows: int
) -> TensorComparison:
    estimate = judged.estimate
    passed = [f"{words} stands in between" for words in described(estimate.provenance)]
    return _summary(
        stage,
        path,
        judged.tape,
        estimate.value,
        np.asarray(weight),
        estimate.sigma,
        judged.z,
        judged.verdicts,
        rows,
        oracle=estimate.oracle,
        kappa=estimate.kappa,
        detectable_rel=judged.detectable_rel,
        kinks=int(np.count_nonzero(judged.kink)),
        provenance=estimate.provenance,
        gaps=_codes(estimate.gaps),
        verdict=Verdict(VERDICTS[judged.verdict]),
        cause="; ".join(part for part in (judged.cause(batch_size), *passed) if part),
    )


def _summary(
    stage: Stage,
    path: str,
    tape: np.ndarray,
    value: np.ndarray,
    weight: np.ndarray,
    sigma: np.ndarray,
    z: np.ndarray,
    verdicts: np.ndarray,
    rows: int,
    **found: Any,
) -> TensorComparison:
    """Return what is kept of a tensor: its norms, its worst weight, and at most `rows` weights."""
    with np.errstate(all="ignore"):
        difference = tape - value
        norm, distance = float(np.linalg.norm(value)), float(np.linalg.norm(difference))
    judged = z.size > 0 and not np.isnan(z).all()
    chosen = np.arange(z.size)
    if z.size > rows:
        order = np.argpartition(-np.nan_to_num(z.ravel()), rows - 1)[:rows]
        chosen = np.sort(order)
    counts = np.bincount(verdicts.ravel(), minlength=VERDICTS.size)
    numbers = {
        name: np.asarray(array.ravel()[chosen], np.float64)
        for name, array in dict(weight=weight, tape=tape, reference=value, sigma=sigma, z=z).items()
    }
    axes = np.unravel_index(chosen, z.shape) if z.ndim else ()
    index = np.stack(axes, axis=-1) if axes else np.zeros((chosen.size, 0), np.int64)
    return TensorComparison(
        stage=stage,
        path=path,
        layer=path.rpartition("/")[0],
        shape=z.shape,
        dtype=str(weight.dtype),
        tape_norm=float(np.linalg.norm(tape)),
        reference_norm=norm,
        max_abs_diff=float(np.max(np.abs(difference), initial=0.0)),
        rel_l2_diff=distance / norm if norm else 0.0 if distance == 0 else np.inf,
        max_z=float(np.max(z)) if judged else np.nan,
        worst_index=tuple(int(i) for i in np.unravel_index(np.argmax(z), z.shape))
        if judged
        else (),
        counts={v: int(n) for v, n in zip(Verdict, counts, strict=True) if n},
        weights=WeightComparisons(
            index=index, verdict=VERDICTS[verdicts.ravel()[chosen]], **numbers
        ),
        **found,
    )


def _unjudged(
    stage: Stage,
    path: str,
    tape: np.ndarray | None,
    weight: np.ndarray,
    gaps: tuple[Gap, ...],
    rows: int,
    origin: Origin | None,
) -> TensorComparison:
    """Return a tensor without a reference; what is not finite in it fails all the same."""
    nothing = np.full(weight.shape, np.nan)
    found = nothing if tape is None else np.asarray(tape, np.float64)
    verdicts = np.full(weight.shape, UNJUDGED, np.uint8)
    cause = [gap.message for gap in gaps]
    skipped = origin is not None and origin.skipped
    if tape is not None and not skipped and not np.isfinite(found).all():
        verdicts[~np.isfinite(found)] = NONFINITE
        cause.insert(0, not_finite(found) + words_of(origin))
    return _summary(
        stage,
        path,
        found,
        nothing,
        weight,
        nothing,
        nothing,
        verdicts,
        rows,
        oracle="",
        kappa=np.nan,
        detectable_rel=np.nan,
        kinks=0,
        verdict=Verdict.NONFINITE if (verdicts == NONFINITE).any() else Verdict.UNJUDGED,
        cause="; ".join(cause),
        gaps=_codes(gaps),
    )


def _codes(gaps: tuple[Gap, ...]) -> tuple[GapCode, ...]:
    return tuple(dict.fromkeys(gap.code for gap in gaps))
