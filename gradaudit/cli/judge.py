"""`gradaudit judge`."""

from pathlib import Path
from typing import Annotated

import typer

from gradaudit.cli.nets import import_tensorflow
from gradaudit.cli.options import (
    AllowUnjudged,
    AsJson,
    Format,
    Layers,
    OracleName,
    Overwrite,
    Rows,
    RowsFormat,
    Threshold,
    folder_for,
    number_or_word,
)
from gradaudit.cli.summary import print_run
from gradaudit.enums import DEFAULT_THRESHOLD
from gradaudit.errors import DataError, UsageError


def judge(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="Recorded steps, FOLDER/*.step, as --record-steps writes them."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:BUILD",
            help="Builds the model that took the steps, for code without a derived rule.",
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Judge on the workers of this Dask scheduler; they read the same files.",
        ),
    ] = None,
    layers: Layers = None,
    expect: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A custom gradient to accept; may be given again."),
    ] = None,
    oracle: Annotated[
        OracleName, typer.Option(help="Derived rules, a trace of the model's code, or both.")
    ] = OracleName.derived,
    threshold: Threshold = DEFAULT_THRESHOLD,
    rows_per_tensor: Rows = None,
    format: RowsFormat = Format.csv,
    out: Annotated[
        Path | None, typer.Option(help="Report folder  [default: a new one, runs/judged]")
    ] = None,
    overwrite: Overwrite = False,
    allow_unjudged: AllowUnjudged = False,
    as_json: AsJson = False,
) -> None:
    """Judge steps that were recorded in files, here or on many machines, and write a report."""
    missing = [str(path) for path in files if not path.is_file()]
    if missing and files[0].is_dir():
        raise DataError(f"{files[0]} is a folder. Expected the steps in it: {files[0]}/*.step.")
    if missing:
        raise DataError(
            f"there is no file {missing[0]}"
            + (f", and {len(missing) - 1} more of those named are missing" if missing[1:] else "")
            + ". Expected recorded steps, as --record-steps writes them: FOLDER/*.step."
        )
    import_tensorflow()
    from gradaudit.audit.results import Results
    from gradaudit.audit.selection import Selection
    from gradaudit.audit.settings import Settings
    from gradaudit.audit.step_files import judge_files
    from gradaudit.report import RunFolder

    settings = Settings(
        selection=Selection(layers=layers),
        threshold=threshold,
        oracle=oracle.value,
        expect=dict.fromkeys(expect or (), "custom"),
        rows_per_tensor=number_or_word(rows_per_tensor),
        format=format.value,
        sigma="always",
    )
    folder = folder_for(out, "judged")
    if any(path.resolve().parent == folder.resolve() for path in files):
        raise UsageError(
            f"--out is {folder}, which holds the recorded steps. Expected another folder: a run "
            "that is replaced loses its steps."
        )
    results = Results(settings, RunFolder(folder, overwrite, format.value))
    judge_files(files, settings, results, model, scheduler)
    raise typer.Exit(print_run(folder, as_json, allow_unjudged))
