"""z-scores and verdicts."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from keras import tree

from gradaudit.errors import GapCode
from gradaudit.records import (
    Comparison,
    Estimate,
    Gap,
    Reference,
    Stage,
    StepRecord,
    TensorComparison,
    Verdict,
    WeightComparisons,
)
from gradaudit.scoring.diagnosis import diagnose
from gradaudit.scoring.provenance import described

UNRESOLVED = 0.1
"""A tensor is unresolved where its rounding error is larger than this part of its norm."""

VERDICTS = np.array(list(Verdict))
"""The verdicts as text. The verdicts of a tensor's weights are kept as indices into this array."""
_PASS, _KINK, _UNRESOLVED, _FAIL, _UNJUDGED = range(len(Verdict))

_OTHER = "the step that trained is not the judged one"


def compare(
    record: StepRecord, reference: Reference, threshold: float, rows_per_tensor: int = 10_000
) -> Comparison:
    """Return one verdict for each weight of a step.

    threshold: the largest |tape − reference| / (κ σ) that passes.
    rows_per_tensor: most single weights of a tensor that are kept, those with the largest z.
    """
    rows = tree.flatten(record.x)
    batch_size = len(rows[0]) if rows and np.ndim(rows[0]) else 0
    before = record.variables | record.optimizer_variables
    after = record.variables_after | record.optimizer_variables_after

    def tensor(stage: Stage, path: str, tape: np.ndarray, estimate: Estimate) -> TensorComparison:
        return _tensor(
            stage, path, tape, before[path], estimate, threshold, batch_size, rows_per_tensor
        )

    tensors = []
    for path, estimate in reference.gradients.items():
        gradient = record.gradients.get(path)
        tape = np.zeros(estimate.value.shape) if gradient is None else gradient
        tensors.append(tensor(Stage.GRADIENT, path, tape, estimate))
    for path, estimate in reference.updates():
        tape = np.asarray(after[path], np.float64) - np.asarray(before[path], np.float64)
        tensors.append(tensor(Stage.UPDATE, path, tape, estimate))
    for (stage, path), gaps in reference.unjudged.items():
        found = record.gradients.get(path)
        if stage is Stage.UPDATE:
            found = after[path] - before[path] if path in after else None
        tensors.append(_unjudged(stage, path, found, before[path], gaps, rows_per_tensor))
    for path, estimate in reference.trained():
        trained = (record.trained or {})[path]
        moved = np.asarray(trained, np.float64) - np.asarray(before[path], np.float64)
        other = tensor(Stage.UPDATE, path, moved, estimate)
        if other.verdict is Verdict.FAIL:
            place = (Stage.UPDATE, path)
            tensors = [each for each in tensors if (each.stage, each.path) != place]
            tensors.append(replace(other, cause=f"{_OTHER}: {other.cause}"))

    order = list(Stage)
    tensors.sort(key=lambda each: order.index(each.stage))
    judged = [each for each in tensors if not np.isnan(each.max_z)]
    worst = max(judged, key=lambda each: each.max_z, default=None)
    loss_reference, loss_z = np.nan, np.nan
    if reference.loss is not None and record.loss is not None:
        loss_reference = float(reference.loss.value)
        z, either = _scores(np.asarray(record.loss), reference.loss)
        loss_z = 0.0 if either else float(z)
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
        verdict=Verdict.FAIL if loss_z > threshold else of_stages(stage_verdicts(tensors)),
        capture_ms=record.capture_ms,
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
    for verdict in (Verdict.FAIL, Verdict.UNJUDGED):
        if verdict in present:
            return verdict
    if not stages.get(Stage.GRADIENT):
        return Verdict.UNJUDGED
    return Verdict.UNRESOLVED if {Verdict.UNRESOLVED} in stages.values() else Verdict.PASS


def _scores(tape: np.ndarray, estimate: Estimate) -> tuple[np.ndarray, np.ndarray]:
    """Return z, and a mask of the elements where a correct computation may overflow.

    z is the part of |tape − reference| that no kink explains, over σ. It is infinite where only one
    of the two is finite; within the mask that proves nothing.
    """
    value, kink = estimate.value, 0.0 if estimate.kink is None else estimate.kink
    either = np.isfinite(value) & ~np.isfinite(np.broadcast_to(kink, value.shape))
    with np.errstate(all="ignore"):
        difference = np.abs(tape - value)
        beyond = np.maximum(difference - np.where(either, 0.0, kink), 0.0)
        z = np.where(beyond == 0, 0.0, beyond / estimate.sigma)
        numbers = np.isfinite(tape) & np.isfinite(value)
        alike = (tape == value) | (np.isnan(tape) & ~np.isfinite(value))
        alike |= np.isnan(value) & ~np.isfinite(tape)
        z = np.where(alike | np.isnan(z) & numbers, 0.0, np.where(numbers, z, np.inf))
    return z, either


