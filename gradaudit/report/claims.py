"""Published numbers as tables: a DataFrame, CSV, JSON and HTML."""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from gradaudit.records import CheckedClaim
from gradaudit.report.pages import rendered
from gradaudit.report.tables import guarded, index_text

CLAIMS = "model quantity index given printed recomputed verdict diagnosis".split()
_KINDS = {"agrees": "good", "cut": "good", "disagrees": "bad", "cannot be checked": "warn"}
_WORDS = {"agrees": "agree", "cut": "are cut", "disagrees": "disagree"}


def claim_rows(checked: Sequence[CheckedClaim]) -> list[dict[str, Any]]:
    """Return one row of `CLAIMS` for each claim; `recomputed` is None where there is none."""
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


def claims_table(checked: Sequence[CheckedClaim]) -> pd.DataFrame:
    """Return the rows as a DataFrame, with the decimals that are printed."""
    table = pd.DataFrame(claim_rows(checked), columns=CLAIMS).astype({"recomputed": float})
    table.insert(CLAIMS.index("recomputed"), "decimals", [each.claim.decimals for each in checked])
    return table


def claims_csv(checked: Sequence[CheckedClaim]) -> str:
    """Return the rows as CSV, the claims' numbers as they are printed."""
    table = claims_table(checked).drop(columns="decimals")
    table["printed"] = [each.claim.printed for each in checked]
    for name in ("model", "quantity", "index", "given", "diagnosis"):
        table[name] = table[name].map(guarded)
    return table.to_csv(index=False, lineterminator="\n")


def claims_html(checked: Sequence[CheckedClaim]) -> str:
    """Return the rows as a page of their own."""
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
    """Return how many claims there are of each verdict, in words."""
    counts = Counter(each.verdict for each in checked)
    words = [f"{counts[v]} {_WORDS.get(v, v)}" for v in _KINDS if counts[v]]
    return f"{len(checked)} published number{'s' * (len(checked) != 1)}: {', '.join(words)}"
