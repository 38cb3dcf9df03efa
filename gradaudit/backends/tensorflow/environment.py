"""Versions, devices, precision, model and optimizer of a run, for run.json."""

import json
import platform
import warnings
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from gradaudit import keras_compat
from gradaudit.backends.tensorflow.spec import versions


def environment(model: keras.Model) -> dict[str, Any]:
    """Return the entries of run.json that describe the framework and the model.

    Code of the user's describes itself: a property, or a `get_config`. Where that raises, its entry
    says so, and the others are as they are.
    """
    optimizer = getattr(model, "optimizer", None)
    return {
        "versions": versions(),
        "device": {
            "platform": platform.platform(),
            "devices": [device.name for device in tf.config.list_logical_devices()],
        },
        "precision": {
            "floatx": keras.config.floatx(),
            "policy": model.dtype_policy.name,
            "layers": _told(
                lambda: {layer.name: layer.dtype_policy.name for layer in model.layers}
            ),
        },
        "jit": bool(model.jit_compile),
        "eager": bool(model.run_eagerly),
        "replicas": model.distribute_strategy.num_replicas_in_sync,
        "seed": keras_compat.random_seed(),
        "optimizer": None if optimizer is None else _optimizer(optimizer),
        "model": {
            "name": model.name,
            "class": type(model).__name__,
            "weights": _told(lambda: model.count_params() if model.built else None),
            "layers": _told(
                lambda: [
                    {"name": layer.name, "class": type(layer).__name__} for layer in model.layers
                ]
            ),
        },
    }


def _optimizer(optimizer: keras.optimizers.Optimizer) -> dict[str, Any]:
    """Return the class and the configuration of an optimizer, or why there is none."""
    name, config = type(optimizer).__name__, _told(optimizer.get_config)
    if isinstance(config, dict):
        return {"class": name, **config}
    schedule = keras_compat.schedule_of(optimizer)
    told = {} if schedule is None else {"learning_rate": type(schedule).__name__}
    return {"class": name, **told, "configuration": config}


def _told(describe: Callable[[], Any]) -> Any:
    """Return what a function returns, as JSON holds it; in words why, where it raises."""
    try:
        with warnings.catch_warnings():  # a learning rate that is a lambda cannot be loaded again
            warnings.simplefilter("ignore")
            return json.loads(json.dumps(describe(), default=str))
    except Exception as error:  # the code of the user's may do anything
        return f"missing: {type(error).__name__}: {error}"
