"""Steps judged by worker processes beside the training: the same tables, whatever happens."""

import errno
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from gradaudit import GradientAudit, load
from gradaudit.audit import background, worker
from gradaudit.errors import AuditFailure, DataError, UsageError

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


def _worker(audit):
    return audit._session._background._workers[0]


def _signal(number):
    """Return what sends a signal to the first worker."""
    return lambda audit: os.kill(_worker(audit)._process.pid, number)


def _at(batch, do):
    return lambda audit: AtBatch(batch, lambda: do(audit))


def _stopped(then):
    """Return callbacks: the first worker stops while it has a step, and gets a signal later."""

    def stop(audit):
        _signal(signal.SIGSTOP)(audit)
        threading.Timer(2, _signal(then), (audit,)).start()

    return [_at(4, stop)]


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
    again, _ = _fit(tmp_path / "again", background=2, callbacks=_stopped(signal.SIGCONT))
    assert first.steps["judged_by"].tolist() == ["sigma"] * 2 + ["bound"] * (STEPS - 2)
    for one, other in zip(_tables(first), _tables(again), strict=True):
        assert one.equals(other)


@pytest.mark.long
def test_a_worker_that_is_killed_loses_nothing(tmp_path, monkeypatch):
    started = []
    right = background._Worker.start
    monkeypatch.setattr(background._Worker, "start", lambda self: started.append(right(self)))
    run, _ = _fit(tmp_path / "run", background=2, callbacks=_stopped(signal.SIGKILL))
    assert len(started) == 3
    assert run.steps["step"].tolist() == list(range(STEPS))
    assert set(run.steps["verdict"]) == {"pass"}
    assert run.run["faults"]["count"] == 0


@pytest.mark.long
def test_a_step_whose_workers_end_again_and_again_is_unjudged(tmp_path, monkeypatch):
    monkeypatch.setattr(background, "_MOST_STARTS", 1)
    run, _ = _fit(tmp_path / "run", background=1, callbacks=_stopped(signal.SIGKILL))
    assert run.steps["step"].tolist() == list(range(STEPS))
    assert run.steps["verdict"].value_counts().to_dict() == {"pass": STEPS - 1, "unjudged": 1}
    assert "with the code -9; it may lack memory" in run.run["faults"]["tracebacks"][0]
    assert run.verdict == "unjudged"


