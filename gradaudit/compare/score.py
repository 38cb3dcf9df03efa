"""z-scores and verdicts."""

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
    for path, estimate in reference.updates.items():
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
        loss_z = float(_scores(np.asarray(record.loss), reference.loss)[0])
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
        verdict=overall({tensor.verdict for tensor in tensors}),
        capture_ms=record.capture_ms,
        reference_ms=reference.reference_ms,
    )


def overall(verdicts: set[str]) -> str:
    """Return the verdict on a whole from those on its parts."""
    for verdict in ("fail", "unjudged"):
        if verdict in verdicts:
            return verdict
    return "unresolved" if verdicts == {"unresolved"} else "pass"


def worst_index(z: np.ndarray) -> tuple[int, ...]:
    """Return the index of the largest score."""
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(z)), z.shape))


def _scores(tape: np.ndarray, estimate: Estimate) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return z, the spread that it is measured in, and |tape − reference|."""
    with np.errstate(all="ignore"):
        difference = np.abs(tape - estimate.value)
        spread = estimate.sigma
        if estimate.kink is not None:
            spread = np.hypot(spread, estimate.kink)
        spread = np.where(np.isnan(spread), np.inf, spread)
        alike = (tape == estimate.value) | (np.isnan(tape) & np.isnan(estimate.value))
        z = np.where(np.isnan(difference), np.inf, difference) / spread
        z = np.where(alike | np.isinf(spread), 0.0, z)
    return z, spread, difference


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
    z, spread, difference = _scores(tape, estimate)
    smooth = difference <= threshold * estimate.sigma
    verdicts = np.where(z > threshold, "fail", "pass").astype("<U10")
    if estimate.kink is not None:
        verdicts[(z <= threshold) & ~smooth & (spread > estimate.sigma)] = "kink"
        verdicts[np.isinf(spread) & ~smooth] = "unresolved"
    norm = np.linalg.norm(estimate.value)
    noise = np.linalg.norm(np.where(np.isfinite(estimate.sigma), estimate.sigma, 0.0))
    if noise > UNRESOLVED * norm:
        verdicts[verdicts == "pass"] = "unresolved"
    tolerance = threshold * np.linalg.norm(spread)
    present = set(verdicts.ravel().tolist())
    verdict = next((v for v in ("fail", "unresolved", "kink") if v in present), "pass")
    return TensorComparison(
        stage=stage,
        path=path,
        layer=path.rpartition("/")[0],
        dtype=str(weight.dtype),
        oracle=estimate.oracle,
        tape=tape,
        reference=estimate.value,
        weight=np.asarray(weight, np.float64),
        sigma=spread,
        z=z,
        verdicts=verdicts,
        kappa=estimate.kappa,
        detectable_rel=0.0 if tolerance == 0 else float(tolerance / norm) if norm else np.inf,
        kinks=0 if estimate.kink is None else int(np.count_nonzero(estimate.kink)),
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
        return "the rounding error is larger than a tenth of the values themselves"
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
