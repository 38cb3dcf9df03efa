"""Models of every kind."""

import keras
import tensorflow as tf
from keras import layers, ops, regularizers

from matrix.cell import Cell, classes, classifier, compiled, dense, features, fitted, rng

TWO = fitted([features(), features()[::-1]], [classes(), features(width=2)])


def functional(build, inputs=None, **options):
    inputs = keras.Input((4,)) if inputs is None else inputs
    return compiled(keras.Model(inputs, build(inputs)), **options)


def unbuilt():
    return compiled(keras.Sequential([dense(5), layers.Dropout(0.2, seed=1), dense(3, "softmax")]))


def two_towers():
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    shared = dense(5)
    outputs = [
        dense(3, "softmax", name="class")(shared(left)),
        dense(2, None, name="size")(shared(right)),
    ]
    model = keras.Model([left, right], outputs)
    return compiled(model, ["sparse_categorical_crossentropy", "mse"], loss_weights=[1.0, 0.3])


def two_heads():
    def build(x):
        x = dense(5)(x)
        return {"class": dense(3, "softmax", name="class")(x), "size": dense(2, None)(x)}

    return functional(build, loss={"class": "sparse_categorical_crossentropy", "size": "mse"})


def one_head_without_loss():
    def build(x):
        x = dense(5)(x)
        return [dense(3, "softmax")(x), dense(2, None)(x)]

    return functional(build, loss=["sparse_categorical_crossentropy", None])


def shared_layer():
    same = dense(4)
    return functional(lambda x: dense(3, "softmax")(same(layers.Dropout(0.3, seed=2)(same(x)))))


def nested():
    inner = keras.Sequential([keras.Input((4,)), dense(4), layers.Dropout(0.3, seed=3)])
    middle_inputs = keras.Input((4,))
    middle = keras.Model(middle_inputs, dense(4)(inner(middle_inputs)))
    return functional(lambda x: dense(3, "softmax")(inner(middle(x))))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="mine")
        self.hidden = dense(5)
        self.dropout = layers.Dropout(0.2, seed=4)
        self.out = dense(3, "softmax")

    def call(self, x, training=None):
        return self.out(self.dropout(self.hidden(x), training=training))


class LayersMadeInCall(keras.Model):
    def build(self, shape):
        self.out = dense(3, "softmax")
        self.out.build(shape)

    def call(self, x):
        return self.out(x)


class WithFunctionalInside(keras.Model):
    def __init__(self):
        super().__init__(name="mine")
        inputs = keras.Input((4,))
        self.inner = keras.Model(inputs, dense(3, "softmax")(inputs))

    def call(self, x):
        return self.inner(x)


class OwnTrainStep(keras.Model):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        weights = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}


class TwoApplications(keras.Model):
    """Moves its first half of the weights, then the other, as adversarial pairs do."""

    def train_step(self, data):
        x, y = data
        for weights in (self.trainable_variables[:2], self.trainable_variables[2:]):
            with tf.GradientTape() as tape:
                loss = self.compute_loss(y=y, y_pred=self(x, training=True))
            self.optimizer.apply(tape.gradient(loss, weights), weights)
        return {"loss": loss}


class DifferentiatesInABranch(keras.Model):
    def train_step(self, data):
        x, y = data

        def step():
            with tf.GradientTape() as tape:
                loss = self.compute_loss(y=y, y_pred=self(x, training=True))
            weights = self.trainable_variables
            self.optimizer.apply(tape.gradient(loss, weights), weights)
            return loss

        return {"loss": tf.cond(tf.shape(x)[0] > 0, step, lambda: 0.0)}


class AppliesInABranch(keras.Model):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        weights = self.trainable_variables
        gradients = tape.gradient(loss, weights)

        def apply():
            self.optimizer.apply(gradients, weights)
            return 0

        tf.cond(loss > 0.0, apply, lambda: 0)
        return {"loss": loss}


