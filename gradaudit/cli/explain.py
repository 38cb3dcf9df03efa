"""`gradaudit explain`."""

from pathlib import Path
from typing import Annotated

import typer

from gradaudit.cli.nets import Asked, import_tensorflow, prepared, training
from gradaudit.cli.options import (
    BATCH_SIZE,
    EPOCHS,
    BatchSize,
    Data,
    Eager,
    Epochs,
    Jit,
    LearningRate,
    NoBias,
    OneNet,
    OptimizerName,
    Overwrite,
    PrecisionName,
    Seed,
    Target,
    Threshold,
)
from gradaudit.cli.output import check_files, write
from gradaudit.enums import DEFAULT_THRESHOLD

_FORMATS = {".txt": "text", ".md": "markdown", ".html": "html"}


def explain(
    model: OneNet,
    weight: Annotated[
        str, typer.Option(help="Such as W2[0,1], b3[1] or dense_1/kernel[0,1], counted from 0.")
    ],
    data: Data = None,
    target: Target = None,
    row: Annotated[
        int | None, typer.Option(min=0, help="On this row of the data alone, counted from 0.")
    ] = None,
    step: Annotated[
        int, typer.Option(min=0, help="In this step of the training, counted from 0.")
    ] = 0,
    epochs: Epochs = EPOCHS,
    batch_size: BatchSize = BATCH_SIZE,
    optimizer: OptimizerName = None,
    learning_rate: LearningRate = None,
    seed: Seed = 0,
    threshold: Threshold = DEFAULT_THRESHOLD,
    jit: Jit = False,
    eager: Eager = False,
    precision: PrecisionName = None,
    no_bias: NoBias = False,
    out: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Write a .txt, .md or .html file instead; may be given several times.",
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Explain how one weight gets its gradient: every number from the loss back to it.

    It trains as `gradaudit run` does with the same options: a step has the same number in both.
    The exit code is 1 if the tape's gradient is wrong.
    """
    files = out or []
    check_files(files, tuple(_FORMATS), overwrite)
    asked = Asked(
        model, data, target, optimizer, learning_rate, seed, jit, eager, precision, no_bias
    )
    import_tensorflow()
    from gradaudit.explanation.step import explain_step

    built, x, y = prepared(asked)
    with training():
        found = explain_step(
            built,
            x,
            y,
            weight,
            step=step,
            row=row,
            epochs=epochs,
            batch_size=batch_size,
            threshold=threshold,
        )
    for path in files:
        write(path, getattr(found, _FORMATS[path.suffix]))
    if not files:
        print(found.text, end="")
    raise typer.Exit(1 if found.path.verdict in ("fail", "nonfinite") else 0)
