"""Twelve nets with code that users write themselves: layers, losses, loops, straight-through.

Each goes through `line` at one place: `right` hands a tensor on, `wrong` makes that line's gradient
a hundredth too large. NETS maps a name to (build, the layer in which the line stands).
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops


def right(x):
    return x


@tf.custom_gradient
def wrong(x):
    return tf.identity(x), lambda dx: 1.01 * dx


def outside(x):
    """Leave the graph for Python code that knows of float32 alone: nothing can be said of it."""
    return tf.ensure_shape(
        tf.py_function(lambda t: tf.cast(2 * t, "float32"), [x], x.dtype), x.shape
    )


def _data(*shape, outputs=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((16, *shape)).astype(np.float32), rng.standard_normal(
        (16, outputs)
    ).astype(np.float32)


def _chain(shape, *middle, loss="mse", outputs=2):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input(shape), layers.Dense(6, name="before"), *middle, layers.Dense(outputs)]
    )
    model.compile("sgd", loss)
    return model


class GatedResidual(layers.Layer):
    def __init__(self, line):
        super().__init__(name="gated")
        self.line, self.inner, self.gate = line, layers.Dense(6, "tanh"), layers.Dense(6, "sigmoid")

    def call(self, x):
        g = self.gate(x)
        y = self.line(x + g * self.inner(x))
        return tf.where(y > 0, y, 0.1 * y)


def gated_residual(line):
    return _chain((4,), GatedResidual(line)), *_data(4)


class SoftTopK(layers.Layer):
    """Weighs the k largest by a softmax of their values."""

    def __init__(self, line):
        super().__init__(name="top_k")
        self.line = line

    def call(self, x):
        largest, _ = tf.math.top_k(x, k=3)
        return self.line(tf.nn.softmax(largest / 0.5)) * largest


def differentiable_top_k(line):
    return _chain((4,), SoftTopK(line)), *_data(4)


class MaskedSoftmax(layers.Layer):
    def __init__(self, line):
        super().__init__(name="masked_softmax")
        self.line = line

    def call(self, x):
        scores = tf.einsum("bid,bjd->bij", x, x) / 2.0
        allowed = tf.linalg.band_part(tf.ones_like(scores), -1, 0)
        scores = tf.where(allowed > 0, scores, -float("inf"))
        return tf.matmul(self.line(tf.nn.softmax(scores)), x)


def masked_softmax(line):
    x, _ = _data(5, 4)
    return _chain((5, 4), MaskedSoftmax(line), layers.Flatten()), x, _data(1)[1]


class RadialBasis(layers.Layer):
    def __init__(self, line):
        super().__init__(name="rbf")
        self.line = line

    def build(self, shape):
        self.centres = self.add_weight(shape=(5, shape[-1]), name="centres")
        self.log_width = self.add_weight(shape=(5,), initializer="zeros", name="log_width")

    def call(self, x):
        squares = tf.reduce_sum((x[:, None, :] - self.centres) ** 2, axis=-1)
        return tf.exp(self.line(-squares * tf.exp(self.log_width)))


def radial_basis(line):
    return _chain((4,), RadialBasis(line)), *_data(4)


class NeuralODE(layers.Layer):
    """Euler steps of dx/dt = tanh(x W), in a loop."""

    def __init__(self, line):
        super().__init__(name="ode")
        self.line, self.field = line, layers.Dense(6, "tanh")

    def build(self, shape):
        self.field.build(shape)

    def call(self, x):
        _, y = tf.while_loop(
            lambda step, _: step < 7,
            lambda step, y: (step + 1, y + 0.1 * self.line(self.field(y))),
            (tf.constant(0), x),
            maximum_iterations=7,
        )
        return y


def neural_ode(line):
    return _chain((4,), NeuralODE(line)), *_data(4)


class SpectrallyNormalized(layers.Layer):
    """A kernel divided by its largest singular value, after one round of power iteration."""

    def __init__(self, line):
        super().__init__(name="spectral")
        self.line = line

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 5), name="kernel")
        self.u = self.add_weight(shape=(1, 5), initializer="ones", trainable=False, name="u")

    def call(self, x):
        v = tf.math.l2_normalize(tf.matmul(self.u.value, self.kernel, transpose_b=True))
        u = tf.math.l2_normalize(tf.matmul(v, self.kernel))
        u, v = tf.stop_gradient(u), tf.stop_gradient(v)
        self.u.assign(u)
        sigma = tf.squeeze(tf.matmul(tf.matmul(v, self.kernel), u, transpose_b=True))
        return tf.matmul(x, self.line(self.kernel / sigma))


def spectral_normalization(line):
    return _chain((4,), SpectrallyNormalized(line)), *_data(4)


def contrastive_loss(line):
    """Rows of a batch beside their partners: the distance of pairs, a margin for the others."""

    def contrastive(y_true, y_pred):
        partner = tf.cast(y_true[:, 0], tf.int32)
        other = tf.gather(y_pred, partner)
        distance = tf.sqrt(tf.reduce_sum((y_pred - other) ** 2, axis=-1) + 1e-6)
        same = y_true[:, 1]
        apart = tf.nn.relu(2.0 - line(distance))
        return same * distance**2 + (1.0 - same) * apart**2

    rng = np.random.default_rng(0)
    y = np.stack([(np.arange(16) + 5) % 16, rng.integers(0, 2, 16)], axis=-1).astype(np.float32)
    return _chain((4,), layers.Dense(4, "tanh"), loss=contrastive), _data(4)[0], y


def mixture_density_loss(line):
    """−log Σ π N(y; μ, σ) of three Gaussians."""

    def mixture(y_true, y_pred):
        logits, mean, log_scale = tf.split(y_pred, 3, axis=-1)
        z = (y_true - mean) * tf.exp(-log_scale)
        log_p = tf.nn.log_softmax(logits) - log_scale - 0.5 * z**2 - 0.5 * np.log(2 * np.pi)
        return -tf.reduce_logsumexp(line(log_p), axis=-1)

    x, y = _data(4)
    return _chain((4,), layers.Dense(8, "tanh"), loss=mixture, outputs=9), x, y[:, :1]


class Mapped(layers.Layer):
    def __init__(self, line):
        super().__init__(name="mapped")
        self.line = line

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 3), name="w")

    def call(self, x):
        def of_step(step):
            return self.line(tf.nn.softplus(tf.matmul(step, self.w)))

        return tf.transpose(tf.map_fn(of_step, tf.transpose(x, (1, 0, 2))), (1, 0, 2))


def map_fn_over_a_sequence(line):
    x, _ = _data(5, 4)
    return _chain((5, 4), Mapped(line), layers.Flatten()), x, _data(1)[1]


class Quantiser(layers.Layer):
    """Rounds to quarters on the way forward, and lets gradients through."""

    def __init__(self, line):
        super().__init__(name="quantiser")
        self.line = line

    def call(self, x):
        return self.line(x + tf.stop_gradient(tf.round(4.0 * x) / 4.0 - x))


def straight_through_quantiser(line):
    return _chain((4,), Quantiser(line)), *_data(4)


@tf.custom_gradient
def log1pexp(x):
    """The example of TensorFlow's own guide: a gradient that is right, and stable."""
    e = tf.exp(x)
    return tf.math.log(1 + e), lambda dy: dy * (1 - 1 / (1 + e))


