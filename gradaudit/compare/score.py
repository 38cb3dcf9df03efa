"""z-scores and verdicts."""

from collections.abc import Iterable, Mapping

import numpy as np
from keras import tree

from gradaudit.compare.diagnosis import diagnose
from gradaudit.records import Comparison, Estimate, Reference, StepRecord, TensorComparison

UNRESOLVED = 0.1
"""A tensor is unresolved where its rounding error is larger than this part of its norm."""


def compare(record: StepRecord, reference: Reference, threshold: float) -> Comparison:
    """Return one verdict for each weight of a step.

    threshold: the largest |tape − reference| / (κ σ) that passes.
    """
    batch_size = len(tree.flatten(record.x)[0])
    before = record.variables | record.optimizer_variables
    after = record.variables_after | record.optimizer_variables_after
    tensors = []
    for path, estimate in reference.gradients.items():
        gradient = record.gradients[path]
        tape = np.zeros(estimate.value.shape) if gradient is None else gradient
        tensors.append(
            _tensor("gradient", path, tape, before[path], estimate, threshold, batch_size)
        )
    for path, estimate in reference.updates:
        tape = np.asarray(after[path], np.float64) - np.asarray(before[path], np.float64)
        tensors.append(_tensor("update", path, tape, before[path], estimate, threshold, batch_size))
    for (stage, path), reason in reference.unjudged.items():
        tape = record.gradients[path] if stage == "gradient" else after[path] - before[path]
        tensors.append(_unjudged(stage, path, tape, before[path], reason))

    judged = [tensor for tensor in tensors if tensor.z.size and tensor.verdict != "unjudged"]
    worst = max(judged, key=lambda tensor: np.max(tensor.z), default=None)
    loss_reference, loss_z = np.nan, np.nan
    if reference.loss is not None:
        loss_reference = float(reference.loss.value)
        z, either = _scores(np.asarray(record.loss), reference.loss)
        loss_z = 0.0 if either else float(z)
    return Comparison(
        step=record.step,
        epoch=record.epoch,
        batch_size=batch_size,
        loss_tape=record.loss,
        loss_reference=loss_reference,
        loss_z=loss_z,
        tensors=tuple(tensors),
        max_z=np.nan if worst is None else float(np.max(worst.z)),
        worst_path="" if worst is None else worst.path,
        worst_index=() if worst is None else worst_index(worst.z),
        verdict="fail" if loss_z > threshold else of_stages(stage_verdicts(tensors)),
        capture_ms=record.capture_ms,
        reference_ms=reference.reference_ms,
    )


def stage_verdicts(tensors: Iterable[TensorComparison]) -> dict[str, set[str]]:
    """Return the verdicts on the weights of each stage, counters that pass aside."""
    stages: dict[str, set[str]] = {}
    for tensor in tensors:
        present = stages.setdefault(tensor.stage, set())
        if tensor.tape.ndim or tensor.verdict != "pass":
            present.update(tensor.verdicts.ravel().tolist())
    return stages


def of_stages(stages: Mapping[str, set[str]]) -> str:
    """Return the verdict on a whole from those on the weights of its stages.

    A whole is unresolved where one of its stages is: where nothing of it could be said.
    """
    present = set().union(*stages.values())
    for verdict in ("fail", "unjudged"):
        if verdict in present:
            return verdict
    return "unresolved" if {"unresolved"} in stages.values() else "pass"


def worst_index(z: np.ndarray) -> tuple[int, ...]:
    """Return the index of the largest score."""
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(z)), z.shape))


def _scores(tape: np.ndarray, estimate: Estimate) -> tuple[np.ndarray, np.ndarray]:
    """Return z, and where nothing can be said because the reference may overflow or not.

    z is the difference that no kink explains, in σ. Not a number against a number is infinitely
    far off, unless the reference is a number that a correct computation may lose by an overflow.
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
    stage: str,
    path: str,
    tape: np.ndarray,
    weight: np.ndarray,
    estimate: Estimate,
    threshold: float,
    batch_size: int,
) -> TensorComparison:
    tape = np.asarray(tape, np.float64)
    value, sigma = estimate.value, estimate.sigma
    z, either = _scores(tape, estimate)
    kink = np.zeros(value.shape) if estimate.kink is None else estimate.kink
    verdicts = np.where(z > threshold, "fail", "pass").astype("<U10")
    verdicts[either & (z > threshold)] = "unresolved"
    z = np.where(either & (z > threshold), 0.0, z)
    verdicts[np.isfinite(value) & ~np.isfinite(sigma) & (tape != value)] = "unresolved"
    with np.errstate(all="ignore"):
        excused = (z <= threshold) & (np.abs(tape - value) > threshold * sigma) & (kink > 0)
        excused &= np.isfinite(tape) & ~either
        # A choice that outweighs the value leaves not even its sign to be judged.
        verdicts[excused] = np.where(kink <= np.abs(value), "kink", "unresolved")[excused]
        norm = np.linalg.norm(value)
        finite = np.isfinite(sigma) & np.isfinite(kink)
        noise = np.linalg.norm(sigma[finite])
        doubt = np.linalg.norm(kink[finite])
        tolerance = float(np.linalg.norm(threshold * sigma + kink))
        detectable = tolerance / float(norm) if tolerance and norm else np.inf if tolerance else 0.0
        detectable = np.inf if np.isnan(detectable) else detectable
    if noise > UNRESOLVED * norm or doubt > norm:
        verdicts[verdicts == "pass"] = "unresolved"
    present = set(verdicts.ravel().tolist())
    verdict = next((v for v in ("fail", "unresolved", "kink") if v in present), "pass")
    return TensorComparison(
        stage=stage,
        path=path,
        layer=path.rpartition("/")[0],
        dtype=str(weight.dtype),
        oracle=estimate.oracle,
        tape=tape,
        reference=value,
        weight=np.asarray(weight, np.float64),
        sigma=sigma,
        z=z,
        verdicts=verdicts,
        kappa=estimate.kappa,
        detectable_rel=detectable,
        kinks=int(np.count_nonzero(kink)),
        verdict=verdict,
        cause=_cause(verdict, tape, estimate, verdicts, batch_size),
    )


def _cause(
    verdict: str, tape: np.ndarray, estimate: Estimate, verdicts: np.ndarray, batch_size: int
) -> str:
    if verdict == "fail":
        return diagnose(tape, estimate.value, verdicts == "fail", batch_size)
    if (
        verdict == "unresolved"
        and estimate.kink is not None
        and not np.isfinite(estimate.kink).all()
    ):
        return "a correct computation may overflow here in the precision of the audited step"
    if verdict == "unresolved":
        return "rounding errors or choices at kinks are too large a part of the values"
    if not np.isfinite(tape).all():
        return "not finite, and rightly so"
    return ""


def _unjudged(
    stage: str, path: str, tape: np.ndarray | None, weight: np.ndarray, reason: str
) -> TensorComparison:
    nothing = np.full(weight.shape, np.nan)
    return TensorComparison(
        stage=stage,
        path=path,
        layer=path.rpartition("/")[0],
        dtype=str(weight.dtype),
        oracle="",
        tape=nothing if tape is None else np.asarray(tape, np.float64),
        reference=nothing,
        weight=np.asarray(weight, np.float64),
        sigma=nothing,
        z=nothing,
        verdicts=np.full(weight.shape, "unjudged"),
        kappa=np.nan,
        detectable_rel=np.nan,
        kinks=0,
        verdict="unjudged",
        cause=reason,
    )
