"""What a report says of one tensor: its summary, and the rows of its single weights."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gradaudit.errors import GapCode
from gradaudit.records import (
    Gap,
    Origin,
    Stage,
    StepRecord,
    TensorComparison,
    Verdict,
    WeightRows,
)
from gradaudit.scoring.elements import (
    NONFINITE,
    PASS,
    UNJUDGED,
    VERDICTS,
    Judged,
    not_finite,
    words_of,
)
from gradaudit.scoring.passing import Passing
from gradaudit.scoring.provenance import described
from gradaudit.scoring.rows import RowSink, RowsPerTensor, chosen, most_rows


@dataclass(frozen=True)
class Tensors:
    """Sums up the tensors of one step, and hands on the rows of their weights.

    weights: all variables before the step, by path. batch_size: rows of the batch.
    rows_per_tensor, sink: which weights have a row, and what takes the rows.
    """

    record: StepRecord
    weights: dict[str, np.ndarray]
    batch_size: int
    rows_per_tensor: RowsPerTensor
    sink: RowSink

    def passed(self, stage: Stage, path: str, passing: Passing) -> TensorComparison:
        """Return the summary of a tensor all of whose weights pass."""
        estimate, weight = passing.estimate, np.asarray(self.weights[path])
        size = estimate.value.size
        most = most_rows(size, self.rows_per_tensor)
        place = None if most is None else passing.largest(most)
        part = slice(None) if place is None else place
        z = passing.z(part)
        self._add(
            stage,
            path,
            weight,
            place,
            tape=passing.tape[part],
            reference=estimate.value.ravel()[part],
            sigma=estimate.sigma.ravel()[part],
            z=z,
            verdict=np.full(z.size, PASS, np.uint8),
        )
        passed = [f"{words} stands in between" for words in described(estimate.provenance)]
        return TensorComparison(
            stage=stage,
            path=path,
            layer=path.rpartition("/")[0],
            shape=estimate.value.shape,
            dtype=str(weight.dtype),
            oracle=estimate.oracle,
            tape_norm=passing.tape_norm,
            reference_norm=passing.reference_norm,
            max_abs_diff=passing.max_abs_diff,
            rel_l2_diff=_relative(passing.distance, passing.reference_norm),
            max_z=passing.max_z,
            worst_index=_index(passing.worst, estimate.value.shape),
            kappa=estimate.kappa,
            detectable_rel=_relative(passing.tolerance, passing.reference_norm),
            kinks=passing.kinks,
            counts={Verdict.PASS: size},
            verdict=Verdict.PASS,
            cause="; ".join(passed),
            rows=z.size,
            gaps=_codes(estimate.gaps),
            provenance=estimate.provenance,
        )

    def judged(self, stage: Stage, path: str, judged: Judged) -> TensorComparison:
        """Return the summary of a tensor that was judged weight by weight."""
        estimate = judged.estimate
        passed = [f"{words} stands in between" for words in described(estimate.provenance)]
        return self._summary(
            stage,
            path,
            judged.tape,
            estimate.value,
            estimate.sigma,
            judged.z,
            judged.verdicts,
            oracle=estimate.oracle,
            kappa=estimate.kappa,
            detectable_rel=judged.detectable_rel,
            kinks=int(np.count_nonzero(judged.kink)),
            provenance=estimate.provenance,
            gaps=_codes(estimate.gaps),
            verdict=Verdict(VERDICTS[judged.verdict]),
            cause="; ".join(part for part in (judged.cause(self.batch_size), *passed) if part),
        )

    def unjudged(
        self,
        stage: Stage,
        path: str,
        tape: np.ndarray | None,
        gaps: tuple[Gap, ...],
        origin: Origin | None,
    ) -> TensorComparison:
        """Return a tensor without a reference; what is not finite in it fails all the same."""
        shape = np.shape(self.weights[path])
        nothing = np.full(shape, np.nan)
        found = nothing if tape is None else np.asarray(tape, np.float64)
        verdicts = np.full(shape, UNJUDGED, np.uint8)
        cause = [gap.message for gap in gaps]
        skipped = origin is not None and origin.skipped
        if tape is not None and not skipped and not np.isfinite(found).all():
            verdicts[~np.isfinite(found)] = NONFINITE
            cause.insert(0, not_finite(found) + words_of(origin))
        return self._summary(
            stage,
            path,
            found,
            nothing,
            nothing,
            nothing,
            verdicts,
            oracle="",
            kappa=np.nan,
            detectable_rel=np.nan,
            kinks=0,
            verdict=Verdict.NONFINITE if (verdicts == NONFINITE).any() else Verdict.UNJUDGED,
            cause="; ".join(cause),
            gaps=_codes(gaps),
        )

    def _summary(
        self,
        stage: Stage,
        path: str,
        tape: np.ndarray,
        value: np.ndarray,
        sigma: np.ndarray,
        z: np.ndarray,
        verdicts: np.ndarray,
        **found: Any,
    ) -> TensorComparison:
        weight = np.asarray(self.weights[path])
        with np.errstate(all="ignore"):
            difference = tape - value
            norm, distance = float(np.linalg.norm(value)), float(np.linalg.norm(difference))
        judged = z.size > 0 and not np.isnan(z).all()
        counts = np.bincount(verdicts.ravel(), minlength=VERDICTS.size)
        place = chosen(z.ravel(), verdicts.ravel(), self.rows_per_tensor)
        part = slice(None) if place is None else place
        self._add(
            stage,
            path,
            weight,
            place,
            tape=tape.ravel()[part],
            reference=value.ravel()[part],
            sigma=sigma.ravel()[part],
            z=z.ravel()[part],
            verdict=verdicts.ravel()[part],
        )
        return TensorComparison(
            stage=stage,
            path=path,
            layer=path.rpartition("/")[0],
            shape=z.shape,
            dtype=str(weight.dtype),
            tape_norm=float(np.linalg.norm(tape)),
            reference_norm=norm,
            max_abs_diff=float(np.max(np.abs(difference), initial=0.0)),
            rel_l2_diff=_relative(distance, norm),
            max_z=float(np.max(z)) if judged else np.nan,
            worst_index=_index(int(np.argmax(z)), z.shape) if judged else (),
            counts={v: int(n) for v, n in zip(Verdict, counts, strict=True) if n},
            rows=z.size if place is None else place.size,
            **found,
        )

    def _add(
        self, stage: Stage, path: str, weight: np.ndarray, place: np.ndarray | None, **of: Any
    ) -> None:
        """Hand on the rows of some weights, or of all."""
        record, part = self.record, slice(None) if place is None else place
        held = weight.ravel()[part]
        self.sink.add(
            WeightRows(record.step, record.replica, stage, path, weight.shape, place, held, **of)
        )


def _relative(distance: float, norm: float) -> float:
    """Return a distance by a norm: infinite by 0, but 0 where both are."""
    return distance / norm if norm else 0.0 if distance == 0 else np.inf


def _index(place: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(place, shape))


def _codes(gaps: tuple[Gap, ...]) -> tuple[GapCode, ...]:
    return tuple(dict.fromkeys(gap.code for gap in gaps))
