"""The folder of a run, read back."""

import io
import json
import os
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyarrow import parquet

from gradaudit.errors import AuditFailure, FolderError
from gradaudit.records import Comparison, Verdict, WeightRows
from gradaudit.report.folder import FILES, SCHEMA_VERSION, WEIGHTS_FILES, RunFolder
from gradaudit.report.headline import headline
from gradaudit.report.tables import STEPS, TENSORS, TEXT, WHOLE, step_row, tensor_rows, unguarded
from gradaudit.report.weights import WEIGHTS, frame, tables

_ADDED = {3: ("compare_ms", "gaps", "provenance"), 4: ("update_ms", "judged_by")}
"""Columns of steps.csv and tensors.csv that a version of the schema brought."""
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


class InMemory:
    """Takes the rows of one step, for a report that is not on the disk.

    rows: of its tensors so far.
    """

    def __init__(self) -> None:
        self.rows: list[WeightRows] = []

    def begin(self) -> None:
        """Forget rows of a step that was not finished."""
        self.rows = []

    def add(self, rows: WeightRows) -> None:
        """Take single weights of one tensor."""
        self.rows.append(rows)

    def report(self, comparison: Comparison, run: dict[str, Any]) -> Run:
        """Return the report of the step."""
        weights = frame(list(tables(self.rows)))
        weights["path"] = weights["path"].map(unguarded)
        steps = pd.DataFrame([step_row(comparison, 0.0)], columns=STEPS)
        return Run(
            None, steps, pd.DataFrame(tensor_rows(comparison), columns=TENSORS), weights, run
        )


def load(folder: str | os.PathLike) -> Run:
    """Read a run's folder.

    Raises:
        FolderError: the folder is not that of a run, a newer gradaudit wrote it, or one of its
            files is damaged.
    """
    path = Path(folder)
    missing = [name for name in FILES if not (path / name).is_file()]
    kept = next((name for name in WEIGHTS_FILES if (path / name).exists()), None)
    missing += [] if kept else ["weights.csv"]
    if missing or kept is None:
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
        weights = _sealed(_read_weights(path / kept, version), steps)
        tensors = _sealed(tensors, steps)
    except ValueError as error:
        raise FolderError(f"{path} is damaged: {error}. Run the audit again.") from error
    return Run(path, steps, tensors, weights, run)


def _read(path: Path, columns: list[str], version: int) -> pd.DataFrame:
    """Read a table; columns that its version of the schema does not have are empty.

    Raises:
        ValueError: the columns are others.
    """
    later = {name for since, names in _ADDED.items() if version < since for name in names}
    added = [name for name in columns if name in later and path.name != "weights.csv"]
    table = _read_columns(path, [name for name in columns if name not in added])
    for name in added:
        table[name] = "" if name in TEXT else np.nan
    return table[columns]


def _read_weights(path: Path, version: int) -> pd.DataFrame:
    """Read single weights; those of a step that was not finished are among them.

    Raises:
        ValueError: the columns are others, or a file is damaged.
    """
    if path.suffix == ".csv":
        return _read(path, WEIGHTS, version)
    found = [parquet.read_table(each) for each in sorted(path.glob("*.parquet"))]
    table = frame(found)
    if list(table.columns) != WEIGHTS:
        raise ValueError(f"{path.name} has the columns {', '.join(table.columns)}")
    return table.assign(path=table["path"].map(unguarded))


def _whole_lines(path: Path) -> Path | io.BytesIO:
    """Return a file, or without its last line where a killed process left half of that."""
    if not path.stat().st_size:
        return path
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        if file.read() == b"\n":
            return path
    return io.BytesIO(path.read_bytes().rpartition(b"\n")[0] + b"\n")


def _sealed(table: pd.DataFrame, steps: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of steps that were finished, all rows as a rule."""
    keys = pd.MultiIndex.from_frame(steps[["step", "replica"]])
    known = pd.MultiIndex.from_frame(table[["step", "replica"]]).isin(keys)
    return table if known.all() else table[known].reset_index(drop=True)


def _read_columns(path: Path, columns: list[str]) -> pd.DataFrame:
    numbers = [name for name in columns if name not in TEXT]
    table = pd.read_csv(
        _whole_lines(path),
        dtype={name: str for name in columns if name in TEXT}
        | {name: float for name in numbers if name not in WHOLE},
        keep_default_na=False,
        na_values={name: ["", "nan"] for name in numbers},
    )
    if list(table.columns) != columns:
        raise ValueError(f"{path.name} has the columns {', '.join(table.columns)}")
    for name in columns:
        if name in TEXT:
            table[name] = table[name].map(unguarded)
    return table