class OwnOptimizer(keras.Model):
    """Never asks its compiled optimizer."""

    def train_step(self, data):
        x, _ = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self(x, training=True)))
        for weight, gradient in zip(
            self.trainable_variables, tape.gradient(loss, self.trainable_variables), strict=True
        ):
            weight.assign_sub(0.1 * gradient)
        return {"loss": loss}


class OwnComputeLoss(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return 2.0 * super().compute_loss(x, y, y_pred, sample_weight, training)


class OwnCall(keras.Model):
    def call(self, inputs, training=None):
        return super().call(2.0 * inputs)


class AddsLoss(layers.Layer):
    def call(self, x):
        self.add_loss(0.1 * ops.mean(ops.square(x)))
        return x


class Doubling(layers.Layer):
    def call(self, x):
        return 2.0 * x


class OneNumber(layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, x):
        return self.scale * x


class TwiceTheRate(keras.optimizers.SGD):
    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, 2.0 * learning_rate)


class Unused(layers.Layer):
    """Owns a weight that no gradient reaches."""

    def build(self, shape):
        self.idle = self.add_weight(shape=(3,), initializer="ones", name="idle")

    def call(self, x):
        return x


def subclass_of(kind, **options):
    inputs = keras.Input((4,))
    return compiled(kind(inputs, dense(3, "softmax")(dense(5)(inputs))), **options)


def built(model):
    """Build the optimizer, as an earlier fit would have done."""
    model.optimizer.build(model.trainable_variables)
    return model


def frozen():
    model = classifier(dense(5, name="frozen"), dense(4))
    model.get_layer("frozen").trainable = False
    return compiled(model)


def frozen_part():
    inner = keras.Sequential([keras.Input((4,)), dense(4), dense(4)], name="inner")
    inner.trainable = False
    return functional(lambda x: dense(3, "softmax")(inner(x)))


def unreached():
    def build(x):
        y = dense(5)(x)
        return [dense(3, "softmax")(y), dense(2, name="unreached")(y)]

    return functional(build, loss=["sparse_categorical_crossentropy", None])


def lora():
    model = classifier(dense(5, name="wide"))
    model.get_layer("wide").enable_lora(2)
    return compiled(model)


def convolutional(**options):
    middle = [layers.Conv2D(6, 3), layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input((8, 8, 3)), *middle, dense(3, "softmax")])
    return compiled(model, **options)


def wide_normalized(**options):
    middle = [dense(30, "relu"), layers.BatchNormalization()]
    return classifier(*middle, width=50, **options)


def clipped(option, **others):
    """Return options of compile under which XLA computes a gradient otherwise when it is read."""
    return {
        "optimizer": keras.optimizers.SGD(0.1, **{option: 0.1}),
        "jit_compile": True,
        **others,
    }


def recurrent(*first):
    return compiled(
        keras.Sequential([keras.Input((5, 2)), *first, layers.LSTM(3), dense(3, "softmax")])
    )


def attentive():
    inputs = keras.Input((5, 2))
    x = dense(4)(layers.Masking()(inputs))
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 2, dropout=0.2, seed=6)(x, x))
    return compiled(keras.Model(inputs, dense(3, "softmax")(layers.GlobalAveragePooling1D()(x))))


def embedding(optimizer="sgd"):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Embedding(9, 3),
            layers.Flatten(),
            dense(3, "softmax"),
        ]
    )
    return compiled(model, optimizer=optimizer)


def normalized(**options):
    return lambda: classifier(dense(5), layers.BatchNormalization(), **options)


def constrained(constraint):
    def make():
        return classifier(dense(5, kernel_constraint=constraint, bias_constraint=constraint))

    return make


def regularized(**options):
    return lambda: classifier(dense(5, **options), dense(4))


IMAGES = fitted(rng().standard_normal((32, 8, 8, 3)), classes(32))
WIDE = fitted(rng().standard_normal((32, 50)), classes(32))
SERIES = fitted(rng().standard_normal((20, 5, 2)), classes())
TOKENS = fitted(rng().integers(0, 9, (20, 4)), classes())
HEADS = fitted(features(), {"class": classes(), "size": features(width=2)})
NO_RULE = "has no derived rule"

