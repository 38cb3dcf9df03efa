"""Settings of the test run.

Quiet TensorFlow, two logical CPUs for tf.distribute, one thread per worker, Keras's global state
kept.
"""

import gc
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest
import tensorflow as tf
from hypothesis import settings

pytest_plugins = ["pytester"]

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


@pytest.fixture(autouse=True)
def _keras_state_is_kept():
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


@pytest.fixture(autouse=True, scope="module")
def _what_is_left_behind_is_not_searched_again():
    """TensorFlow keeps the graphs of functions in functions, and clear_session looks for garbage.

    Without this, tests that come after some thousand others take several times as long.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def float64():
    """Let a test compute in float64; `_keras_state_is_kept` takes it back."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")


@pytest.fixture
def in_an_empty_folder(tmp_path, monkeypatch):
    """Let a test import nets of its own, `my_nets`, from an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture(scope="session")
def two_replicas():
    from matrix.distribution import two_replicas

    return two_replicas()
