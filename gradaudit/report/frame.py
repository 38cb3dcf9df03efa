"""Rows as a DataFrame, for rooms that make rows and do not know pandas."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd


def data_frame(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], floats: Collection[str] = ()
) -> pd.DataFrame:
    """Return rows as a DataFrame.

    Args:
        rows: cells by column.
        columns: in their order; other cells are left out.
        floats: columns of float64, in which None becomes NaN.
    """
    return pd.DataFrame(rows, columns=list(columns)).astype(dict.fromkeys(floats, float))
