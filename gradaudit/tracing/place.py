"""The line of the user's own code that an op comes from."""

from pathlib import Path
from typing import NamedTuple

import keras
import tensorflow as tf

_OURS = (str(Path(__file__).parents[1]),)
_LIBRARIES = (*tf.__path__, *keras.__path__, "<")  # generated code has names in angle brackets


class Place(NamedTuple):
    """A line of code: the fields of `records.Provenance`. Prints as `file:line (source)`."""

    file: str = ""
    line: int = 0
    source: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" + (f" ({self.source})" if self.source else "")


def place_of(operation: tf.Operation) -> Place:
    """Return the line of the user's own code that made an op: the innermost outside libraries.

    It is empty for an op that a library makes by itself, in no call of the user's code.
    """
    frames = list(operation.traceback)
    ours = [i for i, frame in enumerate(frames) if frame.filename.startswith(_OURS)]
    frames = [f for f in frames[max(ours, default=-1) + 1 :] if not is_in_library(f.filename)]
    if not frames:
        return Place()
    last = frames[-1]
    return Place(last.filename, last.lineno, last.line or "")


def is_in_library(filename: str) -> bool:
    """Return whether a file is TensorFlow's or Keras's, or generated."""
    return filename.startswith(_LIBRARIES)
