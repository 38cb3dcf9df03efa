"""Reads files of published numbers, and the one that comes with the built-in nets."""

import csv
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from gradaudit.errors import DataError, UnclearClaimError
from gradaudit.publications.records import Claim

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_NUMBERS = re.compile(rf"{_NUMBER}(?:\s+{_NUMBER})*")
_WITH_NUMBERS = re.compile(
    rf"(?P<words>[a-z]\w*(?: \w+)*?)\s*[\s:=]\s*(?P<numbers>{_NUMBERS.pattern})", re.I
)
_PRINTED = re.compile(
    r"(?:(?:from|with|using|of) )?(?:the )?(?:printed (?P<before>.+)|(?P<after>.+) as printed)",
    re.I,
)
_PRINTED_NUMBER = re.compile(rf"{_NUMBER}|nan|[-+]?inf", re.I)
_LONE_NUMBER = re.compile(rf"(?<![\w.]){_NUMBER}(?![\w.])")

_MOST_DECIMALS = 30
"""More than a float holds; more cannot be meant."""

COLUMNS = ("model", "quantity", "index", "printed", "given")
"""The columns that a file must have. A further one, `decimals`, may say how many are printed."""


def published_claims() -> list[Claim]:
    """Return the numbers that tutorials print for the built-in nets."""
    with resources.as_file(
        resources.files("gradaudit.publications") / "data" / "claims.csv"
    ) as path:
        return read_claims(path)


def read_claims(path: str | os.PathLike) -> list[Claim]:
    """Read a CSV file of published numbers, with the columns `COLUMNS`.

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


def _claim(row: Mapping[str | None, str | None], where: str) -> Claim:
    cells = {
        name: cell.strip() for name, cell in row.items() if name is not None and cell is not None
    }
    if len(cells) < len(row):  # the csv module puts None where cells or columns are missing
        raise DataError(
            f"{where}: there are not as many cells as columns. Quote cells with commas."
        )
    printed = cells["printed"].replace("\N{MINUS SIGN}", "-")
    if not _PRINTED_NUMBER.fullmatch(printed):
        raise DataError(
            f"{where}: printed is {printed!r}. Expected a number as in print, or nan, inf or -inf."
        )
    try:
        index = tuple(int(part) for part in cells["index"].split(",") if cells["index"])
        decimals = int(cells["decimals"]) if cells.get("decimals") else _decimals(printed)
    except ValueError:
        raise DataError(
            f"{where}: index is {cells['index']!r}, decimals {cells.get('decimals', '')!r}. "
            "Expected whole numbers, as in index 0,1 and decimals 4."
        ) from None
    if not -_MOST_DECIMALS <= decimals <= _MOST_DECIMALS:
        raise DataError(
            f"{where}: {printed!r} has {decimals} decimals. Expected at most {_MOST_DECIMALS}."
        )
    if any(part < 0 for part in index):
        raise DataError(f"{where}: index is {cells['index']!r}. Expected numbers from 0 on.")
    return Claim(cells["model"], cells["quantity"], index, printed, decimals, cells["given"])


def _decimals(printed: str) -> int:
    """Return the decimals of a printed number: 3 for 1.500 and 5 for 1.500e-2."""
    if not math.isfinite(float(printed)):
        return 0
    digits, _, exponent = printed.lower().partition("e")
    return len(digits.partition(".")[2]) - int(exponent or 0)


@dataclass(frozen=True)
class Stated:
    """What a number was computed from, as its `given` says.

    values: quantities in words, with their numbers.
    printed: quantities whose numbers are those that other claims print.
    """

    values: tuple[tuple[str, tuple[float, ...]], ...]
    printed: tuple[str, ...]


def stated(given: str) -> Stated:
    """Parse `given`: parts with numbers, and parts with "printed".

    Raises:
        UnclearClaimError: a number follows no quantity, or "printed" belongs to none.
    """
    values: list[tuple[str, list[float]]] = []
    printed = []
    for part in re.split(r"[,;]|\band\b", given.replace("\N{MINUS SIGN}", "-")):
        part = part.strip()
        if values and _NUMBERS.fullmatch(part):
            values[-1][1].extend(map(float, part.split()))
        elif found := _WITH_NUMBERS.fullmatch(part):
            values.append((found["words"], [float(n) for n in found["numbers"].split()]))
        elif _LONE_NUMBER.search(part):
            raise UnclearClaimError(
                f"{part!r} in `given` is not a quantity followed by its numbers"
            )
        elif found := _PRINTED.fullmatch(part):
            printed.append(found["before"] or found["after"])
        elif re.search(r"\bprinted\b", part, re.I):
            raise UnclearClaimError(f"{part!r} in `given` does not say what is taken as printed")
    return Stated(tuple((words, tuple(numbers)) for words, numbers in values), tuple(printed))
