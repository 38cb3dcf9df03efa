"""What a run was made with: versions, devices, precision, model and optimizer."""

import platform
from importlib.metadata import version
from typing import Any

import keras
import tensorflow as tf


def environment(model: keras.Model) -> dict[str, Any]:
    """Return the facts of run.json that come from the framework and the model."""
    optimizer = {"class_name": None, "config": {}}
    if model.optimizer is not None:
        optimizer = keras.optimizers.serialize(model.optimizer)
    return {
        "versions": {
            "python": platform.python_version(),
            **{
                name: version(name)
                for name in ("gradaudit", "tensorflow", "keras", "numpy", "scipy", "pandas")
            },
        },
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
        "seed": keras.src.utils.rng_utils.get_random_seed(),
        "optimizer": {"class": optimizer["class_name"], **optimizer["config"]},
        "model": {
            "name": model.name,
            "class": type(model).__name__,
            "weights": model.count_params() if model.built else None,
            "layers": [
                {"name": layer.name, "class": type(layer).__name__} for layer in model.layers
            ],
        },
    }
