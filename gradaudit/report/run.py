"""The folder of a run, read back."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradaudit.errors import AuditFailure, FolderError
from gradaudit.records import Comparison, Verdict
from gradaudit.report.folder import FILES, SCHEMA_VERSION, RunFolder
from gradaudit.report.headline import headline
from gradaudit.report.tables import (
    STEPS,
    TENSORS,
    TEXT,
    WEIGHTS,
    step_row,
    tensor_rows,
    unguarded,
    weight_rows,
)

_ADDED_IN_3 = ("compare_ms", "gaps", "provenance")
"""Columns that schema version 2 does not have."""
_SHOWN = ["stage", "path", "count", "max_z", "detectable_rel", "kinks", "verdict", "cause"]


@dataclass(frozen=True, repr=False)
class Run:
    """A report: `steps`, `tensors` and `weights` are DataFrames, `run` is a dict.

    path: its folder; None for one that is not on the disk.
    """

    path: Path | None
    steps: pd.DataFrame
    tensors: pd.DataFrame
    weights: pd.DataFrame
    run: dict[str, Any]

    @property
    def verdict(self) -> str:
        """Verdict of the run: pass, fail, nonfinite, unresolved, unjudged, interrupted, aborted or
        running.
        """
        return self.run["verdict"]

    def raise_for_failure(self, *, allow_unjudged: bool = False) -> None:
        """Raise where the audit did not pass.

        allow_unjudged: accept what could not be judged, as long as nothing failed.

        Raises:
            AuditFailure: something failed, or was not judged; the message says what.
        """
        allowed = [Verdict.PASS]
        if allow_unjudged:
            allowed += [Verdict.UNJUDGED, Verdict.UNRESOLVED]
        if self.verdict in allowed:
            return
        reasons = self.run.get("failures") or self.run.get("unjudged") or ["see .tensors"]
        more = f" (and {len(reasons) - 3} more)" if len(reasons) > 3 else ""
        raise AuditFailure(f"{self.verdict}: {'; '.join(reasons[:3])}{more}")

    def save(self, folder: str | os.PathLike, *, overwrite: bool = False) -> None:
        """Write the report to a folder.

        Raises:
            FolderError: another run lies there, or the folder cannot be written to.
        """
        written = RunFolder(folder, overwrite)
        written.extend(self.steps, self.tensors, self.weights)
        written.write_run(self.run)

    @property
    def headline(self) -> str:
        """The verdict in capitals, what was waived for it, and how many steps it is of."""
        return headline({"coverage": {"steps_audited": self.steps["step"].nunique()}, **self.run})

    def __repr__(self) -> str:
        verdict, _, more = self.headline.partition(", ")
        where = f", {self.path}" if self.path is not None else ""
        return f"<gradaudit.Run: {verdict.lower()}, {more}{where}>"

    def _repr_html_(self) -> str:
        """Show the verdict and the tensors in a notebook."""
        table = self.tensors[["step", *_SHOWN] if len(self.steps) > 1 else _SHOWN]
        return f"<p><b>{escape(self.headline)}</b></p>" + table.to_html(index=False, max_rows=40)


def collected(comparisons: Sequence[Comparison], run: dict[str, Any]) -> Run:
    """Return the report of comparisons that are not on the disk."""
    steps, tensors, weights = (
        pd.concat([rows(comparison) for comparison in comparisons], ignore_index=True)
        for rows in (lambda comparison: step_row(comparison, 0.0), tensor_rows, weight_rows)
    )
    return Run(None, steps, tensors, weights, run)


def load(folder: str | os.PathLike) -> Run:
    """Read a run's folder.

    Raises:
        FolderError: the folder is not that of a run, a newer gradaudit wrote it, or one of its
            files is damaged.
    """
    path = Path(folder)
    missing = [name for name in FILES if not (path / name).is_file()]
    if missing:
        raise FolderError(
            f"{path} is not a run: it has no {', '.join(missing)}. "
            "Expected the folder that `gradaudit run --out` or GradientAudit wrote."
        )
    try:
        run = json.loads((path / "run.json").read_text())
        if not isinstance(run, dict) or "verdict" not in run:
            raise ValueError("run.json has no verdict")
        version = int(run.get("schema_version", SCHEMA_VERSION))
        if version > SCHEMA_VERSION:
            raise FolderError(
                f"{path} has schema version {version}. Expected {SCHEMA_VERSION} at most: a newer "
                "gradaudit wrote it. Upgrade gradaudit."
            )
        steps = _read(path / "steps.csv", STEPS, version)
        tensors = _read(path / "tensors.csv", TENSORS, version)
        weights = _read(path / "weights.csv", WEIGHTS, version)
    except ValueError as error:
        raise FolderError(f"{path} is damaged: {error}. Run the audit again.") from error
    return Run(path, steps, tensors, weights, run)


def _read(path: Path, columns: list[str], version: int) -> pd.DataFrame:
    """Read a table; columns that its version of the schema does not have are empty.

    Raises:
        ValueError: the columns are others.
    """
    added = [name for name in columns if version < 3 and name in _ADDED_IN_3]
    table = _read_columns(path, [name for name in columns if name not in added])
    for name in added:
        table[name] = "" if name in TEXT else np.nan
    return table[columns]


def _read_columns(path: Path, columns: list[str]) -> pd.DataFrame:
    numbers = [name for name in columns if name not in TEXT]
    table = pd.read_csv(
        path,
        dtype={name: str for name in columns if name in TEXT},
        keep_default_na=False,
        na_values={name: ["", "nan"] for name in numbers},
    )
    if list(table.columns) != columns:
        raise ValueError(f"{path.name} has the columns {', '.join(table.columns)}")
    for name in columns:
        if name in TEXT:
            table[name] = table[name].map(unguarded)
    return table
