"""`gradaudit run`, `models` and `show`."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from gradaudit.cli.nets import Asked, import_tensorflow, prepared, training
from gradaudit.cli.options import (
    BATCH_SIZE,
    EPOCHS,
    AllowUnjudged,
    AsJson,
    BatchSize,
    Data,
    Eager,
    Epochs,
    Format,
    Jit,
    Layers,
    LearningRate,
    Mode,
    NoBias,
    OnFail,
    OptimizerName,
    Overwrite,
    PrecisionName,
    Rows,
    RowsFormat,
    Seed,
    Sigma,
    Target,
    Threshold,
    folder_for,
    number_or_word,
    numbers,
    numbers_or_all,
)
from gradaudit.cli.output import console, counted, fail
from gradaudit.cli.summary import print_run
from gradaudit.enums import DEFAULT_THRESHOLD
from gradaudit.errors import UsageError

if TYPE_CHECKING:
    from gradaudit.callback import GradientAudit


def run(
    model: Annotated[
        str,
        typer.Option(help="A built-in net (see `gradaudit models`), all, or package.module:build."),
    ],
    data: Data = None,
    target: Target = None,
    epochs: Epochs = EPOCHS,
    batch_size: BatchSize = BATCH_SIZE,
    optimizer: OptimizerName = None,
    learning_rate: LearningRate = None,
    seed: Seed = 0,
    every: Annotated[
        str | None,
        typer.Option(metavar="N|epoch", help="Audit each N-th step, or the first of each epoch."),
    ] = None,
    steps: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Audit these steps, counted from 0.")
    ] = None,
    first: Annotated[int, typer.Option(min=0, help="Audit the first steps.")] = 0,
    layers: Layers = None,
    budget: Annotated[
        float | None,
        typer.Option(help="Largest share of the training's own time that the audit may take."),
    ] = None,
    on_fail: Annotated[
        OnFail, typer.Option(help="After a failed step: go on, stop, or raise an error.")
    ] = OnFail.record,
    verbose: Annotated[
        int, typer.Option(min=0, max=2, help="1: what cannot be judged; 2: a line for each step.")
    ] = 0,
    threshold: Threshold = DEFAULT_THRESHOLD,
    rows_per_tensor: Rows = None,
    format: RowsFormat = Format.csv,
    sigma: Annotated[
        Sigma, typer.Option(help="Derive the rounding error where it is needed, or always.")
    ] = Sigma.needed,
    mode: Annotated[
        Mode, typer.Option(help="Judge each step, or record it for `gradaudit judge`.")
    ] = Mode.judge,
    record_steps: Annotated[
        str | None,
        typer.Option(metavar="N,N,...|all", help="Also write these steps to files."),
    ] = None,
    background: Annotated[
        int, typer.Option(min=0, help="Judge in so many processes beside the training.")
    ] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Report folder  [default: a new one, runs/MODEL]")
    ] = None,
    overwrite: Overwrite = False,
    jit: Jit = False,
    eager: Eager = False,
    precision: PrecisionName = None,
    no_bias: NoBias = False,
    allow_unjudged: AllowUnjudged = False,
    as_json: AsJson = False,
) -> None:
    """Train a net with Keras, audit its steps, and write a report."""
    if model == "all" and data is not None:
        raise UsageError("--data is for one net, and --model all trains several. Name one.")
    asked = Asked(
        model, data, target, optimizer, learning_rate, seed, jit, eager, precision, no_bias
    )
    import_tensorflow()
    from gradaudit.nets import NETS

    names = list(NETS) if model == "all" else [model]
    code = 0
    for name in names:
        short = name.rpartition(":")[0].rpartition(".")[2] or name
        folder = folder_for(out, short, several=model == "all")
        built, x, y = prepared(replace(asked, model=name))
        from gradaudit.callback import GradientAudit

        audit = GradientAudit(
            folder,
            every=number_or_word(every),
            steps=numbers("--steps", steps),
            first=first,
            layers=layers,
            budget=budget,
            on_fail=on_fail.value,
            threshold=threshold,
            overwrite=overwrite,
            rows_per_tensor=number_or_word(rows_per_tensor),
            format=format.value,
            sigma=sigma.value,
            mode=mode.value,
            record_steps=numbers_or_all("--record-steps", record_steps),
            background=background,
            verbose=verbose,
        )
        _fit(built, x, y, epochs, batch_size, audit)
        code = max(code, print_run(folder, as_json, allow_unjudged))
    raise typer.Exit(code)


def models(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """List the built-in nets."""
    from gradaudit.nets import NETS

    if as_json:
        fields = ("name", "layers", "loss", "optimizer", "learning_rate", "epochs", "batch_size")
        nets = [
            {**{field: getattr(net, field) for field in fields}, "data": dict(net.about)}
            for net in NETS.values()
        ]
        print(json.dumps(nets, indent=2, ensure_ascii=False))
        return
    table = Table("model", "layers", "loss", "--data", box=box.SIMPLE_HEAD, pad_edge=False)
    for net in NETS.values():
        data = "\n".join(f"{name}: {words}" for name, words in net.about.items())
        table.add_row(net.name, net.layers, net.loss, data)
    console().print(table)


def show(
    folder: Annotated[Path, typer.Argument(help="The folder of a run.")],
    as_json: AsJson = False,
) -> None:
    """Print the summary of a run; the exit code is that of the run."""
    raise typer.Exit(print_run(folder, as_json, allow_unjudged=False))


def _fit(model: Any, x: Any, y: Any, epochs: int, batch_size: int, audit: "GradientAudit") -> None:
    """Train under the audit, with a progress bar on stderr."""
    import keras
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    steps = epochs * -(-len(x) // batch_size)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps  worst z {task.fields[z]:.2f}  {task.fields[verdict]}"),
        TimeElapsedColumn(),
    )
    progress = Progress(*columns, console=Console(stderr=True))
    task = progress.add_task(model.name, total=steps, z=0.0, verdict="")
    watcher = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: progress.start(),
        on_train_batch_end=lambda batch, logs: progress.update(
            task, advance=1, z=audit.max_z, verdict=audit.verdict
        ),
    )
    interrupted = False
    try:
        with training():
            model.fit(
                x, y, epochs=epochs, batch_size=batch_size, verbose=0, callbacks=[audit, watcher]
            )
    except KeyboardInterrupt:
        interrupted = True
    finally:
        if progress.live.is_started:
            progress.stop()
    if interrupted:
        audited = counted(audit.audited_steps, "audited step")
        fail(f"interrupted after {audited}; every written row is complete", 130)
