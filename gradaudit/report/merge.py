"""One report of the reports of several workers."""

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from gradaudit.records import FAILURES, Verdict
from gradaudit.report.folder import Ended, RunFolder
from gradaudit.report.headline import waived
from gradaudit.report.run import load

_WORST_FIRST = (
    *FAILURES,
    Ended.INTERRUPTED,
    Ended.ABORTED,
    Ended.NOT_YET,
    Verdict.UNJUDGED,
    Verdict.UNRESOLVED,
    Verdict.PASS,
)


def worker_folder(path: Path, number: int) -> Path:
    """Return the folder of one worker within that of the run."""
    return path / f"worker-{number}"


def merge(path: Path, workers: int, format: str) -> None:
    """Write the runs of all workers as one, to the folder that has theirs.

    Raises:
        FolderError: a worker has not written its run.
    """
    parts = [worker_folder(path, number) for number in range(workers)]
    runs = [load(part) for part in parts]

    def table(name: str) -> pd.DataFrame:
        rows = pd.concat([getattr(run, name) for run in runs], ignore_index=True)
        return rows.sort_values(["step", "replica"], kind="stable", ignore_index=True)

    into = RunFolder(path, overwrite=True, format=format)
    into.extend(table("steps"), table("tensors"), table("weights"))
    counts: dict[str, Counter[str]] = {}
    for run in runs:
        for stage, found in run.run["counts"].items():
            counts.setdefault(stage, Counter()).update(found)
    worst = max(runs, key=lambda run: run.run["max_z"]).run
    expected = {tuple(each.items()): each for run in runs for each in run.run["expected"]}
    merged: dict[str, Any] = {
        **runs[0].run,
        "verdict": min((run.verdict for run in runs), key=_WORST_FIRST.index),
        "counts": {stage: dict(found) for stage, found in counts.items()},
        "expected": list(expected.values()),
        "max_z": worst["max_z"],
        "worst": worst["worst"],
        "failed": sum(run.run["failed"] for run in runs),
        "failures": [words for run in runs for words in run.run["failures"]],
        "unjudged": sorted({words for run in runs for words in run.run["unjudged"]}),
        "stale": sorted({words for run in runs for words in run.run["stale"]}),
        "stale_steps": max(run.run["stale_steps"] for run in runs),
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
    into.write_run({**merged, "waived": waived(merged)})