@pytest.mark.long
def test_nothing_is_lost_at_a_ctrl_c(tmp_path):
    press = _at(6, lambda audit: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        _fit(tmp_path / "run", background=2, callbacks=[press])
    run = load(tmp_path / "run")
    assert run.verdict == "interrupted"
    assert run.steps["step"].tolist() == list(range(6))
    assert set(run.steps["verdict"]) == {"pass"}


@pytest.mark.long
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_while_the_training_waits_for_a_worker(tmp_path, times):
    """Its worker has stopped, and goes on after the first Ctrl-C, or not at all."""

    def wait_in_vain(audit):
        _signal(signal.SIGSTOP)(audit)
        press = [
            threading.Timer(n + 1, os.kill, (os.getpid(), signal.SIGINT)) for n in range(times)
        ]
        goes_on = threading.Timer(2, _signal(signal.SIGCONT), (audit,))
        for timer in press if times > 1 else [*press, goes_on]:
            timer.start()

    with pytest.raises(KeyboardInterrupt):
        _fit(tmp_path / "run", background=1, callbacks=[_at(3, wait_in_vain)])
    run = load(tmp_path / "run")
    assert run.verdict == "interrupted"
    trained = run.run["coverage"]["steps_trained"]
    assert run.steps["step"].tolist() == list(range(len(run.steps)))
    assert len(run.steps) >= trained
    assert ("unjudged" in set(run.steps["verdict"])) is (times == 2)


@pytest.mark.long
def test_under_raise_the_training_ends_and_its_report_is_whole(tmp_path):
    with pytest.raises(AuditFailure, match="twice too large"):
        _fit(tmp_path / "run", Doubled(4, name="wrong"), background=1, on_fail="raise")
    run = load(tmp_path / "run")
    assert run.verdict == "fail"
    assert run.run["ended"] == "aborted"
    assert run.steps["step"].tolist() == list(range(len(run.steps)))


@pytest.mark.long
def test_two_fits_under_one_audit(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    model.compile("sgd", "mse")
    audit = GradientAudit(tmp_path / "run", background=1, verbose=0)
    x, y = np.ones((8, 3)), np.ones((8, 2))
    for _ in range(2):
        model.fit(x, y, 4, verbose=0, callbacks=[audit])
    run = load(tmp_path / "run")
    assert run.steps["step"].tolist() == [0, 1, 2, 3]
    assert run.verdict == "pass"


@pytest.mark.long
def test_shared_memory_that_is_full_is_not_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(background, "_SHARED", tmp_path)
    right = background.present_backend().write_step

    def full(path, record, spec):
        if Path(path).is_relative_to(tmp_path):
            raise OSError(errno.ENOSPC, "no space left on device")
        right(path, record, spec)

    monkeypatch.setattr("gradaudit.backends.tensorflow.write_step", full)
    run, _ = _fit(tmp_path / "run", background=1)
    assert set(run.steps["verdict"]) == {"pass"}
    assert run.run["faults"]["count"] == 0
    assert len(run.steps) == STEPS


def test_a_step_that_no_process_can_take_is_judged_within_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(background.sys, "executable", "/no/such/python")
    run, _ = _fit(tmp_path / "run", background=1)
    assert set(run.steps["verdict"]) == {"pass"}
    assert "giving step 0 to another process" not in run.run["faults"]["tracebacks"]
    assert run.run["faults"]["count"] == STEPS


@pytest.mark.long
def test_a_training_that_is_killed_leaves_no_files(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(KILLED_TRAINING.format(folder=str(tmp_path)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, str(program)], env=environment, capture_output=True, check=False
    )
    assert done.returncode == -9, done.stderr
    end = time.monotonic() + 60
    while list(tmp_path.glob("gradaudit-*")) and time.monotonic() < end:
        pass
    assert list(tmp_path.glob("gradaudit-*")) == []


KILLED_TRAINING = """
import os, tempfile, keras, numpy as np
from pathlib import Path
tempfile.tempdir = {folder!r}
from gradaudit import GradientAudit
from gradaudit.audit import background
background._SHARED = Path({folder!r})
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
model.compile("sgd", "mse")
kill = keras.callbacks.LambdaCallback(
    on_train_batch_begin=lambda batch, logs: os.kill(os.getpid(), 9) if batch == 2 else None
)
model.fit(
    np.ones((32, 3)), np.ones((32, 2)), 4, verbose=0,
    callbacks=[kill, GradientAudit({folder!r} + "/run", background=1, verbose=0)],
)
"""


def test_an_answer_that_cannot_be_read_is_a_fault(tmp_path):
    class Broken:
        def __reduce__(self):
            return int, ("not a number",)

    path = tmp_path / "answers"
    with open(path, "wb") as file:
        for answer in (pickle.dumps(Broken()), pickle.dumps("right"), pickle.dumps("cut off")):
            file.write(background.SIZE.pack(len(answer)) + answer)
    os.truncate(path, path.stat().st_size - 1)
    answers = []
    with open(path, "rb") as pipe:
        background._read(pipe, answers.append)
    assert isinstance(answers[0], RuntimeError)
    assert answers[1:] == ["right", None]


def test_an_exception_that_no_pickle_makes_again_comes_as_words(tmp_path):
    class OddError(Exception):
        """No pickle finds a class within a function."""

    class Failing:
        def judge(self, record, spec):
            raise OddError("of its own")

    class Backend:
        def read_step(self, path):
            return None, None

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(worker, "present_backend", Backend)
        found = pickle.loads(worker._answer(Failing(), "a.step"))
    assert isinstance(found, RuntimeError)
    assert "OddError: of its own" in str(found)


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
    for option in ({"background": 1}, {"record_steps": (3,)}, {"on_fail": "stop"}):
        with pytest.raises(UsageError, match=f"mode is 'record', and {next(iter(option))} is"):
            GradientAudit(tmp_path, mode="record", **option)
