from types import SimpleNamespace

import keras
import numpy as np
import pytest

from gradaudit.backends import StepCounter
from gradaudit.backends.patch import patch, patched
from gradaudit.backends.tensorflow import StepHook
from gradaudit.backends.tensorflow import hook as hooking


class Owner:
    def method(self):
        return "own"


def test_a_patch_is_undone_to_what_was_there():
    owner = Owner()
    undo = patch(owner, "method", lambda: "first")
    with patched(owner, "method", lambda: "second"):
        assert owner.method() == "second"
    assert owner.method() == "first"
    undo()
    assert vars(owner) == {}
    assert owner.method() == "own"


def test_a_patch_is_undone_after_an_exception():
    owner = Owner()
    with pytest.raises(KeyError), patched(owner, "method", None):
        raise KeyError
    assert vars(owner) == {}


class Kept:
    """An observer that notes what it is told."""

    def __init__(self):
        self.told = []

    def taken(self, records, spec, apart):
        self.told.append(("taken", [(r.step, r.epoch, r.capture_ms) for r in records]))

    def missed(self, step, epoch, gap):
        self.told.append(("missed", step, epoch, gap))

    def failed(self, error, doing):
        self.told.append(("failed", doing))
        return "gap"

    def executed(self, seconds):
        self.told.append(("executed", seconds))


@pytest.fixture
def model():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.make_train_function()
    return model


def batch():
    return np.ones((4, 2), np.float32), np.ones((4, 1), np.float32)


def test_a_step_is_handed_over_with_its_number_and_keras_s_function_is_back(model):
    own, kept, counter = model.train_function, Kept(), StepCounter()
    counter.epoch = 3
    counter.begin_execution(7)
    hook = StepHook(model, kept, counter)
    assert hook.arm()
    assert not StepHook(model, Kept(), counter).arm()
    model.train_function(iter([batch()]))
    assert model.train_function is own
    (_, [(step, epoch, milliseconds)]), (executed, seconds) = kept.told
    assert (step, epoch, executed) == (7, 3, "executed")
    assert 0 < milliseconds <= seconds * 1e3


def test_all_that_a_capture_takes_is_in_its_time(model, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    clock.perf_counter = lambda: clock.now
    monkeypatch.setattr(hooking, "time", clock)

    def slow(right, seconds):
        def call(*args, **kwargs):
            clock.now += seconds
            return right(*args, **kwargs)

        return call

    monkeypatch.setattr(hooking, "peeked", slow(hooking.peeked, 1))
    for name, seconds in {"trace": 2, "run": 4, "records": 8}.items():
        right = getattr(hooking.Capture, name)
        monkeypatch.setattr(hooking.Capture, name, slow(right, seconds))
    kept = Kept()
    hook = StepHook(model, kept)
    assert hook.arm()
    model.train_function(iter([batch()]))
    assert kept.told == [("taken", [(0, 0, 15_000.0)]), ("executed", 15.0)]


def test_a_step_that_cannot_be_traced_is_missed_and_trains(model, monkeypatch):
    def broken(*args):
        raise RuntimeError

    monkeypatch.setattr(hooking.Capture, "trace", broken)
    before, kept = model.get_weights(), Kept()
    hook = StepHook(model, kept)
    hook.arm()
    model.train_function(iter([batch()]))
    assert kept.told == [("failed", "capturing step 0"), ("missed", 0, 0, "gap")]
    assert not np.array_equal(before[0], model.get_weights()[0])


def test_a_function_that_somebody_else_put_in_place_is_left_there(model):
    hook = StepHook(model, Kept())
    hook.arm()
    model.train_function = other = lambda iterator: {}
    hook.disarm()
    assert model.train_function is other


def test_steps_are_numbered_over_epochs_and_executions_that_end_early():
    counter = StepCounter()
    for first, last in ((0, 3), (4, 7)):
        counter.begin_execution(first)
        counter.end_execution(last)
    assert (counter.step, counter.trained) == (4, 8)
    counter.begin_execution(8)
    counter.end_data(2)  # 10 steps in this epoch
    counter.end_execution(11)
    assert counter.trained == 10
    counter.end_epoch()
    counter.begin_execution(0)
    assert counter.step == 10
    assert counter.steps(4) == 4
    counter.end_execution(3)
    assert counter.trained == 14
