"""Reads CSV files with one target column and numbers in all other columns."""

import csv
import math
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from gradaudit.errors import DataError, UnknownNameError


@dataclass(frozen=True)
class Table:
    """The contents of a CSV file.

    features: float64, shape (rows, columns). columns: their names. target: the cells of the target
    column as text.
    """

    name: str
    columns: tuple[str, ...]
    features: np.ndarray
    target_name: str
    target: tuple[str, ...]

    def target_classes(self) -> np.ndarray:
        """Return the target as class numbers (rows,).

        Whole numbers are class numbers already; names are numbered from 0 in alphabetical order.

        Raises:
            DataError: a number is not whole, or is 2³¹ or more in size.
        """
        try:
            numbers = [float(cell) for cell in self.target]
        except ValueError:
            names = sorted(set(self.target))
            return np.array([names.index(cell) for cell in self.target])
        for row, number in enumerate(numbers):
            if not (number.is_integer() and abs(number) < 2**31):
                raise DataError(
                    f"{self.name}, row {row + 1}: the target {self.target_name!r} is "
                    f"{self.target[row]}. Expected a class: a whole number from 0 on, or a name."
                )
        return np.array(numbers, np.int64)

    def target_numbers(self) -> np.ndarray:
        """Return the target as float64 numbers (rows,).

        Raises:
            DataError: a cell is not a finite number that float32 holds.
        """
        return np.array(
            [
                _number(cell, self.name, row, self.target_name)
                for row, cell in enumerate(self.target)
            ]
        )


def read_table(path: str | os.PathLike, target: str) -> Table:
    """Read a CSV file with a header line.

    Args:
        path: of the file.
        target: the name of the target column.

    Raises:
        DataError: the file is missing, empty or ragged, or a feature is not a finite number.
        UnknownNameError: the target is not a column.
    """
    path = Path(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if line]
    except FileNotFoundError:
        raise DataError(f"there is no file {path}. Expected a CSV file with a header.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}.") from error
    if len(lines) < 2:
        raise DataError(f"{path} holds no rows. Expected a header line and at least one row.")
    header, rows = tuple(name.strip() for name in lines[0]), lines[1:]
    if len(set(header)) < len(header):
        raise DataError(f"{path} names a column twice: {', '.join(header)}. Expected other names.")
    if target not in header:
        raise UnknownNameError(f"column in {path}", target, header)
    if len(header) < 2:
        raise DataError(f"{path} has only the target column. Expected at least one feature, too.")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise DataError(
                f"{path}, row {number}: {len(row)} cells. Expected {len(header)}, as in the header."
            )
    at = header.index(target)
    columns = tuple(name for name in header if name != target)
    features = np.array(
        [
            [_number(cell, str(path), number, header[i]) for i, cell in enumerate(row) if i != at]
            for number, row in enumerate(rows)
        ]
    )
    return Table(str(path), columns, features, target, tuple(row[at].strip() for row in rows))


def _number(cell: str, name: str, row: int, column: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not abs(number) < 3.4e38:  # what float32 holds; false for NaN, too
        raise DataError(
            f"{name}, row {row + 1}: the column {column!r} is {cell.strip()!r}. Expected a finite "
            "number that float32 holds. Correct the cell, or leave out the row or the column."
        )
    return number


def encode_targets(table: Table, kind: str, outputs: int) -> np.ndarray:
    """Return a table's target as a loss takes it.

    Args:
        table: of which the target is encoded.
        kind: "one_hot" (rows, outputs), "integer" (rows,), "binary" or "real" (rows, 1).
        outputs: the number of the model's outputs.

    Raises:
        DataError: a label is out of range.
    """
    if kind == "real":
        return table.target_numbers().reshape(-1, 1)
    classes = table.target_classes()
    most = 2 if kind == "binary" else outputs
    for row, label in enumerate(classes):
        if not 0 <= label < most:
            raise DataError(
                f"{table.name}, row {row + 1}: the target {table.target_name!r} is "
                f"{table.target[row]!r}, class {label}. Expected a class from 0 to {most - 1}: the "
                f"model has {most} classes."
            )
    if kind == "one_hot":
        return one_hot(classes, outputs)
    return classes.astype(np.float64).reshape(-1, 1) if kind == "binary" else classes


def one_hot(classes: np.ndarray, count: int) -> np.ndarray:
    """Return class numbers (N,) as rows of the identity, (N, count)."""
    return np.eye(count)[classes]


def iris_table() -> Table:
    """Return Fisher's Iris data: 150 rows, 4 measurements in cm, with the species as the target."""
    with resources.as_file(resources.files("gradaudit.nets") / "data" / "iris.csv") as path:
        return read_table(path, "species")
