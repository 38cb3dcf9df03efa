"""After `fit`, however it ends, nothing of the audit is on the model or its optimizer."""

import contextlib
import gc
import itertools
import os
import signal
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradaudit import GradientAudit, load
from gradaudit.audit.session import Session
from gradaudit.nets import NETS, Settings
from gradaudit.nets.catalogue import compiled
from suite import by_default

# Keras reads its own variables in a way that NumPy 2 warns of, when it saves them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


class Stop(Exception):
    pass


def net():
    return compiled(NETS["iris"], Settings("adam", 0.1, "float32"))


def data():
    return NETS["iris"].data["iris"]()


def state(model):
    """Return what the instances of model and optimizer hold, and of which kind it is."""
    return [
        {name: type(value) for name, value in vars(owner).items()}
        for owner in (model, model.optimizer)
    ]


def assert_no_trace(model, tmp_path):
    """As after the same `fit` without the audit; trains, saves and loads as any model."""
    untouched = net()
    untouched.fit(*data(), 50, verbose=0)
    for mine, expected in zip(state(model), state(untouched), strict=True):
        assert {k: v for k, v in mine.items() if k in expected} == expected
        assert set(mine) == set(expected)
    assert "gradaudit" not in repr(model.train_function).lower()
    assert model.train_function.__qualname__ == untouched.train_function.__qualname__
    written = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    model.fit(*data(), 50, verbose=0)
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == written
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    x, _ = data()
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


def test_after_success(tmp_path):
    model = net()
    model.fit(*data(), 50, verbose=0, callbacks=[GradientAudit(tmp_path / "run", verbose=0)])
    assert_no_trace(model, tmp_path)


class Raising(keras.callbacks.Callback):
    """Raises in one of the methods that Keras calls."""

    def __init__(self, method, error):
        super().__init__()
        self.calls = 0

        def fail(*args, **kwargs):
            self.calls += 1
            if self.calls == {"on_epoch_begin": 2, "on_epoch_end": 1}.get(method, 4):
                raise error

        setattr(self, method, fail)


METHODS = ("on_train_batch_begin", "on_train_batch_end", "on_epoch_begin", "on_epoch_end")


@pytest.mark.parametrize(
    ("method", "error", "after"),
    by_default(
        itertools.product(METHODS, [Stop, KeyboardInterrupt], [True, False]),
        chosen=[
            ("on_train_batch_end", KeyboardInterrupt, True),
        ],
    ),
)
def test_after_another_callback_raised(tmp_path, method, error, after):
    model = net()
    audit = GradientAudit(tmp_path / "run", verbose=0)
    other = Raising(method, error)
    callbacks = [audit, other] if after else [other, audit]
    with pytest.raises(error):
        model.fit(*data(), 50, epochs=3, verbose=0, callbacks=callbacks)
    assert_no_trace(model, tmp_path)
    if method.startswith("on_train_batch"):  # within an epoch it is known at once
        run = load(tmp_path / "run")
        assert run.verdict == ("aborted" if error is Stop else "interrupted")
        assert set(run.weights["step"]) == set(run.tensors["step"]) == set(run.steps["step"])


@pytest.mark.long
def test_an_exception_between_two_epochs_is_known_when_fit_has_gone(tmp_path):
    model = net()
    audit = GradientAudit(tmp_path / "run", verbose=0)
    with contextlib.suppress(Stop):
        model.fit(
            *data(), 50, epochs=3, verbose=0, callbacks=[audit, Raising("on_epoch_end", Stop)]
        )
    gc.collect()
    assert load(tmp_path / "run").verdict == "interrupted"


@pytest.mark.long
@pytest.mark.parametrize("error", by_default([Stop, KeyboardInterrupt], chosen=[Stop]))
def test_after_the_audit_itself_was_interrupted(tmp_path, monkeypatch, error):
    model = net()
    audit = GradientAudit(tmp_path / "run", verbose=0)
    right = Session.taken

    def failing(self, records, spec, apart):
        if records[0].step == 3:
            raise error
        right(self, records, spec, apart)

    monkeypatch.setattr(Session, "taken", failing)
    with pytest.raises(error):
        model.fit(*data(), 50, epochs=3, verbose=0, callbacks=[audit])
    assert_no_trace(model, tmp_path)
    run = load(tmp_path / "run")
    assert len(run.steps) == 3
    assert run.verdict == ("interrupted" if error is KeyboardInterrupt else "aborted")


def test_after_data_that_fails(tmp_path):
    def batches():
        x, y = data()
        yield x[:50], y[:50]
        yield x[:50], y[:50]
        raise Stop

    model = net()
    with pytest.raises(tf.errors.OpError, match="Stop"):
        model.fit(
            batches(),
            epochs=2,
            verbose=0,
            shuffle=False,
            callbacks=[GradientAudit(tmp_path / "run", verbose=0)],
        )
    assert_no_trace(model, tmp_path)
    run = load(tmp_path / "run")
    assert run.verdict == "aborted"
    assert len(run.steps) == 2


@pytest.mark.long
def test_after_nan_with_terminate_on_nan(tmp_path):
    x, y = data()
    x = np.where(np.arange(x.size).reshape(x.shape) == 300, np.nan, x)
    model = net()
    model.fit(
        x,
        y,
        50,
        verbose=0,
        shuffle=False,
        callbacks=[keras.callbacks.TerminateOnNaN(), GradientAudit(tmp_path / "run", verbose=0)],
    )
    assert list(load(tmp_path / "run").steps["step"]) == [0, 1]


SCRIPT = """
    import signal, sys, time
    import keras, numpy as np
    from gradaudit import GradientAudit

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, 4)), rng.integers(0, 3, 64)

    class Started(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 3:
                print("started", flush=True)

    try:
        model.fit(x, y, 1, 100_000, verbose=0,
                  callbacks=[GradientAudit(sys.argv[1], every=int(sys.argv[2])), Started()])
    except KeyboardInterrupt:
        own = vars(model)["train_function"]
        print("clean" if "GradientAudit" not in repr(own) else own)
        model.fit(x, y, 8, verbose=0)
"""


@pytest.mark.long
@pytest.mark.parametrize("every", by_default([1, 1000], chosen=[1]))
def test_after_a_real_ctrl_c(tmp_path, every):
    script = tmp_path / "train.py"
    script.write_text(textwrap.dedent(SCRIPT))
    with subprocess.Popen(
        [sys.executable, script, tmp_path / "run", str(every)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    ) as process:
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out == "clean\n"
    assert "gradaudit: INTERRUPTED" in err
    run = load(tmp_path / "run")
    assert run.verdict == "interrupted"
    assert set(run.weights["step"]) == set(run.tensors["step"]) == set(run.steps["step"])
