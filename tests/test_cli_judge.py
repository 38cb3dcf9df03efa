"""`gradaudit judge`: recorded steps, judged in one process or on the workers of Dask."""

import os
import signal
import sys
from pathlib import Path

import distributed
import pytest

from gradaudit import load
from gradaudit.audit import step_files
from gradaudit.audit.results import Results
from gradaudit.errors import FolderError, UsageError
from gradaudit.report import RunFolder

pytestmark = pytest.mark.usefixtures("in_an_empty_folder", "_models_are_built_anew")


@pytest.fixture
def _models_are_built_anew():
    step_files._built.cache_clear()


NETS = """
import keras

class Squashed(keras.layers.Layer):
    def call(self, x):
        return x / (1 + keras.ops.abs(x))

def build():
    parts = [keras.Input((2,)), keras.layers.Dense(4), Squashed(), keras.layers.Dense(1)]
    model = keras.Sequential(parts, name="my_net")
    model.compile("sgd", "mse")
    return model
"""


MEANT = """
import keras, tensorflow as tf

@tf.custom_gradient
def reversed(x):
    return tf.identity(x), lambda dy: -dy

class Reversed(keras.layers.Layer):
    def call(self, x):
        return reversed(x)

def build():
    last = keras.layers.Dense(1, name="last")
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(4), Reversed(), last], name="my_net"
    )
    model.compile("sgd", "mse")
    return model
"""


@pytest.fixture
def recorded(gradaudit):
    """The recorded steps of a net, beside the tables of its audit."""
    options = "--epochs 1 --batch-size 20 --sigma always --record-steps all --out run"
    assert gradaudit("run", "--model", "iris", *options.split())[0] == 0
    return sorted(Path("run").glob("*.step"))


def _tables(folder):
    """Return the tables without times."""
    run = load(folder)
    timed = [name for name in run.steps if name.endswith("_ms")]
    return run.steps.drop(columns=timed), run.tensors, run.weights


def _write_nets(text):
    """Write a module of nets, and data for them."""
    Path("my_nets.py").write_text(text)
    Path("data.csv").write_text("u,v,w\n" + "1,2,3\n0,1,2\n" * 3)


def _are_equal(one, other):
    return all(a.equals(b) for a, b in zip(_tables(one), _tables(other), strict=True))


def test_the_tables_are_those_of_the_training(gradaudit, recorded):
    code, out, _ = gradaudit("judge", *recorded, "--out", "judged")
    assert code == 0
    assert "PASS, 8 steps audited" in out
    assert _are_equal("run", "judged")
    trained, judged = load("run").run, load("judged").run
    assert judged["optimizer"] == {
        "class": "SGD",
        "learning_rate": trained["optimizer"]["learning_rate"],
    }
    for entry in ("counts", "max_z", "worst", "versions", "jit", "model"):
        assert judged[entry] == trained[entry], entry
    assert trained["coverage"] == {"steps_trained": 8, "steps_audited": 8, "steps_recorded": 8}


def test_steps_may_be_recorded_and_not_judged(gradaudit):
    options = "--epochs 1 --batch-size 50 --mode record --every 2 --out run"
    code, out, _ = gradaudit("run", "--model", "iris", *options.split())
    assert code == 3
    assert "UNJUDGED, 0 steps audited, 2 steps recorded" in out
    assert "gradaudit judge run/*.step" in out
    assert [path.name for path in sorted(Path("run").glob("*.step"))] == [
        "000000000.step", "000000002.step"
    ]  # fmt: skip
    assert gradaudit("judge", *sorted(Path("run").glob("*.step")))[0] == 0
    assert load("runs/judged").steps["step"].tolist() == [0, 2]


def test_a_step_that_is_to_be_recorded_and_was_not_audited_is_told(gradaudit):
    options = "--epochs 1 --batch-size 50 --every 2 --record-steps 1,2,90 --out run"
    code, out, _ = gradaudit("run", "--model", "iris", *options.split())
    assert code == 0
    assert "left out: files of the steps 1: not audited, or they could not be written" in out
    assert [path.name for path in Path("run").glob("*.step")] == ["000000002.step"]


def test_recorded_steps_are_a_run_that_is_not_overwritten(gradaudit, recorded):
    again = ["run", "--model", "iris", "--epochs", "1", "--batch-size", "75", "--out", "run"]
    for name in ("steps.csv", "tensors.csv", "weights.csv", "run.json"):
        Path("run", name).unlink()
    with pytest.raises(FolderError, match=r"\*\.step"):
        RunFolder("run", overwrite=False)
    assert gradaudit(*again)[0] == 2
    assert gradaudit(*again, "--overwrite", "--record-steps", "1")[0] == 0
    assert [path.name for path in Path("run").glob("*.step")] == ["000000001.step"]


def test_code_without_a_rule_needs_the_model(gradaudit):
    _write_nets(NETS)
    data = "--data data.csv --target w --epochs 1 --sigma always --record-steps all --out run"
    assert gradaudit("run", "--model", "my_nets:build", *data.split())[0] == 0
    steps = sorted(Path("run").glob("*.step"))
    code, out, _ = gradaudit("judge", *steps, "--out", "without")
    assert code == 3
    assert "gradaudit judge --model" in " ".join(out.split())
    assert "does not hold the model's code" in " ".join(out.split())
    assert gradaudit("judge", *steps, "--out", "with", "--model", "my_nets:build")[0] == 0
    assert _are_equal("run", "with")