class Own(layers.Layer):
    def __init__(self, line):
        super().__init__(name="own")
        self.line = line

    def call(self, x):
        return self.line(log1pexp(x))


def own_custom_gradient(line):
    return _chain((4,), Own(line)), *_data(4)


class Translator(keras.Model):
    """An encoder and a decoder that attends to it."""

    def __init__(self, line):
        super().__init__(name="translator")
        self.line = line
        self.encoder = layers.GRU(6, return_sequences=True)
        self.decoder = layers.LSTM(6, return_sequences=True)
        self.attention = layers.Attention()
        self.norm, self.head = layers.LayerNormalization(), layers.Dense(2)

    def call(self, x, training=False):
        memory = self.encoder(x)
        state = self.decoder(x[:, ::-1])
        attended = self.line(self.attention([state, memory]))
        return self.head(ops.mean(self.norm(state + attended), axis=1))


def encoder_decoder(line):
    keras.utils.set_random_seed(1)
    model = Translator(line)
    model.compile("sgd", "mse")
    x, y = _data(5, 4)
    model(x)
    return model, x, y


NETS = {
    "gated residual block": (gated_residual, "gated"),
    "differentiable top-k": (differentiable_top_k, "top_k"),
    "masked softmax": (masked_softmax, "masked_softmax"),
    "radial basis functions": (radial_basis, "rbf"),
    "neural ODE": (neural_ode, "ode"),
    "spectral normalization": (spectral_normalization, "spectral"),
    "contrastive loss": (contrastive_loss, "contrastive"),
    "mixture density loss": (mixture_density_loss, "mixture"),
    "map_fn": (map_fn_over_a_sequence, "mapped"),
    "straight-through quantiser": (straight_through_quantiser, "quantiser"),
    "custom gradient": (own_custom_gradient, "own"),
    "encoder and decoder": (encoder_decoder, "translator"),
}
