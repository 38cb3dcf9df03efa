"""The folder of a run while it is being written."""

import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

import pandas as pd

from gradaudit.errors import FolderError
from gradaudit.records import Comparison, WeightRows
from gradaudit.report.tables import STEPS, TENSORS, csv_text, step_row, tensor_rows
from gradaudit.report.weights import CsvFile, ParquetFiles, WeightsFile, guarded_tables

SCHEMA_VERSION = 4
FILES = ("steps.csv", "tensors.csv", "run.json")
"""What every run has, beside one of WEIGHTS_FILES."""

STEP = ".step"
"""How the names of recorded steps end."""


class Format(StrEnum):
    """How single weights are written: `CsvFile` or `ParquetFiles`."""

    CSV = "csv"
    PARQUET = "parquet"


WEIGHTS_FILES: dict[str, Callable[[Path], WeightsFile]] = {
    "weights.csv": CsvFile,
    "weights.parquet": ParquetFiles,
}


class Ended(StrEnum):
    """How a run ended. The verdict of a run that did not finish, unless something failed."""

    NOT_YET = "running"
    FINISHED = "finished"
    ABORTED = "aborted"
    INTERRUPTED = "interrupted"


class RunFolder:
    """Takes the rows of each step as they are made, whole rows only; a `scoring.rows.RowSink`.

    Args:
        path: the folder; made where it does not exist.
        overwrite: replace the files of a run that lies there.
        format: how single weights are written.

    Raises:
        FolderError: another run lies there, or the folder cannot be written to.
    """

    def __init__(self, path: str | os.PathLike, overwrite: bool, format: str = Format.CSV) -> None:
        self.path = Path(path)
        self._weights_name = f"weights.{format}"
        self._weights: WeightsFile | None = None  # None until there is something to write
        present = [name for name in (*FILES, *WEIGHTS_FILES) if (self.path / name).exists()]
        present += [f"*{STEP}"] if any(self.path.glob(f"*{STEP}")) else []
        if present and not overwrite:
            raise FolderError(
                f"{self.path} holds a run already ({', '.join(present)}). Expected a new folder. "
                "Name another one, or replace the run with --overwrite (overwrite=True)."
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise FolderError(
                f"{self.path} cannot be written to ({error.strerror or error}). Expected a folder "
                "that can be made or written to. Name another one."
            ) from error

    def _begun(self) -> WeightsFile:
        """Replace what lies there by empty tables, now that there is something to write."""
        if self._weights is None:
            self._replace_run({"verdict": Ended.NOT_YET})
            for name, columns in {"steps.csv": STEPS, "tensors.csv": TENSORS}.items():
                (self.path / name).write_text(",".join(columns) + "\n")
            (self.path / "weights.csv").unlink(missing_ok=True)
            if (self.path / "weights.parquet").is_dir():
                shutil.rmtree(self.path / "weights.parquet")
            for step in self.path.glob(f"*{STEP}"):
                step.unlink()
            self._weights = WEIGHTS_FILES[self._weights_name](self.path)
        return self._weights

    def step_file(self, step: int, replica: int, replicas: int) -> Path:
        """Return where a recorded step is to be written; such names are in the order of steps."""
        self._begun()
        return self.path / f"{step:09d}{f'-{replica:03d}' if replicas > 1 else ''}{STEP}"

    def begin(self) -> None:
        """Forget rows of single weights of a step that was not finished."""
        self._begun().begin()

    def add(self, rows: WeightRows) -> None:
        """Take single weights of one tensor of the step that is being judged."""
        self._begun().add(rows)

    def append(self, comparison: Comparison) -> None:
        """Add the rows of one audited step of a replica, and seal them.

        Its report_ms is the time until all but the row of steps.csv is written.
        """
        start = time.perf_counter()
        self._begun().seal()
        self._append("tensors.csv", tensor_rows(comparison))
        milliseconds = comparison.report_ms + (time.perf_counter() - start) * 1e3
        self._append("steps.csv", [step_row(comparison, milliseconds)])

    def extend(self, steps: pd.DataFrame, tensors: pd.DataFrame, weights: pd.DataFrame) -> None:
        """Add rows to the tables. Those of steps.csv come last: they seal the steps."""
        into = self._begun()
        for table in guarded_tables(weights):
            into.add_table(table)
        into.seal()
        self._append("tensors.csv", tensors.itertuples(index=False))
        self._append("steps.csv", steps.itertuples(index=False))

    def _append(self, name: str, rows: Iterable[Sequence[Any]]) -> None:
        # One unbuffered write: a process killed in between leaves no half row.
        with open(self.path / name, "ab", buffering=0) as file:
            file.write(csv_text(rows).encode())

    def write_run(self, run: dict[str, Any]) -> None:
        """Replace run.json as a whole."""
        self._begun().begin()
        self._replace_run(run)

    def _replace_run(self, run: dict[str, Any]) -> None:
        run = {"schema_version": SCHEMA_VERSION, **run}
        _replace(self.path / "run.json", lambda file: json.dump(run, file, indent=2, default=str))


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back a Ctrl-C until the rows of a step are whole, in every table."""
    handler = signal.getsignal(signal.SIGINT)
    # Only the main thread may hold a signal back, and only one that Python handles.
    if threading.current_thread() is not threading.main_thread() or handler is None:
        yield
        return
    held: list[int] = []
    usual = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if held:
        signal.raise_signal(signal.SIGINT)


def _replace(path: Path, write: Callable[[Any], None]) -> None:
    temporary = path.with_suffix(".new")
    with open(temporary, "w") as file:
        write(file)
        file.write("\n")
    os.replace(temporary, path)
