"""What a step is besides its numbers: the model, its optimizer, and settings, as they were."""

import functools
import platform
from importlib.metadata import PackageNotFoundError, version

import keras

from gradaudit import __version__, keras_compat
from gradaudit.backends.tensorflow.framework import TensorFlow
from gradaudit.backends.tensorflow.python_state import PythonState
from gradaudit.backends.tensorflow.replay import Replay
from gradaudit.backends.tensorflow.structure import restored, structure
from gradaudit.records import Config, StepSpec
from gradaudit.rules import variable_keys

_PACKAGES = ("tensorflow", "keras", "numpy", "scipy", "pandas")


def specified(model: keras.Model, replay: Replay, state: PythonState | None = None) -> StepSpec:
    """Return the spec of a step that the model takes now.

    In the spec the path of a variable is its key in records, see `rules.variable_keys`.

    The spec holds copies: what is changed in the model later does not change it. Only code that
    has no derived rule is traced from the model itself, at the first judgement that needs it, with
    the Python values of the step.

    replay: repeats the draws of the step. state: those values; None for those that are found then.
    """
    found, originals = structure((model, getattr(model, "optimizer", None)))
    (copy, optimizer), made = restored(found)
    keys = variable_keys(model)
    for copied, original in zip(made, originals, strict=True):
        if id(original) in keys:
            keras_compat.set_path(copied, keys[id(original)])
    live = {id(copied): original for copied, original in zip(made, originals, strict=True)}
    return StepSpec(
        model=copy,
        optimizer=optimizer,
        config=present_config(),
        framework=TensorFlow(model, copy, live, replay, state),
        versions=versions(),
    )


def present_config() -> Config:
    """Return the settings of Keras as they are now."""
    return Config(
        epsilon=keras.config.epsilon(),
        floatx=keras.config.floatx(),
        image_data_format=keras.config.image_data_format(),
    )


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result may depend on."""
    return {
        "python": platform.python_version(),
        "gradaudit": __version__,
        **{name: _version(name) for name in _PACKAGES},
    }


@functools.cache
def _version(package: str) -> str:
    """Return the version of a package, "unknown" where it is installed without metadata."""
    try:
        return version(package)
    except PackageNotFoundError:  # copied into an application: it runs, and no result depends on it
        return "unknown"
