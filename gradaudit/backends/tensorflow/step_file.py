"""A recorded step in a file: the record and its spec, without pickle.

The file is a NumPy archive (npz): `step`, a JSON text of the structure, and the arrays as bytes.
Classes and functions are names in it. A name is looked up among the classes that make up models and
the targets of rules, in modules that are imported already; any other is `Missing`. Reading a file
imports nothing and calls nothing that the file names.
"""

import enum
import functools
import json
import os
import sys
import types
import zipfile
import zlib
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np

from gradaudit import keras_compat
from gradaudit.backends.tensorflow.framework import Detached, TensorFlow
from gradaudit.backends.tensorflow.replay import Replay
from gradaudit.backends.tensorflow.structure import (
    Missing,
    Structure,
    dtype_name,
    dtype_of,
    restored,
    structure,
)
from gradaudit.errors import DataError
from gradaudit.records import Config, StepRecord, StepSpec
from gradaudit.rules import all_rules

_FORMAT = "gradaudit step 3"
_MALFORMED = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy, JSON and `restored` raise for a file that is not as `write_step` writes it."""


def write_step(path: str | PathLike, record: StepRecord, spec: StepSpec) -> None:
    """Write a recorded step to a file, whole or not at all.

    Nothing is compressed: random-looking numbers lose a tenth of their size, and take 50 times as
    long.

    Raises:
        DataError: the step holds an array of Python objects other than text.
    """
    parts = spec.model, spec.optimizer, vars(spec.config), dict(spec.versions)
    found, _ = structure((vars(record), parts))
    names = _names()
    text = json.dumps(
        {
            "format": _FORMAT,
            "root": found.root,
            "objects": found.objects,
            "live": [_name(x, names) for x in found.live],
            "arrays": [_described(array) for array in found.arrays],
        }
    )
    arrays: dict[str, Any] = {str(i): _bytes(array) for i, array in enumerate(found.arrays)}
    unfinished = f"{path}.new"
    try:
        with open(unfinished, "wb") as file:
            np.savez(file, step=np.frombuffer(text.encode(), np.uint8), **arrays)
        os.replace(unfinished, path)
    except BaseException:  # a full disk, or Ctrl-C
        Path(unfinished).unlink(missing_ok=True)
        raise


def read_step(
    path: str | PathLike, model: keras.Model | None = None
) -> tuple[StepRecord, StepSpec]:
    """Read a recorded step.

    model: the model that took the step, built anew. Its code is traced where a part has no derived
        rule; without it such parts cannot be judged.

    Raises:
        DataError: the file is not a step that `write_step` wrote, or one of another model.
        UnsupportedModelError: a class of the model is not imported here, and `model` was given.
    """
    built = None if model is None else keras_compat.parts(model)
    names = _names()
    try:
        # np.load leaves a file open that it cannot read
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            held = json.loads(file["step"].tobytes())
            form = held["format"]
            if form == _FORMAT:
                raw = [file[str(i)] for i in range(len(held["arrays"]))]
                arrays = tuple(map(_array, raw, held["arrays"]))
                record, spec = _restored(held, arrays, names)
                recorded = None if built is None else keras_compat.parts(spec[0])
    except _MALFORMED as error:
        raise DataError(
            f"{path} cannot be read as a recorded step ({error}). Expected a file that gradaudit "
            "wrote."
        ) from error
    if form != _FORMAT:
        raise DataError(
            f"{path} has the format {form!r}. Expected {_FORMAT!r}. Read it with the version of "
            "gradaudit that wrote it."
        )
    copy, optimizer, config, versions = spec
    replay = _replay(record.jit)
    if model is None or built is None or recorded is None:
        return record, StepSpec(copy, optimizer, config, Detached(replay), versions)
    framework = TensorFlow(model, copy, _paired(recorded, built, model, path), replay)
    return record, StepSpec(copy, optimizer, config, framework, versions)


@functools.cache
def _replay(jit: bool) -> Replay:
    """Return what repeats the draws of steps: one for all, since it compiles each kind of draw."""
    return Replay(jit)


def _restored(
    held: dict[str, Any], arrays: tuple[np.ndarray, ...], names: dict[tuple[str, str], Any]
) -> tuple[StepRecord, tuple[Any, Any, Config, dict[str, str]]]:
    """Return the record of a file, and the parts of its spec."""
    live = tuple(_found(module, name, names) for module, name in held["live"])
    objects = tuple((kind, parts) for kind, parts in held["objects"])
    (fields, (copy, optimizer, settings, versions)), _ = restored(
        Structure(held["root"], objects, arrays, live)
    )
    expected = {
        "a model": isinstance(copy, keras.Model | Missing),
        "an optimizer": isinstance(optimizer, keras.optimizers.Optimizer | Missing | None),
        "settings": isinstance(settings, dict),
        "versions": isinstance(versions, dict),
    }
    wrong = [name for name, right in expected.items() if not right]
    if wrong:
        raise TypeError(f"it holds something else for {', '.join(wrong)}")
    return StepRecord(**fields), (copy, optimizer, Config(**settings), versions)


def _paired(
    recorded: list[Any], built: list[Any], model: keras.Model, path: str | PathLike
) -> dict[int, Any]:
    """Return the parts of a model, and their variables, by the ids of those that were recorded."""
    kinds, own = ([type(part).__name__ for part in parts] for parts in (recorded, built))
    if kinds != own:
        raise DataError(
            f"{path} is a step of another model than {model.name!r}. Expected layers and "
            f"operations of the classes {', '.join(kinds)}, not {', '.join(own)}."
        )
    paired = {id(part): own for part, own in zip(recorded, built, strict=True)}
    for part, own in zip(recorded, built, strict=True):
        state, live = keras_compat.state_of(part), keras_compat.state_of(own)
        paired |= {id(v): x for v, x in zip(state, live, strict=False)}  # none of one not built
    return paired


# Arrays


def _bytes(array: np.ndarray) -> np.ndarray:
    plain = array.tobytes() if dtype_name(array.dtype) else b""  # text is in the JSON
    return np.frombuffer(plain, np.uint8)


def _described(array: np.ndarray) -> dict[str, Any]:
    """Return dtype and shape of an array, and its text where it is not plain bytes."""
    name = dtype_name(array.dtype)
    if name is not None:
        return {"dtype": name, "shape": array.shape}
    flat = array.ravel().tolist()  # tf.string tensors are arrays of bytes objects
    kinds = {kind.__name__ for kind in map(type, flat)}
    if array.dtype.names or len(kinds) > 1 or not kinds <= {"str", "bytes"}:
        raise DataError(
            f"the step holds an array of dtype {array.dtype} and of the types "
            f"{', '.join(sorted(kinds))}. Expected numbers or text. Judge the step in the process "
            "that trained, or keep such an array in a list."
        )
    text = [x.decode("latin-1") if isinstance(x, bytes) else x for x in flat]
    kind = "object" if array.dtype.kind == "O" else "text"
    return {"dtype": kind, "shape": array.shape, "bytes": kinds == {"bytes"}, "text": text}


def _array(raw: np.ndarray, described: dict[str, Any]) -> np.ndarray:
    """Return the array that `_described` and `_bytes` have made of one."""
    shape = described["shape"]
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"{shape} is no shape")
    if "text" not in described:
        return np.frombuffer(raw.tobytes(), dtype_of(described["dtype"])).reshape(shape)
    text = described["text"]
    if not all(type(x) is str for x in text):
        raise TypeError("an array of text holds something else")
    held = [x.encode("latin-1") for x in text] if described["bytes"] else text
    kinds: dict[str, Any] = {"object": np.dtype(object), "text": np.dtypes.StringDType()}
    return np.array(held, kinds[described["dtype"]]).reshape(shape)


# Names


def _names() -> dict[tuple[str, str], Any]:
    """Return the targets and the functions of rules, and Keras's named tuples, by their names."""
    known = [x for rule in all_rules() for x in (rule.target, rule.function)]
    return {
        **{(x.__module__, x.__qualname__): x for x in known},
        **{name: kind for kind, name in keras_compat.QUALIFIED.items()},
    }


