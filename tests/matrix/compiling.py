"""What `compile` and `fit` can be given."""

import keras
import numpy as np
from keras import layers, losses, optimizers
from keras.optimizers import schedules

from matrix.cell import (
    Cell,
    classes,
    classifier,
    compiled,
    dense,
    features,
    fitted,
)

SGD, Adam = optimizers.SGD, optimizers.Adam


def with_optimizer(make):
    return lambda: classifier(optimizer=make())


def with_loss(loss, last, **options):
    return lambda: classifier(last=last(), loss=loss(), **options)


def cubes(y_true, y_pred):
    return keras.ops.mean(keras.ops.abs(y_pred - y_true) ** 3, axis=-1)


def one_hot(rows=20):
    return np.eye(3, dtype=np.float32)[classes(rows)]


def heads(**options):
    inputs = keras.Input((4,))
    x = dense(5)(inputs)
    outputs = [dense(3, "softmax", name="class")(x), dense(2, None, name="size")(x)]
    return compiled(
        keras.Model(inputs, outputs), ["sparse_categorical_crossentropy", "mse"], **options
    )


def with_dropout(**options):
    return lambda: classifier(dense(5), layers.Dropout(0.3, seed=5), **options)


def several_optimizers():
    chosen = optimizers.OptimizerMap(Adam(0.01))
    chosen[".*bias"] = SGD(0.1)
    return optimizers.MultiOptimizer(chosen)


def fit_again(model, callbacks):
    return [fitted()(model, callbacks), fitted()(model, callbacks)]


def fit_after_compile(model, callbacks):
    first = fitted()(model, callbacks)
    compiled(model, optimizer=Adam(0.01))
    return [first, fitted()(model, callbacks)]


def fit_more_rows(model, callbacks):
    return [fitted()(model, callbacks), fitted(features(30), classes(30))(model, callbacks)]


def fit_after_unfreezing(model, callbacks):
    model.layers[0].trainable = False
    compiled(model)
    first = fitted()(model, callbacks)
    model.layers[0].trainable = True
    compiled(model)
    return [first, fitted()(model, callbacks)]


def resumed(model, callbacks):
    fitted(epochs=1)(model, [])
    return fitted(epochs=3, initial_epoch=1)(model, callbacks)


def on_batches(model, callbacks):
    """Train by `train_on_batch` with a CallbackList, as Keras has it for loops of one's own."""
    audit = keras.callbacks.CallbackList(callbacks, model=model)
    audit.on_train_begin()
    logs = []
    for step in range(4):
        audit.on_train_batch_begin(step)
        logs.append(model.train_on_batch(features(), classes(), return_dict=True))
        audit.on_train_batch_end(step)
    audit.on_train_end()
    return logs


def evaluated_between(model, callbacks):
    first = fitted()(model, callbacks)
    model.evaluate(features(), classes(), verbose=0)
    model.predict(features(), verbose=0)
    return [first, fitted()(model, callbacks)]


VALIDATED = fitted(validation_data=(features(), classes()), validation_freq=2)
BOTH = fitted(features(), [classes(), features(width=2)])
LINEAR = lambda: dense(3, None)  # noqa: E731
SOFTMAX = lambda: dense(3, "softmax")  # noqa: E731
SIGMOID = lambda: dense(3, "sigmoid")  # noqa: E731
HOT = fitted(features(), one_hot())

