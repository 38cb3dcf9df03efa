"""The folder of a run, read back."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from gradaudit.errors import FolderError
from gradaudit.report.folder import FILES
from gradaudit.report.tables import STEPS, TENSORS, TEXT, WEIGHTS, unguarded


@dataclass(frozen=True)
class Run:
    """A report: `steps`, `tensors` and `weights` are DataFrames, `run` is a dict."""

    path: Path
    steps: pd.DataFrame
    tensors: pd.DataFrame
    weights: pd.DataFrame
    run: dict[str, Any]

    @property
    def verdict(self) -> str:
        """Verdict of the run: pass, fail, unresolved, unjudged, interrupted or running."""
        return self.run["verdict"]


def load(folder: str | os.PathLike) -> Run:
    """Read a run's folder.

    Raises:
        FolderError: the folder is not that of a run, or one of its files is damaged.
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
        columns = (STEPS, TENSORS, WEIGHTS)
        tables = [_read(path / name, own) for name, own in zip(FILES, columns, strict=False)]
    except ValueError as error:
        raise FolderError(f"{path} is damaged: {error}. Run the audit again.") from error
    return Run(path, *tables, run)


def _read(path: Path, columns: list[str]) -> pd.DataFrame:
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
