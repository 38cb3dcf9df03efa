"""The tables of steps and of tensors: their columns, and the rows of one comparison."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from gradaudit.records import Comparison, TensorComparison

STEPS = (
    "step replica epoch batch_size loss_tape loss_reference loss_z max_z worst_path worst_index "
    "verdict judged_by capture_ms reference_ms update_ms compare_ms report_ms"
).split()
TENSORS = (
    "step replica stage path layer shape dtype oracle count tape_norm reference_norm max_abs_diff "
    "rel_l2_diff max_z worst_index detectable_rel kinks verdict cause gaps provenance"
).split()

TEXT = (
    "path layer worst_path cause gaps provenance index worst_index shape stage dtype oracle "
    "verdict judged_by"
).split()
"""Columns that are text, also where all of their cells look like numbers."""

WHOLE = "step replica epoch batch_size count kinks".split()
"""Columns of whole numbers; all others that are not text are floats."""

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


def step_row(comparison: Comparison, report_ms: float) -> list[Any]:
    """Return the row of steps.csv."""
    times = {
        "capture_ms": comparison.capture_ms,
        "reference_ms": comparison.reference_ms,
        "update_ms": comparison.update_ms,
        "compare_ms": comparison.compare_ms,
        "report_ms": report_ms,
    }
    row: dict[str, Any] = {name: getattr(comparison, name, None) for name in STEPS}
    row["worst_index"] = index_text(comparison.worst_index)
    row["verdict"] = str(comparison.verdict)
    row |= {name: round(milliseconds, 3) for name, milliseconds in times.items()}
    return list(row.values())


def tensor_rows(comparison: Comparison) -> list[list[Any]]:
    """Return the rows of tensors.csv."""
    return [_tensor_row(comparison, tensor) for tensor in comparison.tensors]


def _tensor_row(comparison: Comparison, tensor: TensorComparison) -> list[Any]:
    row = {name: getattr(tensor, name, None) for name in TENSORS}
    row["step"], row["replica"] = comparison.step, comparison.replica
    row["shape"] = "x".join(map(str, tensor.shape))
    for name in ("stage", "oracle", "verdict"):
        row[name] = str(row[name])
    row["worst_index"] = index_text(tensor.worst_index)
    row["gaps"] = " ".join(tensor.gaps)
    row["provenance"] = " ".join(sorted({each.kind for each in tensor.provenance}))
    return list(row.values())


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Return rows as the text of a CSV file; numbers come back as they are, NaN and None as NaN."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_cell(cell) for cell in row] for row in rows)
    return text.getvalue()


def _cell(cell: Any) -> Any:
    if isinstance(cell, str):
        return guarded(cell)
    return None if cell is None or cell != cell else cell
