"""A recorded step in a file: the record and its spec, without pickle.

The file is a NumPy archive (npz): `step`, a JSON text of the structure, and the arrays as bytes.
Classes and functions are names in it. Only names of Keras, and of what is imported already, are
looked up: a file imports no module of its own.
"""

import importlib
import json
import sys
from os import PathLike
from typing import Any

import keras
import ml_dtypes  # noqa: F401 - NumPy knows bfloat16 by name once it is imported
import numpy as np

from gradaudit import keras_compat
from gradaudit.backends.tensorflow.framework import Detached, TensorFlow
from gradaudit.backends.tensorflow.replay import Replay
from gradaudit.backends.tensorflow.structure import Missing, Structure, restored, structure
from gradaudit.errors import DataError
from gradaudit.records import Config, StepRecord, StepSpec

_FORMAT = "gradaudit step 1"


def write_step(path: str | PathLike, record: StepRecord, spec: StepSpec) -> None:
    """Write a recorded step to a file."""
    parts = spec.model, spec.optimizer, vars(spec.config), dict(spec.versions)
    found, _ = structure((vars(record), parts))
    text = json.dumps(
        {
            "format": _FORMAT,
            "root": found.root,
            "objects": found.objects,
            "live": [_name(x) for x in found.live],
            "arrays": [[array.dtype.name, array.shape] for array in found.arrays],
        }
    )
    arrays: dict[str, Any] = {str(i): _bytes(array) for i, array in enumerate(found.arrays)}
    with open(path, "wb") as file:
        np.savez_compressed(file, step=np.frombuffer(text.encode(), np.uint8), **arrays)


def read_step(
    path: str | PathLike, model: keras.Model | None = None
) -> tuple[StepRecord, StepSpec]:
    """Read a recorded step.

    model: the model that took the step, built anew. Its code is traced where a part has no derived
        rule; without it such parts cannot be judged.

    Raises:
        DataError: the file is not a step that `write_step` wrote, or one of another model.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            held = json.loads(file["step"].tobytes())
            raw = [file[str(i)] for i in range(len(held["arrays"]))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read as a recorded step ({error}). Expected a file that gradaudit "
            "wrote."
        ) from error
    if held.get("format") != _FORMAT:
        raise DataError(
            f"{path} has the format {held.get('format')!r}. Expected {_FORMAT!r}. Read it with the "
            "version of gradaudit that wrote it."
        )
    arrays = tuple(
        np.frombuffer(data.tobytes(), np.dtype(dtype)).reshape(shape)
        for data, (dtype, shape) in zip(raw, held["arrays"], strict=True)
    )
    found = Structure(
        held["root"], tuple(map(tuple, held["objects"])), arrays, tuple(map(_found, held["live"]))
    )
    (fields, (copy, optimizer, config, versions)), _ = restored(found)
    record = StepRecord(**fields)
    replay = Replay(record.jit)
    framework = (
        Detached(replay)
        if model is None
        else TensorFlow(model, copy, _paired(copy, model, path), replay)
    )
    return record, StepSpec(copy, optimizer, Config(**config), framework, versions)


def _paired(copy: keras.Model, model: keras.Model, path: str | PathLike) -> dict[int, Any]:
    """Return the parts of a model by the ids of those that were recorded."""
    recorded, built = keras_compat.parts(copy), keras_compat.parts(model)
    kinds, own = ([type(part).__name__ for part in parts] for parts in (recorded, built))
    if kinds != own:
        raise DataError(
            f"{path} is a step of another model than {model.name!r}. Expected layers and "
            f"operations of the classes {', '.join(kinds)}, not {', '.join(own)}."
        )
    return {id(part): own for part, own in zip(recorded, built, strict=True)}


def _bytes(array: np.ndarray) -> np.ndarray:
    return np.frombuffer(array.tobytes(), np.uint8)


def _name(x: Any) -> list[str]:
    """Return the module and the qualified name of a class or a function; of others their type."""
    own = getattr(x, "__module__", None), getattr(x, "__qualname__", None)
    module, name = keras_compat.QUALIFIED.get(x, own) if isinstance(x, type) else own
    if isinstance(module, str) and isinstance(name, str) and _looked_up(module, name) is x:
        return [module, name]
    return ["", f"{type(x).__module__}.{type(x).__qualname__}"]


def _found(names: list[str]) -> Any:
    module, name = names
    found = _looked_up(module, name) if module else None
    return Missing(f"{module}.{name}".strip(".")) if found is None else found


def _looked_up(module: str, name: str) -> Any:
    if module.partition(".")[0] in ("keras", "gradaudit"):
        importlib.import_module(module)
    found = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found
