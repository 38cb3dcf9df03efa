"""Where what is not finite in a step comes from."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import tree

from gradaudit.errors import UnsupportedModelError
from gradaudit.numerics import Arithmetic, Plain
from gradaudit.records import Origin, StepRecord
from gradaudit.reference.runs import Runs
from gradaudit.tracing.origin import Found, Origins, in_words
from gradaudit.tracing.values import kind_of

_UNKNOWN = (
    "no op makes it when the step is replayed op by op: a kernel of the framework does, or a "
    "gradient of your own"
)


def is_finite(record: StepRecord) -> bool:
    """Return whether a step's loss, gradients and new weights are finite."""
    after = (*record.variables_after.values(), *record.optimizer_variables_after.values())
    gradients = [gradient for gradient in record.gradients.values() if gradient is not None]
    loss = [] if record.loss is None else [np.asarray(record.loss)]
    return all(
        np.isfinite(array).all() for array in (*loss, *gradients, *after) if _is_float(array)
    )


def origin_of(runs: Runs) -> Origin:
    """Return where the first number of a step that is not finite comes from.

    Looked for in the batch, in the weights before the step, and in a replay of the step's graph, op
    by op, in the framework's precision; last where rounding errors may have led there.
    """
    record = runs.record
    for words in (*_in_the_batch(record), *_in_the_weights(record)):
        return Origin(words)
    found, loss = _replayed(runs, record.loss_scale)
    scaled = isinstance(runs.spec.optimizer, keras.optimizers.LossScaleOptimizer)
    if not scaled or record.loss is None or not np.isfinite(record.loss):
        return Origin(_origin(runs, found, loss))
    wide, wide_loss = _replayed(runs, record.loss_scale, unbounded=True)
    if _too_large(runs, found, wide):
        words = f"{_origin(runs, found, loss)} (the loss is scaled by {record.loss_scale:g})"
        return Origin(words, skipped=True)
    if wide.on_the_way_back or wide.singular:  # what no scale mends
        return Origin(_origin(runs, wide, wide_loss))
    return Origin(_origin(runs, found, loss))


def _too_large(runs: Runs, found: Origins, wide: Origins) -> bool:
    """Return whether gradients are not finite since they are too large: a smaller scale mends that.

    Something on the way back overflows, or may within rounding errors, and nothing would without
    a largest number. Keras halves the scale without an end, to below 1 if need be. It does not mend
    what overflows on the way forward.

    found: of the replay of the step. wide: of that without a largest number.
    """
    if wide.on_the_way_back is not None or found.broken > wide.broken:
        return False
    if found.on_the_way_back is None and overflow_of(runs) is None:
        return False
    # Whether XLA makes NaN of 0 times infinity is not known. If it does, the scale is soon so small
    # that nothing overflows.
    return wide.singular is None or runs.record.jit


def overflow_of(runs: Runs) -> Origin | None:
    """Return which op of a step may overflow, where one may and the step can be traced."""
    try:
        found = _watched(runs, runs.rounding(), runs.record.loss_scale)[0].doubtful
    except UnsupportedModelError:
        return None
    return None if found is None else Origin(_words(runs, found))


def _origin(runs: Runs, found: Origins, loss: Any) -> str:
    gradients = [each for each in runs.record.gradients.values() if each is not None]
    if all(np.isfinite(each).all() for each in gradients):  # a layer assigned it to a variable
        first = found.of(loss) or found.first()
    else:
        first = found.of(loss) or found.on_the_way_back or found.singular
    if first is None:
        first = _watched(runs, runs.rounding(), 1.0)[0].doubtful
    if first is None:
        return _UNKNOWN
    return _words(runs, first) + _vanished(runs, found, first)


def _words(runs: Runs, found: Found) -> str:
    rows = len(tree.flatten(runs.record.x)[0])
    return in_words(found, runs.layer_names, rows)


def _vanished(runs: Runs, found: Origins, first: Found) -> str:
    """Return words on an epsilon that a half precision holds as 0, in the same layer."""
    place = first.op.owner(runs.layer_names)
    for op in found.vanished:
        if op.owner(runs.layer_names) == place:
            where = f" at {op.place}" if op.place.file else ""
            dtype = op.dtypes[0].name
            return (
                f"; the constant of {op.kind}{where} is 0 in {dtype}: an epsilon too small for it"
            )
    return ""


def _replayed(runs: Runs, loss_scale: float, unbounded: bool = False) -> tuple[Origins, Any]:
    """Replay a step in the framework's own precision; return what was noted, and the loss.

    unbounded: half precisions have no largest number.
    """
    arithmetic: Arithmetic = Plain(np.float32)
    if runs.has_halves:
        arithmetic = dataclasses.replace(runs.simulating, unbounded=unbounded)
    elif "float64" in runs.dtypes:
        arithmetic = Plain(np.float64)
    return _watched(runs, arithmetic, loss_scale)


def _watched(runs: Runs, arithmetic: Arithmetic, loss_scale: float) -> tuple[Origins, Any]:
    record = dataclasses.replace(runs.record, loss_scale=loss_scale)
    watch = Origins(jit=record.jit)
    with np.errstate(all="ignore"):
        made = runs.watched(record, arithmetic, watch)
    return watch, made[""]


def _in_the_batch(record: StepRecord) -> Iterator[str]:
    for name, part in (("x", record.x), ("y", record.y), ("sample_weight", record.sample_weight)):
        for path, array in _named(name, part):
            if _is_float(array) and not np.isfinite(array).all():
                yield f"{path} {_where(array)}"


def _named(name: str, part: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays of a part of the batch, with their names."""
    if part is None:
        return
    leaves = tree.flatten_with_path(part)
    for path, leaf in leaves:
        yield name + "".join(f"[{key!r}]" for key in path), np.asarray(leaf)


def _where(array: np.ndarray) -> str:
    """Return what is not finite in a part of the batch: one place, a whole column, or how many."""
    bad = ~np.isfinite(array)
    index = tuple(int(i) for i in np.argwhere(bad)[0])
    what, count = kind_of(array[index]), int(bad.sum())
    if array.ndim == 2 and count > 1 and count == bad[:, index[1]].sum() == len(array):
        return f"is {what} in column {index[1]}, in every row"
    at = "".join(
        f"{axis} {i}" for axis, i in zip((" row", ", column"), index, strict=False)
    ).strip()
    if array.ndim > 2:
        at = f"row {index[0]}, at {list(index[1:])} in it"
    more = f" and at {count - 1} more of {array.size} places" if count > 1 else ""
    return f"is {what} at {at}{more}" if array.ndim else f"is {what}"


def _in_the_weights(record: StepRecord) -> Iterator[str]:
    for path, array in (record.variables | record.optimizer_variables).items():
        if _is_float(array) and not np.isfinite(array).all():
            index = [int(i) for i in np.argwhere(~np.isfinite(array))[0]]
            what = kind_of(array[tuple(index)])
            yield f"{path} is {what} before the step" + (f", at {index}" if index else "")


def _is_float(array: Any) -> bool:
    return np.asarray(array).dtype.kind == "f" or np.asarray(array).dtype.name == "bfloat16"