def _name(x: Any, names: dict[tuple[str, str], Any]) -> tuple[str, str]:
    """Return the module and the qualified name of a class or a function; of others their type."""
    own = getattr(x, "__module__", None), getattr(x, "__qualname__", None)
    module, name = keras_compat.QUALIFIED.get(x, own) if isinstance(x, type) else own
    if isinstance(module, str) and isinstance(name, str) and _looked_up(module, name, names) is x:
        return module, name
    return "", f"{type(x).__module__}.{type(x).__qualname__}"


def _found(module: str, name: str, names: dict[tuple[str, str], Any]) -> Any:
    """Return what has a name, or `Missing`."""
    found = _looked_up(module, name, names)
    return Missing(f"{module}.{name}".strip(".")) if found is None else found


def _looked_up(module: str, name: str, names: dict[tuple[str, str], Any]) -> Any:
    """Return the class or the function of a name; None if there is none that a file may name.

    Attributes are read off `vars`: a module's or a class's own code for attributes does not run.
    """
    if (module, name) in names:
        return names[module, name]
    found: Any = sys.modules.get(module)
    if type(found) is not types.ModuleType:
        return None
    for part in name.split("."):
        if not isinstance(found, type | types.ModuleType):
            return None
        found = vars(found).get(part)
    return found if _may_be_named(found) and found.__module__ == module else None


def _may_be_named(x: Any) -> bool:
    """Return whether something is a class of models, an enumeration, or a named tuple of Keras."""
    if not isinstance(x, type):
        return False
    if issubclass(x, keras_compat.STRUCTURAL) or type(x) is enum.EnumType:
        return True
    of_keras = x.__module__.partition(".")[0] == "keras"
    return of_keras and issubclass(x, tuple) and hasattr(x, "_fields")
