"""Several replicas in one process: two logical CPUs, as tests/conftest.py makes them."""

import functools

import keras
import tensorflow as tf
from keras import layers, optimizers

from matrix.cell import Cell, classes, classifier, dense, features, fitted, fitted_on


@functools.cache
def two_replicas():
    """Return the strategy of a process; two of them would use the same keys of collectives."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def mirrored(make):
    def made():
        with two_replicas().scope():
            return make()

    return made


def with_adam(**options):
    return lambda: classifier(optimizer=optimizers.Adam(0.01, **options))


def unbuilt():
    model = keras.Sequential([dense(5), dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def dataset():
    return tf.data.Dataset.from_tensor_slices((features(), classes())).batch(8)


CELLS = (
    Cell("MirroredStrategy", mirrored(classifier), fitted()),
    Cell("MirroredStrategy, Adam", mirrored(with_adam()), fitted()),
    Cell("MirroredStrategy, tf.data", mirrored(classifier), fitted_on(dataset)),
    Cell("MirroredStrategy, built by its first batch", mirrored(unbuilt), fitted()),
    Cell("MirroredStrategy, clipnorm", mirrored(with_adam(clipnorm=0.1)), fitted()),
    Cell("MirroredStrategy, global_clipnorm", mirrored(with_adam(global_clipnorm=0.1)), fitted()),
    Cell("MirroredStrategy, weight_decay", mirrored(with_adam(weight_decay=0.1)), fitted()),
    Cell("MirroredStrategy, regularizer",
         mirrored(lambda: classifier(dense(5, kernel_regularizer="l2"))), fitted()),
    Cell("MirroredStrategy, dropout", mirrored(lambda: classifier(layers.Dropout(0.3, seed=5))),
         fitted()),
    Cell("MirroredStrategy, batch normalization",
         mirrored(lambda: classifier(dense(5), layers.BatchNormalization())), fitted(),
         some_update="whose batches all move this variable"),
    Cell("MirroredStrategy, a batch too small for the second replica", mirrored(classifier),
         fitted(features(9), classes(9))),
    Cell("MirroredStrategy, run_eagerly", mirrored(lambda: classifier(run_eagerly=True)),
         fitted()),
    Cell("OneDeviceStrategy", lambda: _one_device(), fitted()),
)  # fmt: skip


def _one_device():
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        return classifier()
