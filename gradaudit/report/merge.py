"""One report of the reports of several workers."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from gradaudit.report.folder import RunFolder
from gradaudit.report.run import load

_WORST_FIRST = ("fail", "interrupted", "aborted", "running", "unjudged", "unresolved", "pass")


def merge(parts: Sequence[Path], into: RunFolder) -> None:
    """Write the runs in several folders as one; each row names its replica.

    Raises:
        FolderError: one of the folders is not a run.
    """
    runs = [load(part) for part in parts]

    def table(name: str) -> pd.DataFrame:
        rows = pd.concat([getattr(run, name) for run in runs], ignore_index=True)
        return rows.sort_values(["step", "replica"], kind="stable", ignore_index=True)

    into.extend(table("steps"), table("tensors"), table("weights"))
    counts: dict[str, Counter[str]] = {}
    for run in runs:
        for stage, found in run.run["counts"].items():
            counts.setdefault(stage, Counter()).update(found)
    worst = max(runs, key=lambda run: run.run["max_z"]).run
    into.write_run(
        {
            **runs[0].run,
            "verdict": min((run.verdict for run in runs), key=_WORST_FIRST.index),
            "counts": {stage: dict(found) for stage, found in counts.items()},
            "max_z": worst["max_z"],
            "worst": worst["worst"],
            "failed": sum(run.run["failed"] for run in runs),
            "failures": [words for run in runs for words in run.run["failures"]],
            "unjudged": sorted({words for run in runs for words in run.run["unjudged"]}),
            "left_out": sorted({words for run in runs for words in run.run["left_out"]}),
            "faults": {
                "count": sum(run.run["faults"]["count"] for run in runs),
                "tracebacks": [text for run in runs for text in run.run["faults"]["tracebacks"]],
            },
            "workers": [
                {"folder": part.name, **{key: run.run[key] for key in ("verdict", "overhead")}}
                for part, run in zip(parts, runs, strict=True)
            ],
        }
    )
