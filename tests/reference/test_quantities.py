"""The numbers of a step by name, and what becomes of them where some are given."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

from gradaudit.audit.single_step import recorded
from gradaudit.backends.tensorflow import Replay, present_config
from gradaudit.errors import UnknownNameError, UnsupportedModelError
from gradaudit.nets.precision import floats
from gradaudit.reference import Quantities

X = np.array([[0.5, -1.0, 2.0], [1.0, 0.25, -0.5]])
Y = np.array([[1.0, 0.0], [0.0, 1.0]])


def net(stack, rows=2, loss="categorical_crossentropy", optimizer=None):
    """Return a compiled net in float64 and the record of a step of it."""
    with floats("float64"):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((3,)), *stack()], name="net")
        model.compile(optimizer or keras.optimizers.SGD(0.5), loss)
        return model, recorded(model, X[:rows], Y[:rows])[0]


def two_layers():
    return layers.Dense(4, "tanh", name="first"), layers.Dense(2, "softmax", name="second")


class Step:
    """The quantities of a step, by name."""

    def __init__(self, model, record, **given):
        plain = Quantities(model, record, Replay(False), present_config())
        named = {plain.find(name): np.asarray(value) for name, value in given.items()}
        self.quantities = Quantities(model, record, Replay(False), present_config(), named)

    def __getitem__(self, name):
        return self.quantities[self.quantities.find(name)].value


def test_every_quantity_of_two_layers_is_that_of_the_textbook():
    model, record = net(two_layers)
    w1, b1, w2, b2 = (np.array(v.value.numpy()) for v in model.weights)
    step = Step(model, record)
    a1 = X @ w1 + b1
    h1 = np.tanh(a1)
    z = h1 @ w2 + b2
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    da2 = (p - Y) / 2
    dh1 = da2 @ w2.T
    da1 = dh1 * (1 - h1**2)
    expected = {
        "input": X, "target": Y, "kernel_1": w1, "bias_second": b2, "preactivation_1": a1,
        "activation_first": h1, "tanh_derivative_1": 1 - h1**2, "preactivation_2": z, "logit": z,
        "probability": p, "output": p, "loss": -np.log(p[Y == 1]).mean(), "dlogit": da2,
        "dpreactivation_2": da2, "dkernel_2": h1.T @ da2, "dbias_2": da2.sum(axis=0),
        "dactivation_1": dh1, "dpreactivation_1": da1, "dkernel_1": X.T @ da1,
        "dbias_first": da1.sum(axis=0), "learning_rate": 0.5,
        "updated_kernel_1": w1 - 0.5 * (X.T @ da1), "updated_bias_2": b2 - 0.5 * da2.sum(axis=0),
    }  # fmt: skip
    for name, value in expected.items():
        np.testing.assert_allclose(step[name], value, rtol=1e-12, atol=1e-15, err_msg=name)


def test_one_row_is_without_its_axis_and_one_layer_without_its_number():
    model, record = net(lambda: [layers.Dense(2, "sigmoid", name="only")], rows=1, loss="mse")
    step = Step(model, record)
    assert step["kernel"].shape == (3, 2)
    assert step["dbias"].shape == step["preactivation"].shape == step["input"][:2].shape == (2,)
    assert step["sigmoid_derivative"] == pytest.approx(step["output"] * (1 - step["output"]))


def test_a_layer_without_weights_has_no_number():
    model, record = net(
        lambda: [layers.Dense(2, name="a"), layers.Activation("relu", name="r")], loss="mse"
    )
    names = Step(model, record).quantities.names
    assert {"relu_derivative_r", "activation_r", "kernel_1", "kernel", "dactivation_a"} <= set(
        names
    )
    assert not {"activation_2", "softmax_derivative_r"} & set(names)


@pytest.mark.parametrize("name", ["dtarget", "kernel_3", "dloss", "dlearning_rate", "dinput", ""])
def test_an_unknown_name_is_told(name):
    model, record = net(two_layers)
    with pytest.raises(UnknownNameError, match="there is no quantity"):
        Step(model, record)[name]


def test_what_is_given_takes_effect_on_all_that_follows_and_on_nothing_before():
    model, record = net(two_layers, rows=1)
    plain = Step(model, record)
    w2 = plain["kernel_2"]
    for given in (
        {"activation_1": [0.5, -0.5, 0.25, 0.0]},
        {"preactivation_1": np.arctanh([0.5, -0.5, 0.25, 0.0])},
    ):
        step = Step(model, record, **given)
        h1 = np.array([0.5, -0.5, 0.25, 0.0])
        assert step["preactivation_2"] == pytest.approx(h1 @ w2 + plain["bias_2"])
        assert step["tanh_derivative_1"] == pytest.approx(1 - h1**2)
        assert step["dkernel_2"] == pytest.approx(np.outer(h1, step["dlogit"]))
        assert np.array_equal(step["input"], plain["input"])
    step = Step(model, record, probability=[0.7, 0.3])
    assert step["dlogit"] == pytest.approx([-0.3, 0.3])
    assert np.array_equal(step["activation_1"], plain["activation_1"])
    step = Step(model, record, dactivation_1=[1.0, 2.0, 3.0, 4.0])
    slope = plain["tanh_derivative_1"]
    assert step["dpreactivation_1"] == pytest.approx(slope * [1.0, 2.0, 3.0, 4.0])
    assert np.array_equal(step["dkernel_2"], plain["dkernel_2"])
    step = Step(model, record, kernel_2=np.zeros((4, 2)), learning_rate=2.0)
    assert step["probability"] == pytest.approx([0.5, 0.5])
    assert step["updated_kernel_2"] == pytest.approx(-2.0 * step["dkernel_2"])
    step = Step(model, record, dkernel_2=np.ones((4, 2)), learning_rate=2.0)
    assert step["updated_kernel_2"] == pytest.approx(w2 - 2.0)


def test_single_numbers_may_be_given():
    model, record = net(two_layers, rows=1)
    plain = Step(model, record)
    step = Step(model, record, activation_1=[np.nan, 0.25, np.nan, np.nan])
    expected = [plain["activation_1"][0], 0.25, *plain["activation_1"][2:]]
    assert step["activation_1"] == pytest.approx(expected, rel=1e-12)


def test_what_is_not_known_makes_what_follows_unknown():
    model, record = net(two_layers, rows=1)
    step = Step(model, record, target=[np.nan, np.nan])
    assert np.isfinite(step["probability"]).all()  # NaN in `given` means: as in the step
    step = Step(model, replace(record, y=np.full((1, 2), np.nan)))
    assert np.isfinite(step["probability"]).all()
    assert np.isnan(step["loss"])
    assert np.isnan(step["dkernel_1"]).all()
    step = Step(model, replace(record, y=np.full((1, 2), np.nan)), target=[0.0, 1.0])
    assert np.isfinite(step["dkernel_1"]).all()
    unknown = record.variables | {"net/first/kernel": np.full((3, 4), np.nan)}
    step = Step(model, replace(record, variables=unknown))
    assert np.isnan(step["loss"])
    assert np.isfinite(step["kernel_2"]).all()


def test_the_cotangent_of_probabilities_is_not_known_where_the_loss_takes_logits():
    model, record = net(two_layers, rows=1)
    assert np.isnan(Step(model, record)["doutput"]).all()
    step = Step(model, record, doutput=[-2.0, 0.0])
    p = step["probability"]
    assert step["dlogit"] == pytest.approx(p * ([-2.0, 0.0] - (p * [-2.0, 0.0]).sum()))


def test_an_optimizer_s_own_update_is_made():
    model, record = net(two_layers, optimizer=keras.optimizers.Adam(0.25))
    step = Step(model, record)
    moved = step["updated_kernel_1"] - step["kernel_1"]
    assert np.abs(moved) == pytest.approx(np.full(moved.shape, 0.25), rel=1e-3)


def test_a_model_with_a_gap_is_told():
    model, record = net(
        lambda: [layers.Dense(2), layers.Lambda(lambda x: 2 * x, name="mine")], loss="mse"
    )
    with pytest.raises(UnsupportedModelError, match=r"'mine' .* has no derived rule"):
        Quantities(model, record, Replay(False), present_config())
