"""Two processes that train one model together."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from gradaudit import load
from gradaudit.backends.tensorflow import worker

SCRIPT = Path(__file__).with_name("worker_script.py")


def free_ports():
    sockets = [socket.socket() for _ in range(2)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def train(*arguments):
    """Return what each of two workers prints."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports()]}
    processes = []
    for index in range(2):
        task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        processes.append(
            subprocess.Popen(
                [sys.executable, SCRIPT, *arguments],
                env={**os.environ, "TF_CONFIG": json.dumps(task), "TF_CPP_MIN_LOG_LEVEL": "3"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    found = []
    for process in processes:
        with process:
            out, err = process.communicate(timeout=180)
        assert process.returncode == 0, err
        found.append((out.splitlines(), err))
    return found


class Strategy:
    def __init__(self, cluster, kind, number):
        self.cluster_resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec(cluster), task_type=kind, task_id=number
        )


def test_the_chief_is_the_first_of_the_workers():
    cluster = {"chief": ["a:1"], "worker": ["b:1", "c:1"], "ps": ["d:1"]}
    tasks = [("chief", 0), ("worker", 0), ("worker", 1)]
    assert [worker(Strategy(cluster, *task)) for task in tasks] == [(0, 3), (1, 3), (2, 3)]
    assert worker(Strategy({"worker": ["a:1"]}, "worker", 0)) == (0, 1)
    assert worker(tf.distribute.get_strategy()) == (0, 1)


@pytest.mark.long  # four processes that import TensorFlow
def test_two_workers_are_undisturbed_and_the_first_merges_their_reports(tmp_path):
    (alone, _), _ = train()
    (first, err), (second, _) = train(str(tmp_path / "run"))
    assert first[0] == second[0] == alone[0]  # history, weights and slots, to the last digit
    assert "the reports of 2 workers are merged" in err

    run = load(tmp_path / "run")
    assert run.verdict == "pass"
    assert list(run.steps["step"]) == [0, 0, 1, 1, 5, 5]
    assert list(run.steps["replica"]) == [0, 1] * 3
    assert list(run.steps["batch_size"]) == [4] * 6
    assert run.weights["z"].max() < 4
    assert set(run.tensors["verdict"]) == {"pass"}
    parts = [load(tmp_path / "run" / f"worker-{i}") for i in range(2)]
    assert [set(part.steps["replica"]) for part in parts] == [{0}, {1}]
    assert len(run.weights) == sum(len(part.weights) for part in parts)
    assert run.run["counts"]["update"]["pass"] == sum(
        part.run["counts"]["update"]["pass"] for part in parts
    )
    assert [worker["folder"] for worker in run.run["workers"]] == ["worker-0", "worker-1"]
    # Each worker has gradients of its own rows, and both have the same update.
    own = [part.weights.query("stage == 'gradient'")["tape"].to_numpy() for part in parts]
    assert not np.array_equal(*own)
    moved = [part.weights.query("stage == 'update'")["tape"].to_numpy() for part in parts]
    np.testing.assert_array_equal(*moved)
    for lines in (first, second):
        assert lines[1].startswith("budget is given, and several workers train together.")
        assert lines[2].startswith("on_fail is 'stop', and several workers train together")