CELLS = (
    Cell("Sequential", classifier, fitted()),
    Cell("Sequential, built by its first batch", unbuilt, fitted()),
    Cell("functional", lambda: functional(lambda x: dense(3, "softmax")(dense(5)(x))), fitted()),
    Cell(
        "branches that meet in an Add layer",
        lambda: functional(
            lambda x: dense(3, "softmax")(layers.Add()([dense(5)(x), dense(5, "relu")(x)]))
        ),
        fitted(),
    ),
    Cell("two inputs, two outputs, a shared layer", two_towers, TWO),
    Cell("two outputs by name", two_heads, HEADS),
    Cell(
        "two outputs, a loss for one",
        one_head_without_loss,
        fitted(features(), [classes(), features(width=2)]),
        warns="Gradients do not exist",
    ),
    Cell("a layer that is called twice", shared_layer, fitted()),
    Cell("nested models", nested, fitted()),
    Cell("dropout with a seed", lambda: classifier(layers.Dropout(0.4, seed=7)), fitted()),
    Cell("dropout with the global seed", lambda: classifier(layers.Dropout(0.4)), fitted()),
    Cell("subclassed, built by its first batch", lambda: compiled(Subclassed()), fitted()),
    Cell("subclassed with a build of its own", lambda: compiled(LayersMadeInCall()), fitted()),
    Cell("subclassed around a functional model", lambda: compiled(WithFunctionalInside()),
         fitted()),
    Cell("train_step overridden", lambda: built(subclass_of(OwnTrainStep)), fitted(),
         gradient="overrides train_step"),
    Cell("train_step overridden, its optimizer not built yet", lambda: subclass_of(OwnTrainStep),
         fitted(), gradient="overrides train_step"),
    Cell("train_step overridden, two updates in a step",
         lambda: built(subclass_of(TwoApplications)),
         fitted(), gradient="overrides train_step", update="optimizer.apply ran 2 times"),
    Cell("train_step overridden, the update in a branch",
         lambda: built(subclass_of(AppliesInABranch)),
         fitted(), gradient="overrides train_step", update="stands in a branch"),
    Cell("train_step overridden, all of it in a branch",
         lambda: built(subclass_of(DifferentiatesInABranch)), fitted(),
         gradient="failed in capturing", update="failed in capturing"),
    Cell("train_step overridden, the compiled optimizer never asked",
         lambda: subclass_of(OwnOptimizer), fitted(), gradient="overrides train_step",
         update="optimizer.apply ran 0 times"),
    Cell("compute_loss overridden", lambda: subclass_of(OwnComputeLoss), fitted()),
    Cell("call of a functional model overridden", lambda: subclass_of(OwnCall), fitted()),
    Cell("add_loss in a layer", lambda: classifier(dense(5), AddsLoss()), fitted()),
    Cell("L1 regularizer", regularized(kernel_regularizer="l1"), fitted()),
    Cell("L2 regularizer, on the bias too",
         regularized(kernel_regularizer="l2", bias_regularizer=regularizers.L2(0.1)), fitted()),
    Cell("L1L2 regularizer", regularized(kernel_regularizer=regularizers.L1L2(0.02, 0.05)),
         fitted()),
    Cell("orthogonal regularizer", regularized(kernel_regularizer="orthogonal_regularizer"),
         fitted()),
    Cell("a regularizer of one's own",
         regularized(kernel_regularizer=lambda w: 0.1 * ops.sum(w**4)), fitted()),
    Cell("activity regularizer", regularized(activity_regularizer="l2"), fitted()),
    *(
        Cell(f"constraint {name}", constrained(name), fitted())
        for name in ("max_norm", "non_neg", "unit_norm", "min_max_norm")
    ),
    Cell("a constraint of one's own", constrained(lambda w: ops.clip(w, -1, 1)), fitted(),
         update=NO_RULE),
    Cell("a frozen layer", frozen, fitted()),
    Cell("a frozen nested model", frozen_part, fitted()),
    Cell("a weight that no gradient reaches", lambda: classifier(dense(5), Unused()), fitted(),
         warns="Gradients do not exist"),
    Cell("batch normalization", normalized(), fitted()),
    Cell("batch normalization, Adam", normalized(optimizer="adam"), fitted()),
    Cell("batch normalization, XLA", normalized(jit_compile=True), fitted()),
    Cell("batch normalization, frozen",
         lambda: classifier(dense(5), layers.BatchNormalization(trainable=False)), fitted()),
    Cell("layer normalization, clipnorm",
         lambda: classifier(
             layers.LayerNormalization(), optimizer=keras.optimizers.SGD(0.1, clipnorm=0.1)
         ), fitted()),
    Cell("spectral normalization",
         lambda: classifier(layers.SpectralNormalization(dense(5))), fitted()),
    Cell("convolution", convolutional, IMAGES),
    Cell("convolution, XLA, clipnorm", lambda: convolutional(**clipped("clipnorm")), IMAGES),
    Cell("convolution, XLA, global_clipnorm", lambda: convolutional(**clipped("global_clipnorm")),
         IMAGES),
    Cell("convolution, XLA, global_clipnorm, steps_per_execution=2",
         lambda: convolutional(**clipped("global_clipnorm", steps_per_execution=2)), IMAGES),
    Cell("batch normalization, XLA, clipnorm", lambda: wide_normalized(**clipped("clipnorm")),
         WIDE),
    Cell("recurrence", recurrent, SERIES),
    Cell("recurrence under a mask", lambda: recurrent(layers.Masking()), SERIES),
    Cell("recurrence in both directions, dropout",
         lambda: recurrent(
             layers.Bidirectional(layers.GRU(2, return_sequences=True, dropout=0.3, seed=5))
         ), SERIES),
    Cell("attention under a mask", attentive, SERIES),
    Cell("embedding, sparse gradients", embedding, TOKENS,
         some_update="tf.IndexedSlices with an index more than once"),
    Cell("embedding, sparse gradients, Adam", lambda: embedding("adam"), TOKENS,
         some_update="tf.IndexedSlices with an index more than once"),
    Cell("a layer of one's own", lambda: classifier(dense(5), Doubling()), fitted()),
    Cell("a weight that is one number, XLA",
         lambda: classifier(dense(5), OneNumber(), jit_compile=True), fitted()),
    Cell("a weight that is one number", lambda: classifier(dense(5), OneNumber()), fitted()),
    Cell("Lambda layer", lambda: classifier(dense(5), layers.Lambda(lambda x: 2.0 * x)), fitted()),
    Cell("an operation between layers",
         lambda: functional(lambda x: dense(3, "softmax")(2.0 * dense(5)(x) + 1.0)), fitted()),
    Cell("an operation without a rule",
         lambda: functional(lambda x: dense(3, "softmax")(ops.erfinv(dense(5, "tanh")(x)))),
         fitted()),
    Cell("a loss of one's own",
         lambda: classifier(last=dense(3), loss=lambda y, p: ops.mean((p - 1.0) ** 2, axis=-1)),
         fitted()),
    Cell("an activation of one's own", lambda: classifier(dense(5, lambda z: z * ops.sigmoid(z))),
         fitted()),
    Cell("an optimizer of one's own", lambda: classifier(optimizer=TwiceTheRate(0.05)), fitted(),
         update=NO_RULE),
    Cell("low-rank adapters (enable_lora)", lora, fitted()),
    Cell("two variables of one path",
         lambda: functional(
             lambda x: dense(3, "softmax")(_same_name()(_same_name()(x)))
         ),
         fitted()),
)  # fmt: skip


def _same_name():
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(4, name="same")(inputs))
