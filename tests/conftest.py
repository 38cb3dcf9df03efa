"""Settings of the test run.

Quiet TensorFlow, two logical CPUs for tf.distribute, one thread per worker, Keras's global state
restored after each test, and a limit on what one process may compile.

Why processes must stay short: XLA keeps the code of every step that it compiles until the process
ends. Measured with TensorFlow 2.21 and Keras 3.15, a net of two Dense layers, one fit after the
other in one process:

    fit under XLA             170 memory maps and  9 MB each, 13 MB with an audit
    fit in graph mode, Adam     5 memory maps and  4 MB each: TensorFlow keeps the branches of
                                tf.cond, which are functions within functions

`keras.backend.clear_session` and `gc.collect` free none of it. Linux allows a process 65,530 maps
(vm.max_map_count). Beyond that the next compilation kills it: "LLVM ERROR: Unable to allocate
section memory!", Aborted. Two workers that ran all tests came to 52,000 maps and 6.8 GB each. So
`.ci/run` runs the long tests in parts, each in processes of its own.
"""

import gc
import itertools
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest
import tensorflow as tf
from hypothesis import settings
from xdist.scheduler import WorkStealingScheduling

from suite import part_of

pytest_plugins = ["pytester"]

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


def pytest_addoption(parser):
    parser.addoption(
        "--part", metavar="I/N", help="of the selected tests, run the I-th of N parts alone"
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Let a process that is done take tests from the others: the last ones may be slow."""
    return WorkStealingScheduling(config, log)


@pytest.hookimpl(trylast=True)  # after -m and -k
def pytest_collection_modifyitems(config, items):
    which = config.getoption("--part")
    if which is not None:
        chosen = part_of(items, which)
        left_out = set(items) - set(chosen)
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = chosen


_MOST_MAPS = Path("/proc/sys/vm/max_map_count")  # on Linux
_MARGIN = 10_000  # more than 50 tests need
_tests = itertools.count(1)


def pytest_runtest_setup(item):
    """End the run with a reason where the process will soon run out of memory maps; see above."""
    if next(_tests) % 50 or not _MOST_MAPS.exists():  # reading 50,000 maps takes 80 ms
        return
    most, maps = int(_MOST_MAPS.read_text()), Path("/proc/self/maps").read_bytes().count(b"\n")
    if maps > most - _MARGIN:
        item.session.shouldfail = (
            f"A test process has {maps} memory maps, most of them code that XLA compiled, and "
            f"Linux allows {most} (vm.max_map_count). Run them in parts, as .ci/run: --part."
        )


@pytest.fixture(autouse=True)
def _keras_state_is_kept():
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


@pytest.fixture(autouse=True, scope="module")
def _garbage_is_not_searched_again():
    """TensorFlow keeps the graphs of functions within functions, and clear_session searches them.

    Without this, tests that come after some thousand others take several times as long.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def float64():
    """Let a test compute in float64; `_keras_state_is_kept` restores float32."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")


@pytest.fixture
def in_an_empty_folder(tmp_path, monkeypatch):
    """Let a test import nets of its own, `my_nets`, from an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture
def gradaudit(monkeypatch, capfd):
    """Run the command line; return its exit code, and what it prints to stdout and stderr."""
    from gradaudit import cli

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["gradaudit", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return ended.value.code or 0, out, err

    return call


@pytest.fixture(scope="session")
def two_replicas():
    from matrix.distribution import two_replicas

    return two_replicas()
