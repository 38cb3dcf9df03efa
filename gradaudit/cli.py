"""The command line. No maths; TensorFlow is imported by the command that needs it."""

import importlib
import json
import os
import sys
import tempfile
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gradaudit.errors import (
    DataError,
    GradauditError,
    TrainingError,
    UnknownNameError,
    UsageError,
)

if TYPE_CHECKING:
    from gradaudit.callback import GradientAudit
    from gradaudit.report import Run

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Check the gradients that Keras really applied, weight by weight.",
    epilog="Exit codes: 0 all judged and passed, 1 an audit failed, 2 usage, 3 could not audit, "
    "130 interrupted.",
)
_EXIT = {"pass": 0, "fail": 1, "unjudged": 3, "unresolved": 3, "running": 3}


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


class OnFail(StrEnum):
    """What follows a failed step."""

    record = "record"
    stop = "stop"
    raise_ = "raise"


@app.callback()
def _root() -> None:
    """Check the gradients that Keras really applied, weight by weight."""


@app.command()
def run(
    model: Annotated[
        str,
        typer.Option(help="A built-in net (see `gradaudit models`), all, or package.module:build."),
    ],
    data: Annotated[
        str | None, typer.Option(help="A data set of the net, such as worked, or a CSV file.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="The CSV file's target column.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs  [default: 10]")] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Rows per step  [default: 16]")
    ] = None,
    optimizer: Annotated[
        Optimizer | None, typer.Option(help="Built-in nets only.  [default: sgd]")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Built-in nets only.  [default: the net's]")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of weights and shuffling.")
    ] = 0,
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
    threshold: Annotated[
        float, typer.Option(help="Largest |tape - reference| in standard deviations that passes.")
    ] = 8.0,
    out: Annotated[
        Path | None, typer.Option(help="Report folder  [default: a new one, runs/MODEL]")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace the run in --out.")] = False,
    jit: Annotated[bool, typer.Option("--jit/--no-jit", help="Compile the step with XLA.")] = False,
    eager: Annotated[bool, typer.Option("--eager", help="Run the step without a graph.")] = False,
    precision: Annotated[
        Precision | None,
        typer.Option(help="[default: float32; float64 for the published row, --data worked]"),
    ] = None,
    no_bias: Annotated[bool, typer.Option("--no-bias", help="Nets without biases.")] = False,
    allow_unjudged: Annotated[
        bool, typer.Option(help="Exit with 0 also where something could not be judged.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print run.json on stdout.")] = False,
) -> None:
    """Train a net with Keras, audit its steps, and write a report."""
    if learning_rate is not None and not 0 < learning_rate < float("inf"):
        raise UsageError(f"--learning-rate is {learning_rate}. Expected a number above 0.")
    if jit and eager:
        raise UsageError("--jit compiles the step and --eager does not. Choose one of them.")
    _import_tensorflow()
    from gradaudit.models import NETS

    names = list(NETS) if model == "all" else [model]
    if model == "all" and data is not None:
        raise UsageError("--data is for one net, and --model all trains several. Name one.")
    code = 0
    for name in names:
        folder = _folder(out, name, several=model == "all")
        built, x, y = _prepare(
            name, data, target, optimizer, learning_rate, seed, jit, eager, precision, no_bias
        )
        from gradaudit.callback import GradientAudit

        audit = GradientAudit(
            folder,
            every=_every(every),
            steps=_steps(steps),
            first=first,
            layers=layers,
            budget=budget,
            on_fail=str(on_fail),
            threshold=threshold,
            overwrite=overwrite,
            verbose=verbose,
        )
        _fit(built, x, y, epochs or 10, batch_size or 16, audit)
        code = max(code, _print_run(folder, as_json, allow_unjudged))
    raise typer.Exit(code)


@app.command()
def models(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """List the built-in nets."""
    from gradaudit.models import NETS

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
    _console().print(table)


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="The folder of a run.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print run.json on stdout.")] = False,
) -> None:
    """Print the summary of a run; the exit code is that of the run."""
    raise typer.Exit(_print_run(folder, as_json, allow_unjudged=False))


def _every(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdecimal() else text


def _steps(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"--steps is {text!r}. Expected numbers, such as 0,10,100.") from error


def _import_tensorflow() -> None:
    """Import TensorFlow without the lines that its libraries print while they load.

    They are written by C++ before any level can be set; they are shown where the import fails.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            importlib.import_module("tensorflow")
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _folder(out: Path | None, model: str, several: bool) -> Path:
    """Return where a run goes: `out`, or the first of runs/NAME, runs/NAME-2, ... that is free."""
    name = model.rpartition(":")[0].rpartition(".")[2] or model
    if out is not None:
        return out / name if several else out
    number, folder = 1, Path("runs") / name
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder


def _prepare(
    name: str,
    data: str | None,
    target: str | None,
    optimizer: Optimizer | None,
    learning_rate: float | None,
    seed: int,
    jit: bool,
    eager: bool,
    precision: Precision | None,
    no_bias: bool,
) -> tuple[Any, Any, Any]:
    """Return a compiled model and the arrays that it trains on."""
    from gradaudit.models import Settings, encode_targets, net_named, read_table
    from gradaudit.models.catalogue import compiled

    if ":" in name:
        given = {"--optimizer": optimizer, "--learning-rate": learning_rate, "--no-bias": no_bias}
        wrong = [option for option, value in given.items() if value]
        if wrong:
            raise UsageError(
                f"{', '.join(wrong)} is for the built-in nets: {name} returns a model that is "
                "compiled already. Set it there."
            )
        return _prepare_own(name, data, target, seed, jit, eager, precision)
    net = net_named(name)
    settings = Settings(
        optimizer=str(optimizer or net.optimizer),
        learning_rate=learning_rate or net.learning_rate,
        precision=str(precision or ("float64" if data == "worked" else "float32")),
        bias=not no_bias,
        jit=jit,
        eager=eager,
        seed=seed,
    )
    if data is None or data in net.data:
        if target is not None:
            raise UsageError("--target names a column of a CSV file. Give that with --data.")
        x, y = net.data[data or next(iter(net.data))]()
        return compiled(net, settings), x, y
    if target is None:
        if not data.endswith(".csv") and not Path(data).exists():
            raise UnknownNameError(f"data set of {name}", data, net.data)
        raise UsageError(f"--data {data} needs --target: the column that the net is to predict.")
    table = read_table(data, target)
    model = compiled(net, settings)
    _check_width(table, net.features, name)
    return model, table.features, encode_targets(table, net.targets, model.output_shape[-1])


def _prepare_own(
    name: str,
    data: str | None,
    target: str | None,
    seed: int,
    jit: bool,
    eager: bool,
    precision: Precision | None,
) -> tuple[Any, Any, Any]:
    from gradaudit.models import encode_targets, import_build, read_table
    from gradaudit.models.catalogue import set_precision

    if data is None or target is None:
        raise UsageError(f"the model {name} needs --data FILE.csv and --target COLUMN.")
    table = read_table(data, target)
    import keras

    from gradaudit.rules import find_rule

    keras.utils.set_random_seed(seed)
    if precision is not None:
        set_precision(str(precision))
    build = import_build(name)
    try:
        model = build()
    except Exception as error:
        raise UsageError(f"{name} raised {type(error).__name__}: {error}") from error
    if not isinstance(model, keras.Model) or not model.compiled:
        raise UsageError(f"{name} returned {model!r}. Expected a compiled Keras model.")
    if jit:
        model.jit_compile = True
    model.run_eagerly = eager or model.run_eagerly
    loss = keras.losses.get(model.loss) if isinstance(model.loss, str) else model.loss
    rule = find_rule(getattr(loss, "fn", loss))
    kind = "real" if rule is None else rule.cases[0].targets
    if model.built:
        _check_width(table, model.input_shape[-1], name)
    outputs = model.output_shape[-1] if model.built else len(set(table.target))
    return model, table.features, encode_targets(table, kind, outputs)


def _check_width(table: Any, features: int, model: str) -> None:
    if table.features.shape[1] != features:
        raise DataError(
            f"{table.name} has {table.features.shape[1]} columns beside {table.target_name!r}. "
            f"Expected {features}, as {model} takes."
        )


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
        model.fit(x, y, epochs=epochs, batch_size=batch_size, verbose=0, callbacks=[audit, watcher])
    except GradauditError:
        raise
    except Exception as error:
        words = f"the training failed with {type(error).__name__}: {error}"
        raise TrainingError(words) from error
    except KeyboardInterrupt:
        interrupted = True
    finally:
        if progress.live.is_started:
            progress.stop()
    if interrupted:
        _fail(f"interrupted after {audit.audited_steps} audited steps; their rows are whole", 130)


def _print_run(folder: Path, as_json: bool, allow_unjudged: bool) -> int:
    """Print a run's summary; return its exit code."""
    from gradaudit.report import load

    found = load(folder)
    if as_json:
        print(json.dumps(found.run, indent=2, ensure_ascii=False))
    else:
        _print_summary(found)
    if found.verdict == "interrupted":
        return 130
    if found.verdict in ("unjudged", "unresolved") and allow_unjudged:
        return 0
    return _EXIT.get(found.verdict, 3)


def _console() -> Console:
    """Return a console on stdout that is wide enough for whole variable names in a pipe, too."""
    return Console(width=max(Console().width, 160), soft_wrap=True)


def _print_summary(found: "Run") -> None:
    console = _console()
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("stage", "variable", "weights", "max z", "detectable", "kinks", "verdicts"):
        table.add_column(name)
    for (stage, path), rows in found.tensors.groupby(["stage", "path"], sort=False):
        verdicts = rows["verdict"].value_counts()
        table.add_row(
            stage,
            Text(path),
            str(rows["count"].iloc[0]),
            f"{rows['max_z'].max():.2f}",
            f"{rows['detectable_rel'].median():.1e}",
            str(rows["kinks"].sum()),
            ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items()),
            style="red" if "fail" in verdicts else None,
        )
    console.print(table)
    run = found.run
    for failure in run.get("failures", [])[:5]:
        console.print(Text(f"FAIL {failure}", style="red"))
    if run.get("failed", 0) > 5:
        console.print(f"... and {run['failed'] - 5} more that fail")
    for left_out in run.get("left_out", []):
        console.print(Text(f"left out: {left_out}"))
    worst = f", worst z {run['max_z']:.2f} at {run['worst']}" if run.get("worst") else ""
    counts = [Counter(stage) for stage in run.get("counts", {}).values()]
    counted = ", ".join(f"{n} {verdict}" for verdict, n in sum(counts, Counter()).most_common())
    line = (
        f"{found.verdict.upper()}: {len(found.steps)} steps audited ({counted}){worst}. "
        f"Report: {found.path}"
    )
    console.print(Text(line, style="bold"))


_USAGE_ERROR = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)


def main() -> None:
    """Run the command line and exit with its code; errors are one line on stderr."""
    try:
        code = app(standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted", 130)
    except _USAGE_ERROR as error:
        _fail(error.format_message(), 2)
    except GradauditError as error:
        _fail(str(error), error.exit_code)
    sys.exit(code or 0)


def _fail(message: str, code: int) -> None:
    if message:  # a command without arguments has printed its help
        print(f"gradaudit: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
