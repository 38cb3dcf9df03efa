"""The tensors of a run, and the arguments of a call in a Keras graph, with Keras's masks."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import tree

from gradaudit import keras_compat
from gradaudit.errors import GapCode, UnsupportedModelError
from gradaudit.numerics import numbers
from gradaudit.numerics.arithmetic import Array
from gradaudit.records import Gap, StepRecord
from gradaudit.reference.graph import bound, is_mask
from gradaudit.rules.tape import Primal


@dataclass(eq=False)
class Tensor(Primal):
    """One tensor of the step in one run.

    value: integers and booleans are bare NumPy arrays. dtype: the framework's.
    logits: the argument of the softmax or sigmoid that made it, which Keras keeps for losses.
    hides_logits: Keras keeps logits on it that this run does not have.
    mask: Keras's mask: True for the elements that layers and losses take notice of.
    source: what it was made from, in a run that is watched.
    """

    value: Array
    dtype: str
    logits: "Tensor | None" = None
    hides_logits: bool = False
    mask: np.ndarray | None = None
    source: "Tensor | None" = None


def held_by(
    node: Any, held: Mapping[int, Tensor], tensor: Callable[[Any], Tensor]
) -> dict[str, Any]:
    """Return the arguments of a call by name, with the tensors of this run.

    tensor: makes one from a variable, or from an array of constants. An operation gets a number or
    an array that is an argument of its own as it is; a layer gets every array as a tensor.
    """

    def of_run(name: str, value: Any) -> Any:
        leaves = tree.flatten(value)
        in_list = any(id(leaf) in held for leaf in leaves)
        constants = (isinstance(node.operation, keras.Layer) or in_list) and not is_mask(name)

        def replaced(leaf: Any) -> Any:
            if id(leaf) in held:
                return held[id(leaf)]
            is_array = constants and hasattr(leaf, "__array__")
            return tensor(leaf) if is_array or isinstance(leaf, keras.Variable) else leaf

        return tree.map_structure(replaced, value)

    return {name: of_run(name, value) for name, value in bound(node).items()}


def with_masks(layer: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call's arguments and the masks that Keras takes from its tensors.

    keras/src/layers/layer.py, step 6 of Layer.__call__: `mask` where one argument holds all
    tensors, `value_mask` for `value` and so on where several do. Merging layers read the masks off
    the tensors themselves.
    """
    names = inspect.signature(layer.call).parameters
    tensors = {
        name: value
        for name, value in given.items()
        if (flat := tree.flatten(value)) and all(_is_tensor(x) or x is None for x in flat)
    }
    found = dict(given)
    for name, value in tensors.items():
        own = "mask" if len(tensors) == 1 else f"{name}_mask"
        if (own in names or keras_compat.reads_masks(layer)) and own not in given:
            mask = tree.map_structure(mask_of, value)
            if any(part is not None for part in tree.flatten(mask)):
                found[own] = mask
    return found


def tensors_of(arguments: Mapping[str, Any]) -> list[Tensor]:
    """Return the tensors that a call differentiates by, in the order of its arguments."""
    return [
        leaf
        for name, value in arguments.items()
        if not is_mask(name)
        for leaf in tree.flatten(value)
        if isinstance(leaf, Tensor)
    ]


def others_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the other arguments of a call, masks as bare arrays."""
    found = {}
    for name, value in arguments.items():
        if is_mask(name):
            found[name] = tree.map_structure(
                lambda leaf: None if leaf is None else numbers(getattr(leaf, "value", leaf)), value
            )
        elif not any(isinstance(leaf, Tensor) for leaf in tree.flatten(value)):
            found[name] = value
    return found


def inputs_of(given: Any) -> list[Tensor]:
    """Return the tensors in a call's arguments, the masks on some, and the logits on some."""
    tensors = [leaf for leaf in tree.flatten(given) if isinstance(leaf, Tensor)]
    masks = [Tensor(x.mask, "bool") for x in tensors if x.mask is not None]
    return [*tensors, *masks, *(x.logits for x in tensors if x.logits is not None)]


def mask_outputs(outputs: Sequence[Tensor], masks: Sequence[np.ndarray | None]) -> None:
    """Put masks on those outputs that have none, unless all have: Layer._set_mask_metadata."""
    for y, mask in zip(outputs, masks, strict=False):
        if y.mask is None and mask is not None:
            y.mask = mask


def mask_of(leaf: Any) -> np.ndarray | None:
    """Return the mask of a tensor; None for anything else."""
    return leaf.mask if isinstance(leaf, Tensor) else None


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) or hasattr(leaf, "__array__")


def bare(leaf: Any) -> Any:
    """Return a tensor's bare numbers in the framework's dtype; anything else as it is."""
    return numbers(leaf.value).astype(leaf.dtype) if isinstance(leaf, Tensor) else leaf


def dense(array: Any, what: str, part: str = "") -> np.ndarray:
    """Return an array of numbers that a step was given.

    what: describes it in a message. part: the name of what it is given to.

    Raises:
        UnsupportedModelError: it holds something else than numbers.
    """
    array = np.asarray(array)
    if array.dtype.kind not in "fiub":
        raise UnsupportedModelError(
            f"{what} is an array of {array.dtype}. Expected dense numbers. Convert it before fit.",
            GapCode.DATA,
            part,
        )
    return array


def without_rows(parts: Mapping[str, Any]) -> list[str]:
    """Return the names of the parts of a batch in which an array has no rows, or is missing."""

    def is_empty(leaf: Any) -> bool:
        shape = np.shape(leaf)
        return len(shape) > 0 and shape[0] == 0

    leaves = {name: tree.flatten(part) for name, part in parts.items()}
    return [name for name, found in leaves.items() if not found or any(map(is_empty, found))]


def empty_gaps(record: StepRecord) -> tuple[Gap, ...]:
    """Return the gap of a step on a batch without rows: its loss is a mean of nothing.

    One of several replicas may rightly have no rows, of a batch that is smaller than their number.
    """
    parts = {"x": record.x, "y": record.y, "sample_weight": record.sample_weight}
    if record.replicas > 1 or not (empty := without_rows(parts)):
        return ()
    words = f"the batch has no rows ({' and '.join(empty)}), so there is nothing to judge"
    return (Gap(GapCode.EMPTY, "", words),)
