"""The summary of a run on the terminal."""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from gradaudit.cli.output import console, counted

if TYPE_CHECKING:
    from gradaudit.report import Run

_EXIT = {"pass": 0, "fail": 1, "nonfinite": 1, "unjudged": 3, "unresolved": 3, "running": 3}


def print_run(folder: Path, as_json: bool, allow_unjudged: bool) -> int:
    """Print a run's summary; return its exit code."""
    from gradaudit.report import load

    found = load(folder)
    if as_json:
        print(json.dumps(found.run, indent=2, ensure_ascii=False))
    else:
        print_summary(found)
    if found.verdict == "interrupted":
        return 130
    if found.verdict in ("unjudged", "unresolved") and allow_unjudged:
        return 0
    return _EXIT.get(found.verdict, 3)


def print_summary(found: "Run") -> None:
    """Print a table of a run's tensors, its first failures, and its verdict."""
    terminal = console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("stage", "variable", "weights", "max z", "detectable", "kinks", "verdicts"):
        table.add_column(name)
    for (stage, path), rows in found.tensors.groupby(["stage", "path"], sort=False):
        verdicts = rows["verdict"].value_counts()
        table.add_row(
            str(stage),
            Text(str(path)),
            str(rows["count"].iloc[0]),
            f"{rows['max_z'].max():.2f}",
            f"{rows['detectable_rel'].median():.1e}",
            str(rows["kinks"].sum()),
            ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()),
            style="red" if {"fail", "nonfinite"} & set(verdicts.index) else None,
        )
    terminal.print(table)
    run = found.run
    for failure in run.get("failures", [])[:5]:
        terminal.print(Text(f"FAIL {failure}", style="red"))
    if run.get("failed", 0) > 5:
        terminal.print(f"... and {counted(run['failed'] - 5, 'more failure')}")
    for stale in run.get("stale", []):
        terminal.print(Text(f"stale: {stale}", style="yellow"))
    for left_out in run.get("left_out", []):
        terminal.print(Text(f"left out: {left_out}"))
    worst = f", worst z {run['max_z']:.2f} at {run['worst']}" if run.get("worst") else ""
    counts = [Counter(stage) for stage in run.get("counts", {}).values()]
    by_verdict = ", ".join(f"{n} {verdict}" for verdict, n in sum(counts, Counter()).most_common())
    by_verdict = f" ({by_verdict})" if by_verdict else ""  # a run that was killed has no counts
    line = f"{found.headline}{by_verdict}{worst}. Report: {found.path}"
    terminal.print(Text(line, style="bold"))
