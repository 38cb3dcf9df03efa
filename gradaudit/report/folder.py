"""The folder of a run while it is being written."""

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

import pandas as pd

from gradaudit.errors import FolderError
from gradaudit.records import Comparison
from gradaudit.report.tables import (
    STEPS,
    TENSORS,
    TEXT,
    WEIGHTS,
    guarded,
    step_row,
    tensor_rows,
    weight_rows,
)

SCHEMA_VERSION = 3
FILES = ("steps.csv", "tensors.csv", "weights.csv", "run.json")


class Ended(StrEnum):
    """How a run ended. The verdict of a run that did not finish, unless something failed."""

    NOT_YET = "running"
    FINISHED = "finished"
    ABORTED = "aborted"
    INTERRUPTED = "interrupted"


class RunFolder:
    """Appends the rows of each comparison as it is made, whole rows only.

    Args:
        path: the folder; made where it does not exist.
        overwrite: replace the files of a run that lies there.

    Raises:
        FolderError: another run lies there, or the folder cannot be written to.
    """

    def __init__(self, path: str | os.PathLike, overwrite: bool) -> None:
        self.path = Path(path)
        self._begun = False
        present = [name for name in FILES if (self.path / name).exists()]
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

    def _begin(self) -> None:
        """Replace what lies there by empty tables, now that there is something to write."""
        self._begun = True
        self.write_run({"verdict": Ended.NOT_YET})
        tables = {"steps.csv": STEPS, "tensors.csv": TENSORS, "weights.csv": WEIGHTS}
        for name, columns in tables.items():
            (self.path / name).write_text(",".join(columns) + "\n")

    def append(self, comparison: Comparison) -> None:
        """Add the rows of one audited step of a replica.

        Its report_ms is the time until all but the row of steps.csv is written.
        """
        start = time.perf_counter()
        self._append("weights.csv", weight_rows(comparison))
        self._append("tensors.csv", tensor_rows(comparison))
        milliseconds = (time.perf_counter() - start) * 1e3
        self._append("steps.csv", step_row(comparison, milliseconds))

    def extend(self, steps: pd.DataFrame, tensors: pd.DataFrame, weights: pd.DataFrame) -> None:
        """Add rows to the tables. Those of steps.csv come last: they seal the steps."""
        self._append("weights.csv", weights)
        self._append("tensors.csv", tensors)
        self._append("steps.csv", steps)

    def _append(self, name: str, rows: pd.DataFrame) -> None:
        if not self._begun:
            self._begin()
        rows = rows.assign(**{name: rows[name].map(guarded) for name in rows if name in TEXT})
        # One unbuffered write: a process killed in between leaves no half row.
        text = rows.to_csv(header=False, index=False, lineterminator="\n")
        with open(self.path / name, "ab", buffering=0) as file:
            file.write(text.encode())

    def write_run(self, run: dict[str, Any]) -> None:
        """Replace run.json as a whole."""
        if not self._begun:
            self._begin()
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
