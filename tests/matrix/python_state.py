"""Python state that a trace makes constants of, and what becomes of it in a training."""

import keras
import numpy as np
import tensorflow as tf

from matrix.cell import (
    Cell,
    classes,
    classifier,
    compiled,
    dense,
    features,
    fitted,
    fitted_on,
    images,
)

OUTSIDE = {"weight": 1.0}


class Scaled(keras.layers.Layer):
    """Multiplies by an attribute, and adds those of a list."""

    def __init__(self):
        super().__init__(name="scaled")
        self.scale, self.shifts, self.unread = 1.5, [], 0

    def call(self, x):
        x = self.scale * x
        for shift in self.shifts:
            x = x + shift
        return x


class Noise(keras.layers.Layer):
    """Adds noise that is drawn while the step is traced."""

    def call(self, x):
        return x + np.random.normal(size=(1, 5)).astype(np.float32)  # noqa: NPY002


class Stream(keras.layers.Layer):
    """Adds noise that TensorFlow's stateful generator draws."""

    def call(self, x):
        return x + tf.random.normal(tf.shape(x))


class WithoutMode(keras.Model):
    """Its `call` takes no `training`: all in it runs as in inference."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = parts

    def build(self, shape):
        pass

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


def weighed(y, p):
    return OUTSIDE["weight"] * keras.losses.sparse_categorical_crossentropy(y, p)


def with_loss():
    OUTSIDE["weight"] = 1.0
    return classifier(loss=weighed)


def changing(change, *data, **options):
    """Return a training in which a callback changes the model at the second epoch."""

    def train(model, callbacks):
        def begin(epoch, logs):
            if epoch == 1:
                change(model)

        changed = keras.callbacks.LambdaCallback(on_epoch_begin=begin)
        return fitted(*data, **options)(model, [changed, *callbacks])

    return train


def batches(size):
    """Return batches of one shape, for which Keras compiles a function of its own."""
    data = tf.data.Dataset.from_tensor_slices((features(), classes()))
    return data.batch(size, drop_remainder=True)


def then_smaller(change):
    """Return a training that changes a model, and goes on with smaller batches, traced anew."""

    def train(model, callbacks):
        first = fitted_on(lambda: batches(8))(model, callbacks)
        change(model)
        return [first, fitted_on(lambda: batches(5))(model, callbacks)]

    return train


def freeze(model):
    model.layers[0].trainable = False


def scale(model):
    model.get_layer("scaled").scale = 0.5


def scaled():
    return classifier(dense(5), Scaled())


CELLS = (
    Cell("a float of a layer changes", scaled, changing(scale),
         stale="multiplies by the constant 1.5 where the model's code now has 0.5", verdict="fail"),
    Cell("a float of a layer changes, XLA",
         lambda: classifier(dense(5), Scaled(), jit_compile=True), changing(scale),
         stale="multiplies by the constant 1.5", verdict="fail"),
    Cell("a list of a layer grows", scaled,
         changing(lambda model: model.get_layer("scaled").shifts.append(0.5)),
         stale="does not have the constant 0.5 in layer 'scaled'", verdict="fail"),
    Cell("a global of the loss changes", with_loss,
         changing(lambda model: OUTSIDE.update(weight=0.5)),
         stale="the model's code now has 0.5", verdict="fail"),
    Cell("a layer is frozen, and the model is not compiled again", classifier, changing(freeze),
         stale="which is frozen now (trainable=False)", verdict="fail"),
    Cell("a float of a layer changes, then batches have another shape", scaled,
         then_smaller(scale)),
    Cell("an attribute that no code reads changes", scaled,
         changing(lambda model: setattr(model.get_layer("scaled"), "unread", 1))),
    Cell("noise drawn from NumPy while the step is traced", lambda: classifier(dense(5), Noise()),
         fitted(), stale="numbers drawn from NumPy or Python"),
    Cell("noise of tf.random", lambda: classifier(dense(5), Stream()), fitted(),
         gradient="draws from TensorFlow's own generator"),
    Cell("call without training, unbuilt augmentation",
         lambda: compiled(WithoutMode(
             keras.Sequential([keras.layers.RandomFlip("horizontal")]), keras.layers.Flatten(),
             dense(3, "softmax"))),
         fitted(images(), classes())),
    Cell("call without training, Dropout and BatchNormalization",
         lambda: compiled(WithoutMode(
             dense(5), keras.layers.Dropout(0.5), keras.layers.BatchNormalization(),
             keras.Sequential([dense(4), keras.layers.Dropout(0.5)]), dense(3, "softmax"))),
         fitted()),
)  # fmt: skip
