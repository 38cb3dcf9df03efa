"""The table of single weights: its columns, and the files that take its rows block by block.

    weights.csv        text that anything reads
    weights.parquet    a folder of binary files, for those who want every row of a large model

Arrays go to pyarrow as they are: no cell is a Python object.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv, parquet

from gradaudit.enums import Verdict
from gradaudit.records import WeightRows
from gradaudit.report.tables import guarded

WEIGHTS = (
    "step replica stage path index weight tape reference abs_diff rel_diff sigma z verdict"
).split()

BLOCK = 2**16
"""Rows that are converted and written at a time."""

_VERDICTS = pa.array([str(verdict) for verdict in Verdict])


class WeightsFile:
    """Takes the rows of steps, as a `scoring.RowSink`, and keeps those of each that is sealed.

    Rows of small tensors are gathered, so that a step of them is written at once.
    """

    def __init__(self) -> None:
        self._rows: list[WeightRows] = []
        self._count = 0

    def begin(self) -> None:
        """Forget what was taken since the last seal."""
        self._rows, self._count = [], 0

    def add(self, rows: WeightRows) -> None:
        """Take the rows of one tensor."""
        self._rows.append(rows)
        self._count += len(rows.z)
        if self._count >= BLOCK:
            self._flush()

    def seal(self) -> None:
        """Write what was taken: it is a whole step."""
        self._flush()

    def add_table(self, table: pa.Table) -> None:
        """Write rows that are a table of these columns."""
        raise NotImplementedError

    def _flush(self) -> None:
        rows, self._rows, self._count = self._rows, [], 0
        for table in tables(rows):
            self.add_table(table)


class CsvFile(WeightsFile):
    """weights.csv. What a step has written is cut off again where the step is not sealed."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._path = folder / "weights.csv"
        self._path.write_text(",".join(WEIGHTS) + "\n")
        self._sealed = self._size = self._path.stat().st_size

    def begin(self) -> None:
        """Cut off what was written since the last seal."""
        super().begin()
        if self._size > self._sealed:
            os.truncate(self._path, self._sealed)
            self._size = self._sealed

    def add_table(self, table: pa.Table) -> None:
        """Write rows as text."""
        stream = pa.BufferOutputStream()
        csv.write_csv(table, stream, csv.WriteOptions(include_header=False))
        # One unbuffered write: a process that is killed leaves no half row of a step.
        with open(self._path, "ab", buffering=0) as file:
            file.write(stream.getvalue())
            self._size = file.tell()

    def seal(self) -> None:
        """Write what was taken."""
        super().seal()
        self._sealed = self._size


class ParquetFiles(WeightsFile):
    """weights.parquet, a folder with a file for each step; pandas reads it as one table."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder / "weights.parquet"
        self._folder.mkdir()
        self._number = 0
        self._writer: parquet.ParquetWriter | None = None  # while a step has rows

    @property
    def _unsealed(self) -> Path:
        return self._folder / ".unsealed"  # readers of such folders skip names with a dot

    def begin(self) -> None:
        """Remove what was written since the last seal."""
        super().begin()
        if self._close():
            self._unsealed.unlink()

    def add_table(self, table: pa.Table) -> None:
        """Write rows as a row group."""
        if self._writer is None:
            # Without Arrow's own schema, text comes back as text and not as categories.
            self._writer = parquet.ParquetWriter(self._unsealed, table.schema, store_schema=False)
        self._writer.write_table(table)

    def seal(self) -> None:
        """Write what was taken, and give its file a name."""
        super().seal()
        if self._close():
            self._unsealed.rename(self._folder / f"{self._number:09d}.parquet")
            self._number += 1

    def _close(self) -> bool:
        if self._writer is None:
            return False
        self._writer.close()
        self._writer = None
        return True


def tables(rows: Sequence[WeightRows]) -> Iterator[pa.Table]:
    """Yield the rows of some tensors as tables of at most BLOCK rows, and a little more."""
    gathered: list[WeightRows] = []
    for tensor in rows:
        for start in range(0, len(tensor.z), BLOCK):
            gathered.append(_part(tensor, start))
            if sum(len(part.z) for part in gathered) >= BLOCK:
                yield _table(gathered)
                gathered = []
    if gathered:
        yield _table(gathered)


def _part(rows: WeightRows, start: int) -> WeightRows:
    """Return at most BLOCK of the rows of a tensor, with their positions."""
    part, count = slice(start, start + BLOCK), len(rows.z)
    place = np.arange(start, min(start + BLOCK, count)) if rows.place is None else rows.place[part]
    arrays = ("weight", "tape", "reference", "sigma", "z", "verdict")
    cut = {name: getattr(rows, name)[part] for name in arrays}
    return WeightRows(**{**vars(rows), **cut, "place": place})


def _table(parts: Sequence[WeightRows]) -> pa.Table:
    lengths = [len(part.z) for part in parts]

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts], dtype=np.float64)

    def constant(values: Sequence[str]) -> pa.Array:
        """Return one text for each part, repeated over its rows."""
        known = list(dict.fromkeys(values))
        codes = np.repeat(np.array([known.index(value) for value in values]), lengths)
        return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(known))

    tape, reference = joined("tape"), joined("reference")
    with np.errstate(all="ignore"):
        difference = np.abs(tape - reference)
        relative = np.where(difference == 0, 0.0, difference / np.abs(reference))
    numbers = dict(
        weight=joined("weight"),
        tape=tape,
        reference=reference,
        abs_diff=difference,
        rel_diff=relative,
        sigma=joined("sigma"),
        z=joined("z"),
    )
    verdicts = np.concatenate([part.verdict for part in parts])
    columns = {
        "step": np.repeat([part.step for part in parts], lengths),
        "replica": np.repeat([part.replica for part in parts], lengths),
        "stage": constant([str(part.stage) for part in parts]),
        "path": constant([guarded(part.path) for part in parts]),
        "index": pa.concat_arrays([_index(part) for part in parts]),
        **{name: pa.array(values, from_pandas=True) for name, values in numbers.items()},
        "verdict": pa.DictionaryArray.from_arrays(pa.array(verdicts, pa.int8()), _VERDICTS),
    }
    return pa.table({name: columns[name] for name in WEIGHTS})


def _index(rows: WeightRows) -> pa.Array:
    """Return the indices of rows as text, `i,j`."""
    if not rows.shape:
        return pa.array([""])
    assert rows.place is not None  # `_part` gives them
    axes = np.unravel_index(rows.place, rows.shape)
    text = [pa.array(axis).cast(pa.string()) for axis in axes]
    return text[0] if len(text) == 1 else pc.binary_join_element_wise(*text, ",")


def frame(found: Sequence[pa.Table]) -> pd.DataFrame:
    """Return tables of single weights as a DataFrame; text is text, and not categories."""
    if not found:
        return pd.DataFrame(columns=WEIGHTS)
    table = pa.concat_tables(found)
    schema = [
        pa.field(each.name, pa.string() if pa.types.is_dictionary(each.type) else each.type)
        for each in table.schema
    ]
    return table.cast(pa.schema(schema)).to_pandas()


def guarded_tables(weights: pd.DataFrame) -> Iterator[pa.Table]:
    """Yield single weights that are a DataFrame as tables of at most BLOCK rows."""
    for start in range(0, len(weights), BLOCK):
        part = weights.iloc[start : start + BLOCK]
        part = part.assign(path=part["path"].map(guarded))
        yield pa.Table.from_pandas(part, preserve_index=False)
