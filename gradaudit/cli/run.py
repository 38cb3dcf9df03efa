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
    BatchSize,
    Data,
    Eager,
    Epochs,
    Format,
    Jit,
    LearningRate,
    NoBias,
    OnFail,
    OptimizerName,
    Overwrite,
    PrecisionName,
    Seed,
    Target,
    Threshold,
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
    layers: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="Audit weights of layers in whose path this is found."),
    ] = None,
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
    rows_per_tensor: Annotated[
        str | None,
        typer.Option(
            "--rows",
            metavar="N|all",
            help="Single weights with a row: at most N of a tensor, or all.  [default: all of a "
            "tensor of 1,000; of larger ones the worst 20 and what does not pass]",
        ),
    ] = None,
    format: Annotated[
        Format, typer.Option(help="Of single weights: weights.csv, or weights.parquet.")
    ] = Format.csv,
    out: Annotated[
        Path | None, typer.Option(help="Report folder  [default: a new one, runs/MODEL]")
    ] = None,
    overwrite: Overwrite = False,
    jit: Jit = False,
    eager: Eager = False,
    precision: PrecisionName = None,
    no_bias: NoBias = False,
    allow_unjudged: Annotated[
        bool, typer.Option(help="Exit with 0 also where something could not be judged.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print run.json on stdout.")] = False,
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
        folder = _folder(out, name, several=model == "all")
        built, x, y = prepared(replace(asked, model=name))
        from gradaudit.callback import GradientAudit

        audit = GradientAudit(
            folder,
            every=_number_or_word(every),
            steps=_steps(steps),
            first=first,
            layers=layers,
            budget=budget,
            on_fail=on_fail.value,
            threshold=threshold,
            overwrite=overwrite,
            rows_per_tensor=_number_or_word(rows_per_tensor),
            format=format.value,
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
    as_json: Annotated[bool, typer.Option("--json", help="Print run.json on stdout.")] = False,
) -> None:
    """Print the summary of a run; the exit code is that of the run."""
    raise typer.Exit(print_run(folder, as_json, allow_unjudged=False))


def _number_or_word(text: str | None) -> Any:
    """Return the number or the word that an option gives; GradientAudit checks it."""
    return int(text) if text is not None and text.isdecimal() else text


def _steps(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--steps is {text!r}. Expected numbers, such as 0,10,100.") from error


def _folder(out: Path | None, model: str, several: bool) -> Path:
    """Return the folder of a run: `out`, or the first unused one of runs/NAME, runs/NAME-2, ..."""
    name = model.rpartition(":")[0].rpartition(".")[2] or model
    if out is not None:
        return out / name if several else out
    number, folder = 1, Path("runs") / name
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder


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