CELLS = (
    Cell("run_eagerly", with_dropout(run_eagerly=True), fitted()),
    Cell("jit_compile=True", with_dropout(jit_compile=True), fitted()),
    Cell("jit_compile=False", with_dropout(jit_compile=False), fitted()),
    Cell("jit_compile='auto'", with_dropout(jit_compile="auto"), fitted()),
    Cell("steps_per_execution=2, the last one shorter", with_dropout(steps_per_execution=2),
         fitted()),
    Cell("steps_per_execution above the steps of an epoch", with_dropout(steps_per_execution=8),
         fitted()),
    Cell("steps_per_execution=2, XLA", with_dropout(steps_per_execution=2, jit_compile=True),
         fitted()),
    Cell("steps_per_execution=2, run_eagerly",
         with_dropout(steps_per_execution=2, run_eagerly=True), fitted()),
    Cell("steps_per_execution=2 with Adam",
         lambda: classifier(optimizer=Adam(0.01), steps_per_execution=2), fitted()),
    Cell("gradient_accumulation_steps=2",
         with_optimizer(lambda: Adam(0.01, gradient_accumulation_steps=2)), fitted()),
    Cell("gradient_accumulation_steps=4, clipnorm, weight_decay",
         with_optimizer(lambda: Adam(
             0.01, gradient_accumulation_steps=4, clipnorm=0.1, weight_decay=0.01
         )), fitted()),
    Cell("clipnorm", with_optimizer(lambda: SGD(0.1, clipnorm=0.2)), fitted()),
    Cell("clipvalue", with_optimizer(lambda: SGD(0.1, clipvalue=0.05)), fitted()),
    Cell("global_clipnorm", with_optimizer(lambda: SGD(0.1, global_clipnorm=0.2)), fitted()),
    Cell("weight_decay", with_optimizer(lambda: SGD(0.1, weight_decay=0.05)), fitted()),
    Cell("use_ema", with_optimizer(lambda: SGD(0.1, use_ema=True)), fitted()),
    Cell("use_ema, overwriting every 2 steps",
         with_optimizer(lambda: Adam(0.01, use_ema=True, ema_overwrite_frequency=2)), fitted()),
    Cell("loss_scale_factor", with_optimizer(lambda: SGD(0.1, loss_scale_factor=64.0)), fitted()),
    Cell("LossScaleOptimizer",
         with_optimizer(lambda: optimizers.LossScaleOptimizer(
             Adam(0.01), initial_scale=8.0, dynamic_growth_steps=2
         )), fitted()),
    Cell("schedule: exponential decay",
         with_optimizer(lambda: SGD(schedules.ExponentialDecay(0.1, 2, 0.5))), fitted()),
    Cell("schedule: cosine decay with warm-up",
         with_optimizer(lambda: Adam(schedules.CosineDecay(
             0.0, 6, warmup_target=0.02, warmup_steps=2
         ))), fitted()),
    Cell("schedule: piecewise constant",
         with_optimizer(lambda: SGD(schedules.PiecewiseConstantDecay([2], [0.1, 0.01]))), fitted()),
    Cell("learning rate from a function", with_optimizer(lambda: SGD(lambda: 0.05)), fitted()),
    *(
        Cell(f"optimizer {name}", with_optimizer(getattr(optimizers, name)), fitted())
        for name in (
            "SGD", "RMSprop", "Adagrad", "Adadelta", "Adam", "AdamW", "Adamax", "Nadam", "Ftrl",
            "Lion", "Lamb", "Adafactor", "Muon", "ScheduleFreeAdamW",
        )
    ),
    Cell("MultiOptimizer", with_optimizer(several_optimizers), fitted()),
    Cell("loss_weights, a list", lambda: heads(loss_weights=[0.3, 2.0]), BOTH),
    Cell("loss_weights, by name", lambda: heads(loss_weights={"class": 0.3, "size": 2.0}), BOTH),
    Cell("categorical cross-entropy",
         with_loss(losses.CategoricalCrossentropy, SOFTMAX), HOT),
    Cell("categorical cross-entropy from logits, label smoothing",
         with_loss(lambda: losses.CategoricalCrossentropy(True, label_smoothing=0.1), LINEAR), HOT),
    Cell("sparse categorical cross-entropy from logits",
         with_loss(lambda: losses.SparseCategoricalCrossentropy(True), LINEAR), fitted()),
    Cell("binary cross-entropy", with_loss(losses.BinaryCrossentropy, SIGMOID), HOT),
    Cell("mean squared error, summed over the batch",
         with_loss(lambda: losses.MeanSquaredError(reduction="sum"), LINEAR), HOT),
    Cell("a loss by its name", with_loss(lambda: "mse", LINEAR), HOT),
    Cell("sparse categorical cross-entropy with a class ignored",
         with_loss(lambda: losses.SparseCategoricalCrossentropy(ignore_class=1), SOFTMAX),
         fitted()),
    Cell("binary focal cross-entropy", with_loss(losses.BinaryFocalCrossentropy, SIGMOID), HOT),
    Cell("Huber's loss", with_loss(losses.Huber, LINEAR), HOT),
    Cell("a loss that gradaudit has no rule for", with_loss(lambda: cubes, LINEAR), HOT),
    Cell("metrics, weighted metrics",
         lambda: classifier(
             metrics=["accuracy", keras.metrics.SparseCategoricalCrossentropy()],
             weighted_metrics=["accuracy"],
         ), fitted(sample_weight=np.linspace(0.2, 2.0, 20))),
    Cell("auto_scale_loss=False", lambda: classifier(auto_scale_loss=False), fitted()),
    Cell("validation in every second epoch", with_dropout(metrics=["accuracy"]), VALIDATED),
    Cell("a second fit", with_dropout(), fit_again),
    Cell("a second fit after another compile", with_dropout(), fit_after_compile),
    Cell("a second fit on more rows", with_dropout(), fit_more_rows),
    Cell("a second fit after a layer was unfrozen", classifier, fit_after_unfreezing),
    Cell("evaluate and predict between two fits", with_dropout(), evaluated_between),
    Cell("fit resumed with initial_epoch", with_dropout(), resumed),
    Cell("train_on_batch", with_dropout(), on_batches),
)  # fmt: skip
