"""Checked claims as a DataFrame, CSV, JSON and HTML."""

import csv
import io
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gradaudit.publications.records import CheckedClaim
from gradaudit.report.frame import data_frame
from gradaudit.report.pages import rendered
from gradaudit.report.tables import guarded, index_text

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = "model quantity index given printed recomputed verdict diagnosis".split()
_TEXT = ("model", "quantity", "index", "given", "diagnosis")
_KINDS = {"agrees": "good", "cut": "good", "disagrees": "bad", "cannot be checked": "warn"}
_PLURALS = {"agrees": "agree", "cut": "are cut", "disagrees": "disagree"}


def claim_rows(checked: Sequence[CheckedClaim]) -> list[dict[str, Any]]:
    """Return one row of `COLUMNS` for each claim; `recomputed` is None where there is none.

    NaN and infinities are floats here: see `json_rows`.
    """
    return [
        {
            "model": each.claim.model,
            "quantity": each.claim.quantity,
            "index": index_text(each.claim.index),
            "given": each.claim.given,
            "printed": each.claim.number,
            "recomputed": each.recomputed,
            "verdict": each.verdict,
            "diagnosis": each.diagnosis,
        }
        for each in checked
    ]


def json_rows(checked: Sequence[CheckedClaim]) -> list[dict[str, Any]]:
    """Return the rows with NaN and infinities as text, since JSON has no such numbers."""

    def plain(cell: Any) -> Any:
        return str(cell) if isinstance(cell, float) and not math.isfinite(cell) else cell

    return [{name: plain(cell) for name, cell in row.items()} for row in claim_rows(checked)]


def claims_table(checked: Sequence[CheckedClaim]) -> "pd.DataFrame":
    """Return the rows as a DataFrame, with a column for the number of printed decimals."""
    rows = [
        row | {"decimals": each.claim.decimals}
        for row, each in zip(claim_rows(checked), checked, strict=True)
    ]
    at = COLUMNS.index("recomputed")
    return data_frame(rows, [*COLUMNS[:at], "decimals", *COLUMNS[at:]], floats=["recomputed"])


def claims_csv(checked: Sequence[CheckedClaim]) -> str:
    """Return the rows as CSV, the claims' numbers as they are printed."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row, each in zip(claim_rows(checked), checked, strict=True):
        words = {name: guarded(row[name]) for name in _TEXT}
        writer.writerow(row | words | {"printed": each.claim.printed})
    return text.getvalue()


def claims_html(checked: Sequence[CheckedClaim]) -> str:
    """Return the rows as an HTML page in one file."""
    rows = [
        {
            **row,
            "printed": each.claim.printed,
            "recomputed": shown(each),
            "kind": _KINDS[row["verdict"]],
        }
        for row, each in zip(claim_rows(checked), checked, strict=True)
    ]
    models = [(name, list(own)) for name, own in itertools.groupby(rows, lambda row: row["model"])]
    return rendered(
        "gradaudit.publications",
        "claims.html",
        title="Published numbers, recomputed",
        summary=summary(checked),
        models=models,
    )


def shown(checked: CheckedClaim) -> str:
    """Return the recomputed number with three digits more than the printed one has."""
    if checked.recomputed is None:
        return ""
    return f"{checked.recomputed:.{max(checked.claim.decimals + 3, 0)}f}"


def summary(checked: Sequence[CheckedClaim]) -> str:
    """Return the number of claims by verdict, as in "3 published numbers: 2 agree, 1 is cut"."""
    counts = Counter(each.verdict for each in checked)
    words = [f"{counts[verdict]} {_said(verdict, counts[verdict])}" for verdict in _KINDS
             if counts[verdict]]  # fmt: skip
    return f"{len(checked)} published number{'s' * (len(checked) != 1)}: {', '.join(words)}"


def _said(verdict: str, count: int) -> str:
    if count == 1:
        return "is cut" if verdict == "cut" else verdict
    return _PLURALS.get(verdict, verdict)
