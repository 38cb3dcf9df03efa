"""One cell of the matrix: a model, and how it is trained."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

Train = Callable[[keras.Model, list[Any]], Any]


@dataclass(frozen=True)
class Cell:
    """name: what is special here. make: returns a compiled model.

    train: trains it with a list of callbacks; returns what must not depend on the audit.
    gradient, update: words of the reason why that stage is unjudged; empty where it is judged.
    some_update: words of the reason why the update of some of the weights is.
    stale: words of what is stale in a compiled step.
    verdict: of the run; empty for "pass", or "unjudged" where something is.
    warns: a pattern of the warnings that Keras itself gives.
    """

    name: str
    make: Callable[[], keras.Model]
    train: Train
    gradient: str = ""
    update: str = ""
    some_update: str = ""
    stale: str = ""
    verdict: str = ""
    warns: str = ""


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def features(rows: int = 20, width: int = 4) -> np.ndarray:
    return rng().standard_normal((rows, width)).astype(np.float32)


def images(rows: int = 20, size: int = 4) -> np.ndarray:
    return rng().standard_normal((rows, size, size, 2)).astype(np.float32)


def classes(rows: int = 20, number: int = 3) -> np.ndarray:
    return rng().integers(0, number, rows)


def dense(units: int = 3, activation: str | None = "tanh", **options: Any) -> Any:
    return keras.layers.Dense(units, activation=activation, **options)


def compiled(model: keras.Model, loss: Any = "sparse_categorical_crossentropy", **options: Any):
    options.setdefault("optimizer", keras.optimizers.SGD(0.05, momentum=0.9))
    model.compile(loss=loss, **options)
    return model


def classifier(*middle: Any, width: int = 4, last: Any = None, **options: Any) -> keras.Model:
    """Return a compiled Sequential model of three classes."""
    layers = middle or (dense(5),)
    last = dense(3, "softmax") if last is None else last
    return compiled(keras.Sequential([keras.Input((width,)), *layers, last]), **options)


def fitted(*data: Any, **options: Any) -> Train:
    """Return a training by `fit`: two epochs of 8, 8 and 4 rows where nothing else is said."""
    options = {"batch_size": 8, "epochs": 2, "verbose": 0, **options}
    given = data or (features(), classes())

    def train(model: keras.Model, callbacks: list[Any]) -> Any:
        return model.fit(*given, callbacks=callbacks, **options).history

    return train


def fitted_on(make: Callable[[], Any], **options: Any) -> Train:
    """Return a training by `fit` on data that is made anew each time."""
    options = {"epochs": 2, "verbose": 0, "shuffle": False, **options}

    def train(model: keras.Model, callbacks: list[Any]) -> Any:
        return model.fit(make(), callbacks=callbacks, **options).history

    return train
