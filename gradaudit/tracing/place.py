"""The line of the user's own code that an op comes from."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf

_OURS = (str(Path(__file__).parents[1]),)
_LIBRARIES = (*tf.__path__, *keras.__path__, "<")  # generated code has names in angle brackets

_STANDARD = str(Path(os.__file__).parent) + os.sep
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_TOOLS = ("numpy", "optree", "tree", "wrapt")


class Place(NamedTuple):
    """A line of code: the fields of `records.Provenance`. Prints as `file:line (source)`."""

    file: str = ""
    line: int = 0
    source: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" + (f" ({self.source})" if self.source else "")


def place_of(operation: tf.Operation) -> Place:
    """Return the line of the user's own code that made an op: the innermost outside libraries.

    A line of an installed package is the user's where all others are of libraries, too. It is empty
    for an op that TensorFlow or Keras makes by itself, in no call of the user's code.
    """
    frames = _frames(operation)
    own = _own(frames)
    if own is None:
        return Place()
    return Place(frames[own].filename, frames[own].lineno, frames[own].line or "")


def library_function_of(operation: tf.Operation) -> str:
    """Return the name of the outermost function of a library, within the user's code, or ours.

    It is empty where that function makes nothing but the op: its name then says no more.
    """
    frames = _frames(operation)
    own = _own(frames)
    names = [frame.name for frame in frames[0 if own is None else own + 1 :]]
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


def _own(frames: Sequence[Any]) -> int | None:
    """Return which frame is the user's own: the innermost outside of all that is installed.

    A model may be installed, too. Where no other frame is left, it is the innermost of an installed
    package, but not of those with which TensorFlow and Keras call their own code.
    """
    names = [frame.filename for frame in frames]
    others = [i for i, name in enumerate(names) if not (is_in_library(name) or _is_tool(name))]
    own = [i for i in others if not _is_installed(names[i])]
    return max(own or others, default=None)


def _is_installed(filename: str) -> bool:
    return not _INSTALLED.isdisjoint(Path(filename).parts)


def _is_tool(filename: str) -> bool:
    """Return whether a file is of the standard library, or of what TensorFlow and Keras need."""
    parts = Path(filename).parts
    for i, part in enumerate(parts[:-1]):
        if part in _INSTALLED:
            return parts[i + 1] in _TOOLS
    return filename.startswith(_STANDARD)


def is_in_library(filename: str) -> bool:
    """Return whether a file is TensorFlow's or Keras's, or generated."""
    return filename.startswith(_LIBRARIES)
