"""A step of which nothing is known but what the model holds, and how the machine computes."""

import keras
import tensorflow as tf

from gradaudit.backends.tensorflow.read import values
from gradaudit.records import StepRecord
from gradaudit.rules import state_variables, variable_keys


def uncaptured(model: keras.Model, step: int, epoch: int) -> StepRecord:
    """Return a record of a step of which nothing is known but the weights."""
    return StepRecord(
        step=step,
        epoch=epoch,
        x=None,
        y=None,
        sample_weight=None,
        variables=values(
            state_variables(model), variable_keys(model), model.distribute_strategy, 0
        ),
        optimizer_variables={},
        variables_after={},
        optimizer_variables_after={},
        gradients={},
        replica_gradients=(),
        repeating=frozenset(),
        applications=0,
        loss=None,
        loss_scale=1.0,
        learning_rates=(),
        jit=False,
        tensorfloat32=tensorfloat32(),
        capture_ms=0.0,
    )


def tensorfloat32() -> bool:
    """Return whether float32 matrix products run in TensorFloat-32 on this machine."""
    if not tf.config.experimental.tensor_float_32_execution_enabled():
        return False
    details = [
        tf.config.experimental.get_device_details(device)
        for device in tf.config.list_physical_devices("GPU")
    ]
    return any(detail.get("compute_capability", (0,))[0] >= 8 for detail in details)
