"""The nets of the benchmark, each with the data of one batch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from gradaudit.nets import NETS as BUILT_IN
from gradaudit.nets.catalogue import Settings, compiled

Batch = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Net:
    """A net of the benchmark.

    about: in words. build: makes the uncompiled model. batch: draws x and y of one batch.
    """

    about: str
    build: Callable[[], keras.Model]
    batch: Callable[[np.random.Generator], Batch]


def _labels(rng: np.random.Generator, rows: int) -> np.ndarray:
    return rng.integers(0, 10, rows)


def _real(*shape: int) -> Callable[[np.random.Generator], Batch]:
    return lambda rng: (rng.standard_normal(shape).astype(np.float32), _labels(rng, shape[0]))


def _pixels(rng: np.random.Generator, rows: int) -> Batch:
    """Return images of which four fifths are 0, as in handwritten digits."""
    x = rng.random((rows, 784), np.float32)
    return x * (rng.random(x.shape) < 0.2), _labels(rng, rows)


def perceptron(*widths: int) -> keras.Model:
    """Return a net of Dense layers with ReLU and a softmax of ten classes."""
    first, *hidden = widths
    parts = [layers.Dense(width, "relu") for width in hidden]
    return keras.Sequential([keras.Input((first,)), *parts, layers.Dense(10, "softmax")])


def cnn() -> keras.Model:
    """Return four blocks of a convolution, a batch normalization and a ReLU."""
    parts: list[keras.Layer] = []
    for filters, strides in ((32, 1), (32, 2), (64, 1), (64, 2)):
        convolution = layers.Conv2D(filters, 3, strides, "same")
        parts += [convolution, layers.BatchNormalization(), layers.ReLU()]
    parts += [layers.GlobalAveragePooling2D(), layers.Dense(10, "softmax")]
    return keras.Sequential([keras.Input((32, 32, 3)), *parts])


def lstm() -> keras.Model:
    """Return an LSTM of 64 units over 50 steps."""
    parts = [layers.LSTM(64), layers.Dense(10, "softmax")]
    return keras.Sequential([keras.Input((50, 16)), *parts])


def gru() -> keras.Model:
    """Return a GRU over sequences of which a part is masked."""
    parts = [layers.Masking(), layers.GRU(32), layers.Dense(10, "softmax")]
    return keras.Sequential([keras.Input((30, 16)), *parts])


def _ended(rng: np.random.Generator) -> Batch:
    x = rng.standard_normal((64, 30, 16)).astype(np.float32)
    ends = rng.integers(10, 31, 64)
    x[np.arange(30) >= ends[:, None]] = 0
    return x, _labels(rng, 64)


def _block(x: keras.KerasTensor, width: int, heads: int) -> keras.KerasTensor:
    normal = layers.LayerNormalization()(x)
    x = x + layers.MultiHeadAttention(heads, width // heads)(normal, normal)
    hidden = layers.Dense(4 * width, "gelu")(layers.LayerNormalization()(x))
    return x + layers.Dense(width)(hidden)


def transformer() -> keras.Model:
    """Return one transformer block, 128 wide, with 4 heads over 64 tokens."""
    x = keras.Input((64, 128))
    y = layers.GlobalAveragePooling1D()(_block(x, 128, 4))
    return keras.Model(x, layers.Dense(10, "softmax")(y))


def vit() -> keras.Model:
    """Return a vision transformer of 37,000 weights: patches of 4×4, two blocks, 32 wide."""
    x = keras.Input((32, 32, 3))
    patches = layers.Reshape((64, 32))(layers.Conv2D(32, 4, 4)(x))
    y = layers.Dropout(0.1)(patches)
    for _ in range(2):
        y = _block(y, 32, 4)
    y = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(y))
    return keras.Model(x, layers.Dense(10, "softmax")(layers.Dense(128, "gelu")(y)))


def _built_in(name: str) -> tuple[Callable[[], keras.Model], Callable]:
    net = BUILT_IN[name]
    x, y = next(iter(net.data.values()))()
    return lambda: compiled(net, Settings("adam", 0.01, "float32")), lambda rng: (x[:16], y[:16])


NETS: Mapping[str, Net] = {
    "iris": Net("4-3, batch 16", *_built_in("iris")),
    "deep_tanh": Net("3-3-3-2, batch 16", *_built_in("deep_tanh")),
    "mlp": Net(
        "784-512-512-10, batch 128",
        lambda: perceptron(784, 512, 512),
        lambda rng: _pixels(rng, 128),
    ),
    "cnn": Net("32×32×3, 4 conv + batch norm, batch 64", cnn, _real(64, 32, 32, 3)),
    "lstm": Net("64 units, 50 steps, batch 64", lstm, _real(64, 50, 16)),
    "gru": Net("32 units, 30 steps, masked, batch 64", gru, _ended),
    "transformer": Net("128 wide, 4 heads, 64 tokens, batch 32", transformer, _real(32, 64, 128)),
    "vit": Net("37,000 weights, 64 patches, batch 32", vit, _real(32, 32, 32, 3)),
    "large_mlp": Net(
        "10 million weights, batch 64",
        lambda: perceptron(1024, 2048, 2048, 1800),
        _real(64, 1024),
    ),
}


def compiled_net(net: Net, jit: bool = False) -> keras.Model:
    """Return a net compiled with Adam and a cross-entropy; one that is compiled, as it is."""
    keras.utils.set_random_seed(0)
    model = net.build()
    loss = model.loss if model.compiled else "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(0.001), loss, jit_compile=jit)
    return model
