"""The seam to a running trainer: one package for each framework that trains.

One job: turn a training step of a framework into a StepRecord. `protocol.py` is what the rooms
above ask of a backend, `backend_of` chooses one; `fit.py` and `patch.py` are for all of them, since
they deal with Keras alone. Rejected: callbacks that know how Keras compiles its step, which ties
every feature to one framework. `tensorflow` is the only backend so far.
"""

import keras

from gradaudit.backends.fit import StepCounter, when_fit_breaks_off
from gradaudit.backends.protocol import Backend, Hook
from gradaudit.errors import UsageError

__all__ = [
    "Backend",
    "Hook",
    "StepCounter",
    "backend_of",
    "present_backend",
    "when_fit_breaks_off",
]


def backend_of(model: keras.Model) -> Backend:
    """Return the backend that runs the training steps of a model: that of Keras.

    Raises:
        UsageError: gradaudit has no backend for the framework that Keras runs on.
    """
    return _backend(f"Keras runs the model {model.name!r} on")


def present_backend() -> Backend:
    """Return the backend of Keras, for a step that was recorded.

    Raises:
        UsageError: gradaudit has no backend for the framework that Keras runs on.
    """
    return _backend("Keras runs on")


def _backend(words: str) -> Backend:
    name = keras.config.backend()
    if name != "tensorflow":
        raise UsageError(
            f"{words} {name!r}. Expected 'tensorflow', the only backend of gradaudit. Set "
            "KERAS_BACKEND=tensorflow before Keras is imported."
        )
    from gradaudit.backends import tensorflow

    return tensorflow
