"""What a step is besides its numbers: the model, its optimizer, and settings, as they were."""

import platform
from importlib.metadata import version

import keras

from gradaudit.backends.tensorflow.framework import TensorFlow
from gradaudit.backends.tensorflow.replay import Replay
from gradaudit.records import StepSpec

_PACKAGES = ("gradaudit", "tensorflow", "keras", "numpy", "scipy", "pandas")


def specified(model: keras.Model, replay: Replay) -> StepSpec:
    """Return the spec of a step that the model takes now.

    replay: repeats the draws of the step.
    """
    return StepSpec(
        model=model,
        optimizer=getattr(model, "optimizer", None),
        epsilon=keras.config.epsilon(),
        framework=TensorFlow(model, replay),
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result may depend on."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }
