"""What run.json says of the model: code of the user's may fail to describe itself."""

import keras
import numpy as np
import pytest
from keras import layers

import gradaudit
from gradaudit import GradientAudit, load
from gradaudit.backends.tensorflow import environment
from suite import by_default


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Without get_config."""

    def __call__(self, step):
        return 1e-3 * keras.ops.minimum(1.0, (keras.ops.cast(step, "float32") + 1) / 10)


class Described(WarmUp):
    def get_config(self):
        return {"rows": (1, 2)}


class Secretive(keras.optimizers.SGD):
    def get_config(self):
        raise RuntimeError("ask somebody else")


class Circular(keras.optimizers.SGD):
    def get_config(self):
        config = super().get_config()
        return {**config, "itself": config, ("a", "tuple"): 1}


class Uncounted(keras.Model):
    def __init__(self):
        super().__init__(name="uncounted")
        self.out = layers.Dense(1)

    def call(self, x):
        return self.out(x)

    def count_params(self):
        raise ValueError("some are shared")


class Untold(layers.Dense):
    def get_config(self):
        raise KeyError("units")


def net(optimizer="sgd", last=layers.Dense):
    model = keras.Sequential([keras.Input((4,)), last(1)], name="net")
    model.compile(optimizer, "mse")
    return model


def uncounted():
    model = Uncounted()
    model.compile("sgd", "mse")
    return model


MODELS = {
    "a schedule": lambda: net(keras.optimizers.Adam(WarmUp())),
    "a scaled loss": lambda: net(
        keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(WarmUp()))
    ),
    "an optimizer": lambda: net(Secretive(0.1)),
    "not JSON": lambda: net(Circular(0.1)),
    "the number of weights": uncounted,
    "a layer": lambda: net(last=Untold),
}  # fmt: skip


@pytest.mark.parametrize("name", by_default(MODELS, ["a schedule"]))
def test_what_does_not_describe_itself_costs_its_own_line(name, tmp_path, capsys):
    x = np.linspace(-1, 1, 32, dtype=np.float32).reshape(8, 4)
    model = MODELS[name]()
    model.fit(x, x[:, :1], verbose=0, callbacks=[GradientAudit(tmp_path / "run")])
    run = load(tmp_path / "run")
    assert run.run["faults"] == {"count": 0, "tracebacks": []}
    assert "failed" not in capsys.readouterr().err
    assert run.verdict in ("pass", "unjudged")  # the rules of an optimizer are for its very class
    assert {"versions", "device", "precision", "optimizer", "model"} <= run.run.keys()
    assert run.run["optimizer"]["class"] == type(model.optimizer).__name__
    if type(model.optimizer).__module__.startswith("keras"):
        assert run.verdict == "pass"
        assert gradaudit.check(model, x, x[:, :1]).verdict == "pass"


def test_the_line_says_what_is_missing_and_why():
    found = environment(MODELS["a schedule"]())["optimizer"]
    assert (found["class"], found["learning_rate"]) == ("Adam", "WarmUp")
    assert found["configuration"].startswith("missing: NotImplementedError: Learning rate schedule")
    found = environment(MODELS["a scaled loss"]())["optimizer"]
    assert (found["class"], found["learning_rate"]) == ("LossScaleOptimizer", "WarmUp")
    found = environment(MODELS["an optimizer"]())["optimizer"]
    assert found == {
        "class": "Secretive", "configuration": "missing: RuntimeError: ask somebody else"
    }  # fmt: skip
    assert environment(MODELS["not JSON"]())["optimizer"]["configuration"].startswith("missing: ")
    model = uncounted()
    model(np.ones((1, 4)))
    assert environment(model)["model"]["weights"] == "missing: ValueError: some are shared"


def test_what_describes_itself_is_described():
    found = environment(net(keras.optimizers.Adam(Described())))["optimizer"]
    assert found["class"] == "Adam"
    assert found["learning_rate"]["config"] == {"rows": [1, 2]}
    assert found["beta_1"] == 0.9
    assert "configuration" not in found
    found = environment(net(keras.optimizers.SGD(0.25)))
    assert found["optimizer"]["learning_rate"] == 0.25
    assert found["model"]["weights"] == 5
