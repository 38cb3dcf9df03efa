"""Options that several commands share, with their help."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from gradaudit.errors import UsageError


class Optimizer(StrEnum):
    """Optimizers of the built-in nets."""

    sgd = "sgd"
    momentum = "momentum"
    nesterov = "nesterov"
    adam = "adam"


class Precision(StrEnum):
    """Dtype policies."""

    float32 = "float32"
    float64 = "float64"
    mixed_float16 = "mixed_float16"
    mixed_bfloat16 = "mixed_bfloat16"


class Format(StrEnum):
    """How single weights are written."""

    csv = "csv"
    parquet = "parquet"


class Sigma(StrEnum):
    """When the rounding error is derived."""

    needed = "needed"
    always = "always"


class Mode(StrEnum):
    """What is done with an audited step."""

    judge = "judge"
    record = "record"


class OracleName(StrEnum):
    """By what a step is judged."""

    derived = "derived"
    traced = "traced"
    both = "both"


class OnFail(StrEnum):
    """What to do after a failed step."""

    record = "record"
    stop = "stop"
    raise_ = "raise"


OneNet = Annotated[
    str,
    typer.Option(
        "--model", help="A built-in net (see `gradaudit models`) or package.module:build."
    ),
]
Data = Annotated[
    str | None, typer.Option(help="A data set of the net, such as worked, or a CSV file.")
]
Target = Annotated[str | None, typer.Option(help="The CSV file's target column.")]
EPOCHS, BATCH_SIZE = 10, 16
Epochs = Annotated[int, typer.Option(min=1, help="Epochs")]
BatchSize = Annotated[int, typer.Option(min=1, help="Rows per step")]
OptimizerName = Annotated[
    Optimizer | None, typer.Option(help="Built-in nets only.  [default: sgd]")
]
LearningRate = Annotated[
    float | None, typer.Option(help="Built-in nets only.  [default: the net's]")
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of weights and shuffling.")]
Threshold = Annotated[
    float, typer.Option(help="Largest |tape - reference| in standard deviations that passes.")
]
Layers = Annotated[
    str | None,
    typer.Option(metavar="REGEX", help="Audit weights of layers in whose path this is found."),
]
Rows = Annotated[
    str | None,
    typer.Option(
        "--rows",
        metavar="N|all",
        help="Single weights with a row: at most N of a tensor, or all.  [default: all of a "
        "tensor of 1,000; of larger ones the worst 20 and what does not pass]",
    ),
]
RowsFormat = Annotated[
    Format,
    typer.Option("--format", help="Of single weights: weights.csv, or weights.parquet."),
]
AllowUnjudged = Annotated[
    bool,
    typer.Option("--allow-unjudged", help="Exit with 0 also where something is not judged."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print run.json on stdout.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what lies in --out.")]
Jit = Annotated[bool, typer.Option("--jit/--no-jit", help="Compile the step with XLA.")]
Eager = Annotated[bool, typer.Option("--eager", help="Run the step without a graph.")]
PrecisionName = Annotated[
    Precision | None,
    typer.Option(help="[default: float32; float64 for the published row, --data worked]"),
]
NoBias = Annotated[bool, typer.Option("--no-bias", help="Nets without biases.")]


def number_or_word(text: str | None) -> Any:
    """Return the number or the word that an option gives, or None; who takes it checks it."""
    return int(text) if text is not None and text.isdecimal() else text


def numbers(option: str, text: str | None) -> tuple[int, ...]:
    """Return the numbers that an option gives.

    Raises:
        UsageError: the text is something else.
    """
    if text is None:
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"{option} is {text!r}. Expected numbers, such as 0,10,100.") from error


def numbers_or_all(option: str, text: str | None) -> Any:
    """Return the numbers that an option gives, or "all"; see `numbers`."""
    return text if text == "all" else numbers(option, text)


def folder_for(out: Path | None, name: str, several: bool = False) -> Path:
    """Return the folder of a run: `out`, or the first unused one of runs/NAME, runs/NAME-2, ...

    several: runs of several names go to folders within `out`.
    """
    if out is not None:
        return out / name if several else out
    number, folder = 1, Path("runs") / name
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder
