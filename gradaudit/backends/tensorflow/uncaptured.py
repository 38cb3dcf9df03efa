"""A step of which nothing is known but what the model holds."""

import keras

from gradaudit.backends.tensorflow.machine import half_sums, tensorfloat32
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
        half_sums=half_sums(model),
        capture_ms=0.0,
    )
