from types import SimpleNamespace

import keras
import numpy as np
import pytest

from gradaudit import keras_compat
from gradaudit.audit import session, single_step
from gradaudit.audit.session import Session
from gradaudit.audit.settings import Settings
from gradaudit.backends import backend_of
from gradaudit.backends.tensorflow import present_config
from gradaudit.errors import GapCode, UnsupportedModelError, UsageError
from gradaudit.records import Gap, StepRecord, StepSpec

RATE = 0.5
X = np.array([[1.0, 2.0], [3.0, -1.0]], np.float32)
Y = np.array([[0.5], [-1.0]], np.float32)


def record(model, step, epoch, **given):
    return StepRecord(
        **{
            "step": step,
            "epoch": epoch,
            "x": None,
            "y": None,
            "sample_weight": None,
            "variables": {v.path: v.value.numpy() for v in model.variables},
            "optimizer_variables": {},
            "variables_after": {},
            "optimizer_variables_after": {},
            "gradients": {},
            "replica_gradients": (),
            "repeating": frozenset(),
            "applications": 0,
            "loss": None,
            "loss_scale": 1.0,
            "learning_rates": (),
            "jit": False,
            "tensorfloat32": False,
            "capture_ms": 0.0,
            **given,
        }
    )


class NoCode:
    """Traces of a backend that cannot trace."""

    def step(self, record):
        raise UnsupportedModelError("there is no code")


class HandMade:
    """A backend for one Dense layer, the mean squared error and SGD: its steps are NumPy's."""

    def __init__(self, factor):
        self.factor = np.float32(factor)  # of the gradients that it applies; 1 is right

    def StepHook(self, model, observer, counter=None):
        def execute(iterator):
            ((x, y, _),) = iterator
            kernel, bias = model.layers[-1].weights
            error = x @ kernel.value.numpy() + bias.value.numpy() - y
            cotangent = self.factor * 2 * error / np.float32(len(x))
            gradients = {kernel.path: x.T @ cotangent, bias.path: cotangent.sum(axis=0)}
            before = {v.path: v.value.numpy() for v in model.optimizer.variables}
            taken = record(
                model,
                step=0,
                epoch=0,
                x=x,
                y=y,
                optimizer_variables=before,
                variables_after={
                    v.path: v.value.numpy() - np.float32(RATE) * gradients[v.path]
                    for v in (kernel, bias)
                },
                optimizer_variables_after={
                    path: value + 1 if path.endswith("iteration") else value
                    for path, value in before.items()
                },
                gradients=gradients,
                replica_gradients=(gradients,),
                applications=1,
                loss=float(np.mean(error**2)),
                learning_rates=(RATE,),
            )
            # Nothing is drawn, and all parts have a rule.
            framework = SimpleNamespace(draw=None, traces=lambda expect: NoCode())
            spec = StepSpec(model, model.optimizer, present_config(), framework, {})
            observer.taken([taken], spec, 0.0)

        def trace(data, iterator):
            keras_compat.build(model, data)

        return SimpleNamespace(trace=trace, execute=execute)

    def uncaptured(self, model, step, epoch):
        return record(model, step, epoch)

    def environment(self, model):
        return {"versions": {"hand": "made"}}


@pytest.fixture
def model():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(RATE), "mse")
    return model


@pytest.mark.parametrize(("factor", "verdict"), [(1, "pass"), (2, "fail")])
def test_a_step_of_any_backend_is_recorded_and_judged(monkeypatch, model, factor, verdict):
    for room in (session, single_step):
        monkeypatch.setattr(room, "backend_of", lambda model: HandMade(factor))
    run = single_step.judged(model, *single_step.recorded(model, X, Y), Settings())
    assert run.verdict == verdict, run.run["unjudged"]
    assert set(run.tensors["stage"]) == {"gradient", "update"}
    assert run.run["versions"] == {"hand": "made"}


def test_a_step_that_a_backend_did_not_record_is_unjudged(monkeypatch, model):
    monkeypatch.setattr(session, "backend_of", lambda model: HandMade(1))
    audit = Session(model, Settings())
    audit.missed(3, 1, Gap(GapCode.CAPTURE, "", "it was not recorded"))
    assert audit.results.verdict == "unjudged"
    assert audit.results.tally.steps == 1
    assert audit.summary()["faults"]["count"] == 0


def test_the_backend_of_keras_decides(monkeypatch, model):
    assert backend_of(model).__name__ == "gradaudit.backends.tensorflow"
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(UsageError, match=r"on 'jax'\. Expected 'tensorflow'"):
        backend_of(model)
