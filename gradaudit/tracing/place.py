"""The line of the user's own code that an op comes from."""

from pathlib import Path
from typing import Any, NamedTuple

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
    frames = [frame for frame in _frames(operation) if not is_in_library(frame.filename)]
    if not frames:
        return Place()
    last = frames[-1]
    return Place(last.filename, last.lineno, last.line or "")


def library_function_of(operation: tf.Operation) -> str:
    """Return the name of the outermost function of a library, within the user's code, or ours.

    It is empty where that function makes nothing but the op: its name then says no more.
    """
    frames = _frames(operation)
    outside = [i for i, frame in enumerate(frames) if not is_in_library(frame.filename)]
    names = [frame.name for frame in frames[max(outside, default=-1) + 1 :]]
    named = [name for name in names if name not in _WRAPPING and not name.startswith("_")]
    alike = operation.type.lower()
    return named[0] if named and named[0].lower() != alike else ""


_WRAPPING = (
    "binary_op_wrapper", "call", "error_handler", "from_node_def", "op_dispatch_handler",
    "r_binary_op_wrapper", "tensor_equals", "tensor_not_equals", "wrapper",
)  # fmt: skip
"""Functions that TensorFlow and Keras wrap others in."""


def _frames(operation: tf.Operation) -> list[Any]:
    """Return the frames of the call that made an op, without those down to our own code."""
    frames = list(operation.traceback)
    ours = [i for i, frame in enumerate(frames) if frame.filename.startswith(_OURS)]
    return frames[max(ours, default=-1) + 1 :]


def is_in_library(filename: str) -> bool:
    """Return whether a file is TensorFlow's or Keras's, or generated."""
    return filename.startswith(_LIBRARIES)
