"""Versions, devices, precision, model and optimizer of a run, for run.json."""

import platform
import warnings
from typing import Any

import keras
import tensorflow as tf

from gradaudit import keras_compat
from gradaudit.backends.tensorflow.spec import versions


def environment(model: keras.Model) -> dict[str, Any]:
    """Return the entries of run.json that describe the framework and the model."""
    return {
        "versions": versions(),
        "device": {
            "platform": platform.platform(),
            "devices": [device.name for device in tf.config.list_logical_devices()],
        },
        "precision": {
            "floatx": keras.config.floatx(),
            "policy": model.dtype_policy.name,
            "layers": {layer.name: layer.dtype_policy.name for layer in model.layers},
        },
        "jit": bool(model.jit_compile),
        "eager": bool(model.run_eagerly),
        "replicas": model.distribute_strategy.num_replicas_in_sync,
        "seed": keras_compat.random_seed(),
        "optimizer": _optimizer(getattr(model, "optimizer", None)),
        "model": {
            "name": model.name,
            "class": type(model).__name__,
            "weights": model.count_params() if model.built else None,
            "layers": [
                {"name": layer.name, "class": type(layer).__name__} for layer in model.layers
            ],
        },
    }


def _optimizer(optimizer: keras.optimizers.Optimizer | None) -> dict[str, Any] | None:
    if optimizer is None:
        return None
    with warnings.catch_warnings():  # a learning rate that is a lambda cannot be loaded again
        warnings.simplefilter("ignore")
        return {"class": type(optimizer).__name__, **optimizer.get_config()}