def _tensor(
    stage: Stage,
    path: str,
    tape: np.ndarray,
    weight: np.ndarray,
    estimate: Estimate,
    threshold: float,
    batch_size: int,
    rows: int,
) -> TensorComparison:
    tape = np.asarray(tape, np.float64)
    value, sigma = estimate.value, estimate.sigma
    z, either = _scores(tape, estimate)
    kink = np.zeros(()) if estimate.kink is None else estimate.kink
    verdicts = np.where(z > threshold, _FAIL, _PASS).astype(np.uint8)
    verdicts[either & (z > threshold)] = _UNRESOLVED
    z = np.where(either & (z > threshold), 0.0, z)
    verdicts[np.isfinite(value) & ~np.isfinite(sigma) & (tape != value)] = _UNRESOLVED
    with np.errstate(all="ignore"):
        excused = (z <= threshold) & (np.abs(tape - value) > threshold * sigma) & (kink > 0)
        excused &= np.isfinite(tape) & ~either
        # Where a choice at a kink outweighs the value, not even its sign can be judged.
        verdicts[excused] = np.where(kink <= np.abs(value), _KINK, _UNRESOLVED)[excused]
        norm = float(np.linalg.norm(value))
        finite = np.isfinite(sigma) & np.isfinite(kink)
        noise = np.linalg.norm(sigma[finite])
        doubt = np.linalg.norm(np.broadcast_to(kink, value.shape)[finite])
        tolerance = float(np.linalg.norm(threshold * sigma + kink))
        detectable = tolerance / norm if tolerance and norm else np.inf if tolerance else 0.0
        detectable = np.inf if np.isnan(detectable) else detectable
    if noise > UNRESOLVED * norm or doubt > norm:
        verdicts[verdicts == _PASS] = _UNRESOLVED
    verdict = next((v for v in (_FAIL, _UNRESOLVED, _KINK) if bool(np.any(verdicts == v))), _PASS)
    return _summary(
        stage,
        path,
        tape,
        value,
        np.asarray(weight),
        sigma,
        z,
        verdicts,
        rows,
        oracle=estimate.oracle,
        kappa=estimate.kappa,
        detectable_rel=detectable,
        kinks=int(np.count_nonzero(kink)),
        provenance=estimate.provenance,
        gaps=_codes(estimate.gaps),
        verdict=Verdict(VERDICTS[verdict]),
        cause="; ".join(
            part
            for part in (
                _cause(verdict, tape, estimate, verdicts, batch_size),
                *(f"{words} stands in between" for words in described(estimate.provenance)),
            )
            if part
        ),
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
    judged = z.size > 0 and found["verdict"] is not Verdict.UNJUDGED
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


def _cause(
    verdict: int, tape: np.ndarray, estimate: Estimate, verdicts: np.ndarray, batch_size: int
) -> str:
    if verdict == _FAIL:
        return diagnose(tape, estimate.value, verdicts == _FAIL, batch_size)
    if (
        verdict == _UNRESOLVED
        and estimate.kink is not None
        and not np.isfinite(estimate.kink).all()
    ):
        return "a correct computation may overflow here in the precision of the audited step"
    if verdict == _UNRESOLVED:
        return "rounding errors or choices at kinks are too large a part of the values"
    if not np.isfinite(tape).all():
        return "not finite, and rightly so"
    return ""


def _unjudged(
    stage: Stage,
    path: str,
    tape: np.ndarray | None,
    weight: np.ndarray,
    gaps: tuple[Gap, ...],
    rows: int,
) -> TensorComparison:
    nothing = np.full(weight.shape, np.nan)
    return _summary(
        stage,
        path,
        nothing if tape is None else np.asarray(tape, np.float64),
        nothing,
        weight,
        nothing,
        nothing,
        np.full(weight.shape, _UNJUDGED, np.uint8),
        rows,
        oracle="",
        kappa=np.nan,
        detectable_rel=np.nan,
        kinks=0,
        verdict=Verdict.UNJUDGED,
        cause="; ".join(gap.message for gap in gaps),
        gaps=_codes(gaps),
    )


def _codes(gaps: tuple[Gap, ...]) -> tuple[GapCode, ...]:
    return tuple(dict.fromkeys(gap.code for gap in gaps))
