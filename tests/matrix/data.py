"""Data of every kind."""

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from keras import layers

from matrix.cell import (
    Cell,
    classes,
    classifier,
    compiled,
    dense,
    features,
    fitted,
    fitted_on,
    rng,
)


def dataset(rows=20):
    return tf.data.Dataset.from_tensor_slices((features(rows), classes(rows)))


def generator():
    for start in range(0, 20, 8):
        yield features()[start : start + 8], classes()[start : start + 8]


def endless():
    while True:
        yield from generator()


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        rows = slice(8 * index, 8 * index + 8)
        return features()[rows], classes()[rows]


class WeightedBatches(Batches):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x, y, np.linspace(0.5, 2.0, len(x), dtype=np.float32)


def by_name():
    inputs = {"a": keras.Input((4,), name="a"), "b": keras.Input((4,), name="b")}
    same = dense(3, "softmax")
    model = keras.Model(inputs, [same(inputs["a"]), same(inputs["b"])])
    return compiled(model, ["sparse_categorical_crossentropy"] * 2)


def two_heads():
    inputs = keras.Input((4,))
    x = dense(5)(inputs)
    model = keras.Model(inputs, [dense(3, "softmax")(x), dense(2, None)(x)])
    return compiled(model, ["sparse_categorical_crossentropy", "mse"])


def sequences():
    model = keras.Sequential([keras.Input((5, 2)), dense(4), dense(3, "softmax")])
    return compiled(model)


def masked():
    layers_ = [keras.Input((5, 2)), layers.Masking(), dense(4), dense(3, "softmax")]
    return compiled(keras.Sequential(layers_))


def regression(**options):
    return compiled(keras.Sequential([keras.Input((4,)), dense(5), dense(1, None)]), "mse")


def own_losses_only():
    class Penalty(layers.Layer):
        def call(self, x):
            self.add_loss(keras.ops.mean(x**2))
            return x

    model = keras.Sequential([keras.Input((4,)), dense(3), Penalty()])
    model.compile("sgd")
    return model


def sparse_input():
    return compiled(keras.Sequential([keras.Input((4,), sparse=True), dense(3, "softmax")]))


def sparse_dataset():
    x = np.where(features() > 0, features(), 0)
    return tf.data.Dataset.from_tensor_slices((tf.sparse.from_dense(x), classes())).batch(8)


WEIGHTS = np.linspace(0.2, 2.0, 20).astype(np.float32)
SERIES = rng().standard_normal((20, 5, 2)).astype(np.float32)
STEPS = rng().integers(0, 3, (20, 5))

CELLS = (
    Cell("float64 arrays", classifier, fitted(features().astype(np.float64), classes())),
    Cell("integer arrays", classifier, fitted(np.arange(80).reshape(20, 4) % 7, classes())),
    Cell("pandas DataFrame", classifier, fitted(pd.DataFrame(features()), pd.Series(classes()))),
    Cell("tensors", classifier, fitted(tf.constant(features()), tf.constant(classes()))),
    Cell("shuffled anew in each epoch", classifier, fitted(shuffle=True)),
    Cell("not shuffled", classifier, fitted(shuffle=False)),
    Cell("one batch", classifier, fitted(batch_size=20)),
    Cell("batches of one row", classifier, fitted(features(5), classes(5), batch_size=1)),
    Cell("last batch of one row", classifier, fitted(features(9), classes(9), batch_size=4)),
    Cell("tf.data", classifier, fitted_on(lambda: dataset().batch(8))),
    Cell("tf.data without the remainder", classifier,
         fitted_on(lambda: dataset().batch(8, drop_remainder=True))),
    Cell("tf.data, shuffled and prefetched", classifier,
         fitted_on(lambda: dataset().shuffle(20, seed=1).batch(8).prefetch(2))),
    Cell("tf.data of unknown length", classifier,
         fitted_on(lambda: dataset().filter(lambda x, y: y < 9).batch(8)),
         warns="ran out of data"),
    Cell("endless tf.data, steps_per_epoch", classifier,
         fitted_on(lambda: dataset().repeat().batch(8), steps_per_epoch=4)),
    Cell("epochs of different lengths: the data ends within one", classifier,
         fitted_on(lambda: dataset().batch(8), steps_per_epoch=2, epochs=3),
         warns="ran out of data"),
    Cell("a generator", classifier, fitted_on(generator), warns="ran out of data"),
    Cell("an endless generator, steps_per_epoch", classifier,
         fitted_on(endless, steps_per_epoch=4)),
    Cell("PyDataset", classifier, fitted_on(lambda: Batches(workers=1))),
    Cell("PyDataset with sample weights", classifier, fitted_on(lambda: WeightedBatches())),
    Cell("PyDataset with two threads", classifier, fitted_on(lambda: Batches(workers=2))),
    Cell("inputs by name", by_name,
         fitted({"b": features()[::-1], "a": features()}, [classes(), classes()[::-1]])),
    Cell("sample_weight", classifier, fitted(sample_weight=WEIGHTS)),
    Cell("sample_weight with zeros", classifier,
         fitted(sample_weight=np.arange(20) % 2)),
    Cell("sample_weight, loss reduced by the sum of the weights",
         lambda: classifier(
             loss=keras.losses.SparseCategoricalCrossentropy(reduction="mean_with_sample_weight")
         ),
         fitted(sample_weight=WEIGHTS)),
    Cell("sample_weight for each output", two_heads,
         fitted(features(), [classes(), features(width=2)], sample_weight=[WEIGHTS, WEIGHTS**2])),
    Cell("sample_weight for each time step", sequences,
         fitted(SERIES, STEPS, sample_weight=np.abs(SERIES[..., 0]))),
    Cell("class_weight", classifier, fitted(class_weight={0: 1.0, 1: 2.0, 2: 0.5})),
    Cell("targets (N,) for predictions (N, 1)", regression,
         fitted(features(), features()[:, 0])),
    Cell("targets (N, 1)", regression, fitted(features(), features()[:, :1])),
    Cell("a Keras mask", masked, fitted(SERIES, STEPS)),
    Cell("no targets, a loss by add_loss", own_losses_only, fitted(features())),
    Cell("sparse inputs", sparse_input, fitted_on(sparse_dataset), gradient="is sparse"),
    Cell("validation_split", classifier, fitted(validation_split=0.2)),
    Cell("values that are not numbers", classifier,
         fitted(np.where(np.arange(80).reshape(20, 4) == 11, np.nan, features()), classes()),
         verdict="nonfinite"),
)  # fmt: skip
