"""What cannot be derived is told in words, and no model makes the telling fail."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from gradaudit.backends.tensorflow import Replay, specified
from gradaudit.reference.coverage import coverage

X, Y = np.ones((4, 3), "float32"), np.ones((4, 2), "float32")


def gaps_of(model):
    """Return why a step of a model is not derived, in sentences."""
    found = coverage(specified(model, Replay(jit=False)))
    return [gap.message for gap in (*found.step, *found.model)]


def trained(model, x=X, y=Y, loss="mse", **options):
    model.compile("sgd", loss, **options)
    model.fit(x, y, verbose=0)
    return model


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner = layers.Dense(2)

    def call(self, x):
        return self.inner(x["a"] if isinstance(x, dict) else x)


class OwnStep(keras.Model):
    def train_step(self, data):
        return {"loss": 0.0}


class OwnLoss(keras.Model):
    def compute_loss(self, *args, **kwargs):
        return super().compute_loss(*args, **kwargs)


class OwnCall(keras.Sequential):
    def call(self, x):
        return 2 * super().call(x)


class Adding(layers.Layer):
    def call(self, x):
        self.add_loss(ops.sum(x))
        return x


def functional(*middle, kind=keras.Model, **options):
    x = inputs = keras.Input((3,), **options)
    for layer in middle:
        x = layer(x)
    return kind(inputs, layers.Dense(2, name="last")(x))


def doubled(w):
    return 2 * ops.sum(w)


def squares(y_true, y_pred):
    return ops.mean(ops.square(y_pred - y_true), axis=-1)


class Referenced(keras.losses.Circle):
    def __init__(self):
        super().__init__()
        self._fn_kwargs["ref_labels"] = np.zeros(4)


class Unknown(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return squares(y_true, y_pred)


def several():
    model = keras.Model(
        inputs := keras.Input((3,)), [layers.Dense(2, name=n)(inputs) for n in "ab"]
    )
    weights = [keras.Variable(0.5), 1.0]
    return trained(model, y=[Y, Y], loss=[Unknown(name="mine"), "mse"], loss_weights=weights)


def whole_structure():
    class Both(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return ops.mean(ops.square(y_pred["a"] + y_pred["b"] - y_true["a"]), axis=-1)

    inputs = keras.Input((3,))
    outputs = {name: layers.Dense(2, name=name)(inputs) for name in "ab"}
    return trained(keras.Model(inputs, outputs), y={"a": Y, "b": Y}, loss=[Both()])


GAPS = {
    "subclassed": (lambda: trained(Subclassed()), "(Subclassed) is neither Sequential nor"),
    "dicts": (lambda: trained(Subclassed(), {"a": X}), "(Subclassed) is neither Sequential nor"),
    "never built": (lambda: Subclassed(), "(Subclassed) is neither Sequential nor functional"),
    "own train_step": (lambda: trained(functional(kind=OwnStep)), "the model overrides train_step"),
    "own loss": (lambda: trained(functional(kind=OwnLoss)), "the model overrides compute_loss"),
    "own call": (lambda: trained(OwnCall([layers.Dense(2)])), "(OwnCall) is neither Sequential"),
    "add_loss": (lambda: trained(functional(Adding(name="adds"))), "'adds' (Adding) adds losses"),
    "an operation": (lambda: functional(ops.erfinv), "the operation 'erfinv' (Erfinv) has no"),
    "a lambda": (lambda: functional(layers.Lambda(ops.sin, name="f")), "'f' (Lambda) has no"),
    "activation": (lambda: functional(layers.Dense(2, activation=ops.sin)), "has the activation"),
    "sparse": (lambda: functional(sparse=True), "is sparse"),
    "optional": (lambda: functional(optional=True), "is optional"),
    "no weights": (
        lambda: keras.Model(i := keras.Input((3,)), layers.Activation("tanh")(i)),
        "no trainable weights",
    ),
    "regularizer": (
        lambda: functional(layers.Dense(2, name="d", kernel_regularizer=doubled)),
        "the weight 'd/kernel' has the regularizer",
    ),
    "activity": (
        lambda: functional(layers.Dense(2, name="d", activity_regularizer=doubled)),
        "the layer 'd' (Dense) has the activity regularizer",
    ),
    "a loss": (lambda: trained(functional(), loss=squares), "the loss 'squares' (Loss"),
    "one of several losses": (several, "the loss 'mine' (Unknown) of the output 'a' has no"),
    "a loss weight": (several, "not a number"),
    "structure": (whole_structure, "takes several outputs at once"),
    "an option": (
        lambda: trained(
            functional(layers.Activation("softmax")), y=np.arange(4) % 2, loss=Referenced()
        ),
        "has ref_labels, which its rule does not know",
    ),
}


@pytest.mark.parametrize("case", GAPS)
def test_a_gap_is_told_in_words(case):
    make, told = GAPS[case]
    model = make()
    gaps = gaps_of(model)
    assert any(told in gap for gap in gaps), gaps
    assert len(set(gaps)) == len(gaps)


def unbuilt():
    model = keras.Sequential([layers.Dense(2)])
    model.compile("sgd", "mse")
    return model


def with_two_outputs():
    inputs = keras.Input((3,))
    return trained(keras.Model(inputs, [layers.Dense(2)(inputs)] * 2), y=[Y, Y])


@pytest.mark.parametrize(
    "make",
    [
        unbuilt,
        functional,
        with_two_outputs,
        lambda: keras.Sequential([layers.Dense(2)]),
        lambda: trained(keras.Sequential([layers.Dense(2)])),
        lambda: trained(functional(layers.Dense(3, kernel_regularizer="l1"))),
        lambda: trained(keras.Sequential([functional(), layers.Dense(2)])),
    ],
)
def test_what_can_be_derived_has_no_gaps(make):
    model = make()
    assert gaps_of(model) == []
