"""The built-in nets by name, and how they are compiled."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from gradaudit.errors import UnknownNameError
from gradaudit.nets import deep_tanh, iris, sigmoid_mse
from gradaudit.nets.precision import set_precision


@dataclass(frozen=True)
class Published:
    """The worked example that a tutorial publishes for a net.

    sample: returns x and y.
    weights: by path, NaN where they are not printed; others are as the net is built.
    """

    sample: Callable[[], tuple[np.ndarray, np.ndarray]]
    weights: Mapping[str, ArrayLike]


@dataclass(frozen=True)
class Net:
    """A built-in net.

    layers, loss: in words.
    data: functions that return the arrays (x, y), by the name of the data set, the default first.
    about: each data set in words. targets: how y is encoded. features: width of x.
    build: makes the uncompiled Keras model. make_loss: makes its loss.
    published: its worked example in a tutorial, if there is one.
    """

    name: str
    layers: str
    loss: str
    data: Mapping[str, Callable[[], tuple[np.ndarray, np.ndarray]]]
    about: Mapping[str, str]
    targets: str
    features: int
    build: Callable[..., Any]
    make_loss: Callable[[], Any]
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    epochs: int = 10
    batch_size: int = 16
    published: Published | None = None


@dataclass(frozen=True)
class Settings:
    """How a net is compiled: optimizer, precision, mode and the seed of its weights."""

    optimizer: str
    learning_rate: float
    precision: str
    bias: bool = True
    jit: bool = False
    eager: bool = False
    seed: int = 0


NETS: dict[str, Net] = {
    net.name: net
    for net in (
        Net(
            name="iris",
            layers="4 → 3 softmax",
            loss="categorical cross-entropy",
            data={"iris": iris.samples},
            about={"iris": "150 flowers, 4 measurements in cm, 3 species"},
            targets="one_hot",
            features=4,
            build=iris.build,
            make_loss=iris.make_loss,
            published=Published(iris.worked_sample, {"iris/output/kernel": iris.WORKED_KERNEL}),
        ),
        Net(
            name="deep_tanh",
            layers="3 → 3 tanh → 3 tanh → 2 softmax",
            loss="categorical cross-entropy",
            data={"iris": deep_tanh.samples, "worked": deep_tanh.worked_sample},
            about={
                "iris": "versicolor or virginica from 3 standardised measurements, 100 flowers",
                "worked": "the one row of the published worked example, in float64",
            },
            targets="one_hot",
            features=3,
            build=deep_tanh.build,
            make_loss=deep_tanh.make_loss,
            published=Published(deep_tanh.worked_sample, {}),
        ),
        Net(
            name="sigmoid_mse",
            layers="3 → 4 sigmoid → 1 linear",
            loss="Σ (d − y)²/2",
            data={"iris": sigmoid_mse.samples},
            about={"iris": "petal width in cm from the other 3 measurements, 150 flowers"},
            targets="real",
            features=3,
            build=sigmoid_mse.build,
            make_loss=sigmoid_mse.make_loss,
            learning_rate=0.01,
        ),
    )
}


def net_named(name: str) -> Net:
    """Return a built-in net.

    Raises:
        UnknownNameError: there is none of that name.
    """
    if name not in NETS:
        raise UnknownNameError("model", name, NETS)
    return NETS[name]


def compiled(net: Net, settings: Settings) -> Any:
    """Return a net as a compiled Keras model, its random weights drawn from the seed.

    The precision and the seed stay set for everything that Keras builds afterwards.
    """
    import keras

    keras.utils.set_random_seed(settings.seed)
    set_precision(settings.precision)
    rate = settings.learning_rate
    optimizers = {
        "sgd": lambda: keras.optimizers.SGD(rate, name="sgd"),
        "momentum": lambda: keras.optimizers.SGD(rate, momentum=0.9, name="sgd"),
        "nesterov": lambda: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, name="sgd"),
        "adam": lambda: keras.optimizers.Adam(rate, name="adam"),
    }
    model = net.build(bias=settings.bias)
    model.compile(
        optimizer=optimizers[settings.optimizer](),
        loss=net.make_loss(),
        jit_compile=settings.jit,
        run_eagerly=settings.eager,
    )
    return model
