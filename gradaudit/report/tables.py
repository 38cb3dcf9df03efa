"""The three tables of a report: their columns, and the rows of one comparison."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from gradaudit.records import Comparison, TensorComparison

STEPS = (
    "step replica epoch batch_size loss_tape loss_reference loss_z max_z worst_path worst_index "
    "verdict capture_ms reference_ms compare_ms report_ms"
).split()
TENSORS = (
    "step replica stage path layer shape dtype oracle count tape_norm reference_norm max_abs_diff "
    "rel_l2_diff max_z worst_index detectable_rel kinks verdict cause gaps provenance"
).split()
WEIGHTS = (
    "step replica stage path index weight tape reference abs_diff rel_diff sigma z verdict"
).split()

TEXT = (
    "path layer worst_path cause gaps provenance index worst_index shape stage dtype oracle verdict"
).split()
"""Columns that are text, also where all of their cells look like numbers."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


def guarded(text: str) -> str:
    """Return text that no spreadsheet takes for a formula; `unguarded` undoes it."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def unguarded(text: str) -> str:
    """Return what `guarded` was given."""
    return text[1:] if text.startswith("'") else text


def index_text(index: Sequence[int]) -> str:
    """Return an index as `i,j`; empty for a scalar."""
    return ",".join(map(str, index))


def step_row(comparison: Comparison, report_ms: float) -> pd.DataFrame:
    """Return the row of steps.csv."""
    times = {
        "capture_ms": comparison.capture_ms,
        "reference_ms": comparison.reference_ms,
        "compare_ms": comparison.compare_ms,
        "report_ms": report_ms,
    }
    row: dict[str, Any] = {name: getattr(comparison, name, None) for name in STEPS}
    row["worst_index"] = index_text(comparison.worst_index)
    row["verdict"] = str(comparison.verdict)
    row |= {name: round(milliseconds, 3) for name, milliseconds in times.items()}
    return pd.DataFrame([row], columns=STEPS)


def tensor_rows(comparison: Comparison) -> pd.DataFrame:
    """Return the rows of tensors.csv."""
    rows = []
    for tensor in comparison.tensors:
        row = {name: getattr(tensor, name, None) for name in TENSORS}
        row["step"], row["replica"] = comparison.step, comparison.replica
        row["shape"] = "x".join(map(str, tensor.shape))
        for name in ("stage", "oracle", "verdict"):
            row[name] = str(row[name])
        row["worst_index"] = index_text(tensor.worst_index)
        row["gaps"] = " ".join(tensor.gaps)
        row["provenance"] = " ".join(sorted({each.kind for each in tensor.provenance}))
        rows.append(row)
    return pd.DataFrame(rows, columns=TENSORS)


def weight_rows(comparison: Comparison) -> pd.DataFrame:
    """Return the rows of weights.csv."""
    parts = [_weights(comparison, tensor) for tensor in comparison.tensors]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=WEIGHTS)


def _weights(comparison: Comparison, tensor: TensorComparison) -> pd.DataFrame:
    weights = tensor.weights
    with np.errstate(all="ignore"):
        difference = np.abs(weights.tape - weights.reference)
        relative = np.where(difference == 0, 0.0, difference / np.abs(weights.reference))
    return pd.DataFrame(
        {
            "step": comparison.step,
            "replica": comparison.replica,
            "stage": str(tensor.stage),
            "path": tensor.path,
            "index": [index_text(index) for index in weights.index.tolist()],
            "weight": weights.weight,
            "tape": weights.tape,
            "reference": weights.reference,
            "abs_diff": difference,
            "rel_diff": relative,
            "sigma": weights.sigma,
            "z": weights.z,
            "verdict": weights.verdict,
        },
        columns=WEIGHTS,
    )