def test_what_is_asked_for_wrongly_is_told_in_one_line(gradaudit, recorded):
    bad = {
        "there is no file no.step. Expected": ["no.step"],
        "run.json cannot be read as a recorded step": ["run/run.json"],
        "the module 'nothing' was not found": [recorded[0], "--model", "nothing:build"],
        "no Dask scheduler answers there": [recorded[0], "--scheduler", "nowhere"],
        "000000000.step is step 0, as a file before it": [recorded[0], recorded[0]],
        "run is a folder": ["run"],
    }
    for words, arguments in bad.items():
        code, _, err = gradaudit("judge", *arguments, "--overwrite", "--out", "bad")
        assert code == 2, words
        assert words.lower() in err.lower()
        assert err.count("\n") == 1, err


def test_a_class_that_is_not_imported_is_told(gradaudit, monkeypatch):
    _write_nets(NETS)
    data = "--data data.csv --target w --epochs 1 --record-steps all --out run"
    assert gradaudit("run", "--model", "my_nets:build", *data.split())[0] == 0
    monkeypatch.delitem(sys.modules, "my_nets")
    code, _, err = gradaudit("judge", *Path("run").glob("*.step"), "--out", "judged")
    assert code == 3
    assert "does not hold my_nets.Squashed" in err
    assert "gradaudit judge --model" in err
    assert err.count("\n") == 1


def test_the_steps_of_a_run_are_not_replaced_by_their_own_report(gradaudit, recorded):
    code, _, err = gradaudit("judge", *recorded, "--out", "run", "--overwrite")
    assert code == 2
    assert "which holds the recorded steps" in err
    assert all(path.exists() for path in recorded)


def test_a_report_is_not_replaced_where_nothing_is_judged(gradaudit, recorded):
    assert gradaudit("judge", *recorded, "--out", "judged")[0] == 0
    Path("bad.step").write_bytes(b"no step")
    assert gradaudit("judge", "bad.step", "--out", "judged", "--overwrite")[0] == 2
    assert len(load("judged").steps) == 8


def test_steps_of_two_models_are_no_run(gradaudit, recorded):
    options = "--epochs 1 --batch-size 50 --mode record --out other"
    assert gradaudit("run", "--model", "deep_tanh", *options.split())[0] == 3
    (*_, last) = sorted(Path("other").glob("*.step"))
    code, _, err = gradaudit("judge", recorded[0], last, "--out", "judged")
    assert code == 2
    assert "another model than the files before it" in err


def test_a_custom_gradient_that_is_meant_is_named_again(gradaudit):
    _write_nets(MEANT)
    data = "--data data.csv --target w --epochs 1 --mode record --out run"
    assert gradaudit("run", "--model", "my_nets:build", *data.split())[0] == 3
    steps = sorted(Path("run").glob("*.step"))
    judge = "judge", *steps, "--model", "my_nets:build", "--overwrite", "--out", "judged"
    assert gradaudit(*judge)[0] == 1
    assert gradaudit(*judge, "--expect", "reversed")[0] == 0
    assert gradaudit(*judge, "--layers", "last")[0] == 0


def test_what_was_judged_before_a_bad_file_is_kept(gradaudit, recorded):
    recorded[3].write_bytes(b"cut off")
    code, _, err = gradaudit("judge", *recorded, "--out", "judged")
    assert code == 2
    assert f"{recorded[3].name} cannot be read" in err
    run = load("judged")
    assert run.verdict == "aborted"
    assert run.steps["step"].tolist() == [0, 1, 2]


def test_dask_is_an_extra(gradaudit, recorded, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    code, _, err = gradaudit("judge", *recorded, "--scheduler", "tcp://127.0.0.1:1")
    assert code == 2
    assert "pip install 'gradaudit[dask]'" in err


@pytest.mark.long
def test_workers_of_dask_make_the_same_tables_and_one_may_be_killed(
    gradaudit, recorded, monkeypatch
):
    assert gradaudit("judge", *recorded, "--out", "here")[0] == 0
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        pids = list(client.run(os.getpid).values())
        right, counted = Results.add, []

        def add(self, *arguments):
            counted.append(None)
            if len(counted) == 3:
                os.kill(pids[0], signal.SIGKILL)
            right(self, *arguments)

        monkeypatch.setattr(Results, "add", add)
        code, _, err = gradaudit(
            "judge", *recorded, "--out", "there", "--scheduler", cluster.scheduler_address
        )
        assert code == 0, err
        assert pids[0] not in client.run(os.getpid).values()
    assert len(counted) == len(recorded) == 8
    assert _are_equal("here", "there")


def test_arguments_are_validated(tmp_path):
    from gradaudit import GradientAudit

    with pytest.raises(UsageError, match="record_steps is 'some'"):
        GradientAudit(tmp_path, record_steps="some")
    with pytest.raises(UsageError, match="mode is 'both'"):
        GradientAudit(tmp_path, mode="both")
