"""The three tables of a report: their columns, and the rows of one comparison."""

import numpy as np
import pandas as pd

from gradaudit.records import Comparison, TensorComparison

STEPS = (
    "step epoch batch_size loss_tape loss_reference loss_z max_z worst_path worst_index verdict "
    "capture_ms reference_ms report_ms"
).split()
TENSORS = (
    "step stage path layer shape dtype oracle count tape_norm reference_norm max_abs_diff "
    "rel_l2_diff max_z worst_index detectable_rel kinks verdict cause"
).split()
WEIGHTS = "step stage path index weight tape reference abs_diff rel_diff sigma z verdict".split()

TEXT = ("path layer worst_path cause index worst_index shape stage dtype oracle verdict").split()
"""Columns that are text, also where all of their cells look like numbers."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")


def guarded(text: str) -> str:
    """Return text that no spreadsheet takes for a formula; `unguarded` undoes it."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def unguarded(text: str) -> str:
    """Return what `guarded` was given."""
    return text[1:] if text.startswith("'") else text


def index_text(index: tuple[int, ...]) -> str:
    """Return an index as `i,j`; empty for a scalar."""
    return ",".join(map(str, index))


def step_row(comparison: Comparison, report_ms: float) -> pd.DataFrame:
    """Return the row of steps.csv."""
    row = {name: getattr(comparison, name, None) for name in STEPS}
    row["worst_path"] = guarded(comparison.worst_path)
    row["worst_index"] = index_text(comparison.worst_index)
    row["report_ms"] = report_ms
    for name in ("capture_ms", "reference_ms", "report_ms"):
        row[name] = round(row[name], 3)
    return pd.DataFrame([row], columns=STEPS)


def tensor_rows(comparison: Comparison) -> pd.DataFrame:
    """Return the rows of tensors.csv."""
    rows = []
    for tensor in comparison.tensors:
        with np.errstate(all="ignore"):
            difference = tensor.tape - tensor.reference
            norm = float(np.linalg.norm(tensor.reference))
            distance = float(np.linalg.norm(difference))
        judged = tensor.verdict != "unjudged" and tensor.z.size > 0
        worst = np.unravel_index(int(np.argmax(tensor.z)), tensor.z.shape) if judged else ()
        rows.append(
            {
                "step": comparison.step,
                "stage": tensor.stage,
                "path": guarded(tensor.path),
                "layer": guarded(tensor.layer),
                "shape": "x".join(map(str, tensor.tape.shape)),
                "dtype": tensor.dtype,
                "oracle": tensor.oracle,
                "count": tensor.tape.size,
                "tape_norm": float(np.linalg.norm(tensor.tape)),
                "reference_norm": norm,
                "max_abs_diff": float(np.max(np.abs(difference), initial=0.0)),
                "rel_l2_diff": distance / norm if norm else 0.0 if distance == 0 else np.inf,
                "max_z": float(np.max(tensor.z)) if judged else np.nan,
                "worst_index": index_text(tuple(int(i) for i in worst)),
                "detectable_rel": tensor.detectable_rel,
                "kinks": tensor.kinks,
                "verdict": tensor.verdict,
                "cause": guarded(tensor.cause),
            }
        )
    return pd.DataFrame(rows, columns=TENSORS)


def weight_rows(comparison: Comparison, most: int) -> pd.DataFrame:
    """Return the rows of weights.csv: of each tensor at most its `most` worst weights."""
    parts = [_weights(comparison.step, tensor, most) for tensor in comparison.tensors]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=WEIGHTS)


def _weights(step: int, tensor: TensorComparison, most: int) -> pd.DataFrame:
    chosen = np.arange(tensor.tape.size)
    if tensor.tape.size > most:
        chosen = np.sort(np.argsort(-np.nan_to_num(tensor.z.ravel()), kind="stable")[:most])
    flat = {
        name: getattr(tensor, name).ravel()[chosen]
        for name in ("weight", "tape", "reference", "sigma", "z")
    }
    with np.errstate(all="ignore"):
        difference = np.abs(flat["tape"] - flat["reference"])
        relative = np.where(difference == 0, 0.0, difference / np.abs(flat["reference"]))
    indices = np.unravel_index(chosen, tensor.tape.shape) if tensor.tape.ndim else ()
    texts = list(zip(*indices, strict=True)) if tensor.tape.ndim else [()]
    return pd.DataFrame(
        {
            "step": step,
            "stage": tensor.stage,
            "path": guarded(tensor.path),
            "index": [index_text(index) for index in texts],
            **{name: flat[name] for name in ("weight", "tape", "reference")},
            "abs_diff": difference,
            "rel_diff": relative,
            "sigma": flat["sigma"],
            "z": flat["z"],
            "verdict": tensor.verdicts.ravel()[chosen],
        },
        columns=WEIGHTS,
    )
