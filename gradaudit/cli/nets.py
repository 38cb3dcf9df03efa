"""From the options of a command to a compiled model and the arrays that it trains on."""

import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradaudit.cli.options import Optimizer, Precision
from gradaudit.errors import (
    DataError,
    GradauditError,
    TrainingError,
    UnknownNameError,
    UsageError,
)


@dataclass(frozen=True)
class Asked:
    """The options of a command about the net and its data; None for those that are not given."""

    model: str
    data: str | None = None
    target: str | None = None
    optimizer: Optimizer | None = None
    learning_rate: float | None = None
    seed: int = 0
    jit: bool = False
    eager: bool = False
    precision: Precision | None = None
    no_bias: bool = False

    def __post_init__(self) -> None:
        if self.learning_rate is not None and not 0 < self.learning_rate < float("inf"):
            raise UsageError(f"--learning-rate is {self.learning_rate}. Expected a number above 0.")
        if self.jit and self.eager:
            raise UsageError("--jit compiles the step and --eager does not. Choose one of them.")


def import_tensorflow() -> None:
    """Import TensorFlow without the log lines of its libraries.

    C++ writes them to stderr before a log level can be set. They are shown if the import fails.
    Every command that needs TensorFlow calls this before it imports a module that imports it.
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


def prepared(asked: Asked) -> tuple[Any, Any, Any]:
    """Return a compiled model and the arrays x and y that it trains on.

    Raises:
        UsageError: options do not fit together, or the user's model cannot be used.
        DataError: the data cannot be read, or do not fit the model.
    """
    from gradaudit.nets import Settings, encode_targets, net_named, read_table
    from gradaudit.nets.catalogue import compiled

    if ":" in asked.model:
        return _own(asked)
    net, data = net_named(asked.model), asked.data
    settings = Settings(
        optimizer=str(asked.optimizer or net.optimizer),
        learning_rate=asked.learning_rate or net.learning_rate,
        precision=str(asked.precision or ("float64" if data == "worked" else "float32")),
        bias=not asked.no_bias,
        jit=asked.jit,
        eager=asked.eager,
        seed=asked.seed,
    )
    if data is None or data in net.data:
        if asked.target is not None:
            raise UsageError("--target names a column of a CSV file. Give that with --data.")
        x, y = net.data[data or next(iter(net.data))]()
        return compiled(net, settings), x, y
    if asked.target is None:
        if not data.endswith(".csv") and not Path(data).exists():
            raise UnknownNameError(f"data set of {net.name}", data, net.data)
        raise UsageError(f"--data {data} needs --target: the column that the net is to predict.")
    table = read_table(data, asked.target)
    model = compiled(net, settings)
    _check_width(table, net.features, net.name)
    return model, table.features, encode_targets(table, net.targets, model.output_shape[-1])


def _refuse_options_of_nets(asked: Asked) -> None:
    given = {
        "--optimizer": asked.optimizer,
        "--learning-rate": asked.learning_rate,
        "--no-bias": asked.no_bias,
    }
    wrong = [option for option, value in given.items() if value]
    if wrong:
        raise UsageError(
            f"{', '.join(wrong)} is for the built-in nets: {asked.model} returns a model that is "
            "compiled already. Set it there."
        )


def own_model(asked: Asked) -> Any:
    """Return the compiled model that the user's package.module:build makes.

    Raises:
        UsageError: it raises, or returns something else than a model compiled with a loss.
    """
    import keras

    from gradaudit.nets import import_build
    from gradaudit.nets.precision import set_precision

    keras.utils.set_random_seed(asked.seed)
    if asked.precision is not None:
        set_precision(str(asked.precision))
    build = import_build(asked.model)
    try:
        model = build()
    except Exception as error:
        raise UsageError(f"{asked.model} raised {type(error).__name__}: {error}") from error
    if not isinstance(model, keras.Model) or not model.compiled:
        raise UsageError(f"{asked.model} returned {model!r}. Expected a compiled Keras model.")
    if model.loss is None:
        raise UsageError(f"{asked.model} returned a model that was compiled without a loss.")
    if asked.jit:
        model.jit_compile = True
    model.run_eagerly = asked.eager or model.run_eagerly
    return model


@contextmanager
def training() -> Iterator[None]:
    """Raise TrainingError for whatever Keras raises while it trains."""
    try:
        yield
    except GradauditError:
        raise
    except Exception as error:
        words = f"the training failed with {type(error).__name__}: {error}"
        raise TrainingError(words) from error


def target_kind(model: Any) -> str:
    """Return how a model's loss encodes its targets: "real", "one_hot", "integer" or "binary"."""
    import keras

    from gradaudit.rules import find_rule

    loss = keras.losses.get(model.loss) if isinstance(model.loss, str) else model.loss
    rule = find_rule(getattr(loss, "fn", loss))
    return "real" if rule is None else rule.cases[0].targets


def _own(asked: Asked) -> tuple[Any, Any, Any]:
    from gradaudit.nets import encode_targets, read_table

    _refuse_options_of_nets(asked)
    if asked.data is None or asked.target is None:
        raise UsageError(f"the model {asked.model} needs --data FILE.csv and --target COLUMN.")
    table = read_table(asked.data, asked.target)
    model = own_model(asked)
    if model.built:
        _check_width(table, model.input_shape[-1], asked.model)
    outputs = model.output_shape[-1] if model.built else len(set(table.target))
    return model, table.features, encode_targets(table, target_kind(model), outputs)


def _check_width(table: Any, features: int, model: str) -> None:
    if table.features.shape[1] != features:
        raise DataError(
            f"{table.name} has {table.features.shape[1]} columns beside {table.target_name!r}. "
            f"Expected {features}, as {model} takes."
        )
