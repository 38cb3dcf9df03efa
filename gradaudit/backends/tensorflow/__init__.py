"""Takes a training step of Keras on TensorFlow as it happens.

One job: fit step to StepRecord. As a module, this package is a `gradaudit.backends.Backend`.
Rejected: `py_function` hooks, which XLA refuses, and computing the gradients again on a kept batch,
which audits another computation than the one that was applied.
"""

from gradaudit.backends.tensorflow.batches import peeked
from gradaudit.backends.tensorflow.environment import environment
from gradaudit.backends.tensorflow.hook import StepHook
from gradaudit.backends.tensorflow.read import to_numpy
from gradaudit.backends.tensorflow.replay import Replay
from gradaudit.backends.tensorflow.spec import present_config, specified
from gradaudit.backends.tensorflow.step import Capture
from gradaudit.backends.tensorflow.step_file import read_step, write_step
from gradaudit.backends.tensorflow.uncaptured import uncaptured
from gradaudit.backends.tensorflow.workers import wait_for_all, worker

__all__ = [
    "Capture",
    "Replay",
    "StepHook",
    "environment",
    "peeked",
    "present_config",
    "read_step",
    "specified",
    "to_numpy",
    "uncaptured",
    "wait_for_all",
    "worker",
    "write_step",
]
