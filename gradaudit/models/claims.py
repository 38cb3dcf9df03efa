"""Files of published numbers, and those that come with the built-in nets."""

import csv
import math
import os
from importlib import resources
from pathlib import Path

from gradaudit.errors import DataError
from gradaudit.records import Claim

COLUMNS = ("model", "quantity", "index", "printed", "given")
"""What a file must have; a column `decimals` may say how many digits behind the point are meant."""


def published_claims() -> list[Claim]:
    """Return the numbers that the tutorials print for the built-in nets."""
    with resources.as_file(resources.files("gradaudit.models") / "data" / "claims.csv") as path:
        return read_claims(path)


def read_claims(path: str | os.PathLike) -> list[Claim]:
    """Read a CSV file of published numbers.

    Raises:
        DataError: the file is missing or empty, a column is missing, or a cell cannot be read.
    """
    path = Path(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            rows = list(reader)
    except FileNotFoundError:
        raise DataError(
            f"there is no file {path}. Expected a CSV file with the columns {', '.join(COLUMNS)}."
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}.") from error
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(missing)}. Expected {', '.join(COLUMNS)}."
        )
    if not rows:
        raise DataError(f"{path} holds no rows. Expected one for each published number.")
    return [_claim(row, f"{path}, row {number}") for number, row in enumerate(rows, start=1)]


def _claim(row: dict[str, str | None], where: str) -> Claim:
    if None in row or None in row.values():
        raise DataError(
            f"{where}: there are not as many cells as columns. Quote cells with commas."
        )
    cells = {name: cell.strip() for name, cell in row.items()}
    printed = cells["printed"].replace("\N{MINUS SIGN}", "-")
    try:
        finite = math.isfinite(float(printed))
    except ValueError:
        finite = False
    if not finite or "_" in printed:
        raise DataError(f"{where}: printed is {printed!r}. Expected a finite number as in print.")
    try:
        index = tuple(int(part) for part in cells["index"].split(",") if cells["index"])
        decimals = int(cells["decimals"]) if cells.get("decimals") else _decimals(printed)
    except ValueError:
        raise DataError(
            f"{where}: index is {cells['index']!r}, decimals {cells.get('decimals', '')!r}. "
            "Expected whole numbers, as in index 0,1 and decimals 4."
        ) from None
    if any(part < 0 for part in index):
        raise DataError(f"{where}: index is {cells['index']!r}. Expected numbers from 0 on.")
    return Claim(cells["model"], cells["quantity"], index, printed, decimals, cells["given"])


def _decimals(printed: str) -> int:
    """Return how many digits a number is printed with behind the point, its exponent included."""
    digits, _, exponent = printed.lower().partition("e")
    return len(digits.partition(".")[2]) - int(exponent or 0)
