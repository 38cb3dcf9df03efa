"""The states of Python's and of NumPy's own random generator, from which users' code draws."""

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from gradaudit.backends.tensorflow.python_state import PythonState


def states() -> Any:
    """Return the states of both."""
    return random.getstate(), np.random.get_state()  # noqa: NPY002


def set_states(given: Any) -> None:
    """Set both."""
    random.setstate(given[0])
    np.random.set_state(given[1])  # noqa: NPY002


def are_equal(some: Any, others: Any) -> bool:
    """Return whether these are the same states of both."""
    return some[0] == others[0] and all(map(np.array_equal, some[1], others[1]))


def kept_by(code: PythonState, given: Any = None) -> AbstractContextManager[None]:
    """Keep both around a trace of code that may draw from them.

    Where it may not, nothing is put back: what moves them is a thread that reads the data.
    """
    return kept(given) if code.may_draw else nullcontext()


@contextmanager
def kept(given: Any = None) -> Iterator[None]:
    """Give both their states back at the end of a block; given: those that they have within it."""
    present = states()
    try:
        if given is not None:
            set_states(given)
        yield
    finally:
        set_states(present)
