"""Options that several commands share, with their help."""

from enum import StrEnum
from typing import Annotated

import typer


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
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what lies in --out.")]
Jit = Annotated[bool, typer.Option("--jit/--no-jit", help="Compile the step with XLA.")]
Eager = Annotated[bool, typer.Option("--eager", help="Run the step without a graph.")]
PrecisionName = Annotated[
    Precision | None,
    typer.Option(help="[default: float32; float64 for the published row, --data worked]"),
]
NoBias = Annotated[bool, typer.Option("--no-bias", help="Nets without biases.")]
