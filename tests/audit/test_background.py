"""Steps judged by worker processes beside the training: the same tables, whatever happens."""

import os
import signal
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from gradaudit import GradientAudit, load
from gradaudit.audit import background
from gradaudit.errors import DataError, UsageError

STEPS = 8


class Squashed(layers.Layer):
    """A layer without a derived rule."""

    def call(self, x):
        return x / (1 + ops.abs(x))


@tf.custom_gradient
def doubled(x):
    return tf.identity(x), lambda dy: 2 * dy


class Doubled(layers.Dense):
    """Its gradient is twice what it should be."""

    def call(self, x):
        return doubled(super().call(x))


class AtBatch(keras.callbacks.Callback):
    """Does something before a batch."""

    def __init__(self, batch, do):
        super().__init__()
        self.batch, self.do = batch, do

    def on_train_batch_begin(self, batch, logs=None):
        if batch == self.batch:
            self.do()


def _fit(folder, *more, callbacks=(), **options):
    """Return the report of a training of a small net, and its weights."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    parts = [layers.Dense(6, "relu"), layers.Dropout(0.2, seed=1), *more, layers.Dense(3)]
    model = keras.Sequential([keras.Input((5,)), *parts])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((STEPS * 4, 5))
    y = rng.integers(0, 3, STEPS * 4)
    audit = GradientAudit(folder, verbose=0, **options)
    made = [each(audit) for each in callbacks]
    try:
        model.fit(x, y, 4, shuffle=False, verbose=0, callbacks=[*made, audit])
    finally:
        workers = audit._session._background
        assert workers is None or not workers._workers
        run = load(folder)
    return run, model.get_weights()


def _tables(run):
    """Return the tables without times."""
    timed = [name for name in run.steps if name.endswith("_ms")]
    return run.steps.drop(columns=timed), run.tensors, run.weights


def _first_pid(audit):
    return audit._session._background._workers[0]._process.pid


@pytest.fixture
def folders(monkeypatch, tmp_path):
    """The folders that a test shares with its workers."""
    monkeypatch.setattr(background, "_SHARED", tmp_path / "none")
    monkeypatch.setattr(background.tempfile, "tempdir", str(tmp_path))
    return lambda: list(tmp_path.glob("gradaudit-*"))


def test_the_tables_and_the_weights_are_those_of_an_audit_within_the_training(tmp_path, folders):
    within, weights = _fit(tmp_path / "within", sigma="always")
    beside, others = _fit(tmp_path / "beside", sigma="always", background=1)
    for one, other in zip(_tables(within), _tables(beside), strict=True):
        assert one.equals(other)
    for one, other in zip(weights, others, strict=True):
        np.testing.assert_array_equal(one, other)
    assert beside.run["options"]["background"] == 1
    assert folders() == []


@pytest.mark.long
def test_what_two_workers_judge_does_not_depend_on_how_fast_they_are(tmp_path):
    first, _ = _fit(tmp_path / "first", background=2)
    pause = lambda audit: AtBatch(4, lambda: audit._session._background.first)  # noqa: E731
    again, _ = _fit(tmp_path / "again", background=2, callbacks=[pause])
    assert first.steps["judged_by"].tolist() == ["sigma"] * 2 + ["bound"] * (STEPS - 2)
    for one, other in zip(_tables(first), _tables(again), strict=True):
        assert one.equals(other)


@pytest.mark.long
def test_a_worker_that_is_killed_loses_nothing(tmp_path):
    kill = lambda audit: AtBatch(5, lambda: os.kill(_first_pid(audit), 9))  # noqa: E731
    run, _ = _fit(tmp_path / "run", background=2, callbacks=[kill])
    assert run.steps["step"].tolist() == list(range(STEPS))
    assert set(run.steps["verdict"]) == {"pass"}
    assert run.run["faults"]["count"] == 0


@pytest.mark.long
def test_a_step_whose_workers_end_again_and_again_is_unjudged(tmp_path, monkeypatch):
    monkeypatch.setattr(background, "_MOST_STARTS", 1)
    kill = lambda audit: AtBatch(5, lambda: os.kill(_first_pid(audit), 9))  # noqa: E731
    run, _ = _fit(tmp_path / "run", background=1, callbacks=[kill])
    assert run.steps["step"].tolist() == list(range(STEPS))
    assert run.steps["verdict"].value_counts().to_dict() == {"pass": STEPS - 1, "unjudged": 1}
    assert "ended twice" in run.run["faults"]["tracebacks"][0]
    assert run.verdict == "unjudged"


@pytest.mark.long
def test_nothing_is_lost_at_a_ctrl_c(tmp_path):
    press = lambda audit: AtBatch(6, lambda: signal.raise_signal(signal.SIGINT))  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        _fit(tmp_path / "run", background=2, callbacks=[press])
    run = load(tmp_path / "run")
    assert run.verdict == "interrupted"
    assert run.steps["step"].tolist() == list(range(6))
    assert set(run.steps["verdict"]) == {"pass"}


@pytest.mark.long
def test_code_without_a_rule_is_judged_within_the_training_and_in_its_place(tmp_path):
    within, _ = _fit(tmp_path / "within", Squashed(), sigma="always")
    beside, _ = _fit(tmp_path / "beside", Squashed(), sigma="always", background=2)
    assert beside.verdict == "pass"
    for one, other in zip(_tables(within), _tables(beside), strict=True):
        assert one.equals(other)


@pytest.mark.long
@pytest.mark.parametrize("on_fail", ["record", "stop"])
def test_a_wrong_gradient_is_found(tmp_path, on_fail):
    run, _ = _fit(tmp_path / "run", Doubled(4, name="wrong"), background=1, on_fail=on_fail)
    assert run.verdict == "fail"
    assert "the custom gradient of 'doubled' in wrong" in run.run["failures"][0]
    steps = run.run["coverage"]["steps_trained"]
    assert steps == len(run.steps)
    assert (steps == STEPS) is (on_fail == "record")


@pytest.mark.long
def test_a_fault_in_a_worker_is_one_of_the_auditor(tmp_path, monkeypatch):
    right = background.present_backend().write_step

    def broken(path, record, spec):
        right(path, record, spec)
        if record.step == 2:
            Path(path).write_bytes(b"no step")

    monkeypatch.setattr("gradaudit.backends.tensorflow.write_step", broken)
    run, _ = _fit(tmp_path / "run", background=1)
    assert run.steps.set_index("step")["verdict"].to_dict()[2] == "unjudged"
    assert run.steps["verdict"].value_counts()["pass"] == STEPS - 1
    (told,) = run.run["faults"]["tracebacks"]
    assert "cannot be read as a recorded step" in told
    assert "in a worker process" in told


@pytest.mark.long
def test_a_step_that_no_file_holds_is_judged_within_the_training(tmp_path, monkeypatch):
    right = background.present_backend().write_step

    def refusing(path, record, spec):
        if record.step == 3:
            raise DataError("an array of Python objects")
        right(path, record, spec)

    monkeypatch.setattr("gradaudit.backends.tensorflow.write_step", refusing)
    run, _ = _fit(tmp_path / "run", background=1)
    assert run.steps["step"].tolist() == list(range(STEPS))
    assert set(run.steps["verdict"]) == {"pass"}


def test_arguments_that_do_not_fit_together_are_refused(tmp_path):
    with pytest.raises(UsageError, match="background is -1"):
        GradientAudit(tmp_path, background=-1)
    with pytest.raises(UsageError, match="mode is 'record'"):
        GradientAudit(tmp_path, background=1, mode="record")
