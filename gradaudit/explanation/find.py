"""Finds the weight that a user names: `W2[0,1]`, `b3[1]` or `dense_1/kernel[0,1]`."""

import re

import keras

from gradaudit.errors import UnknownNameError, UnsupportedModelError, UsageError
from gradaudit.explanation.notation import Notation
from gradaudit.records import Config, StepRecord
from gradaudit.reference.arguments import Tensor
from gradaudit.reference.backprop import forward
from gradaudit.reference.gaps import check_one_tensor_each, layer_gaps
from gradaudit.reference.quantity import WatchedCall
from gradaudit.reference.walk import Application

_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_NAMED = re.compile(r"([^\[\]]+?)\s*(?:\[\s*(\d+(?:\s*,\s*\d+)*)?\s*\])?")


def check_weight(model: keras.Model, record: StepRecord, config: Config, text: str) -> None:
    """Check that a model has a weight before any step is run.

    Args:
        model: a built model.
        record: any record of the model whose `x` is one row of its inputs.
        config: settings of Keras.
        text: names the weight.

    Raises:
        UsageError: the text has another form, several weights have the name, or the index is out of
            range.
        UnknownNameError: there is no trainable weight of that name.
        UnsupportedModelError: a layer has no rule, or takes or makes several tensors.
    """
    if gaps := layer_gaps(model):
        words = "; ".join(gap.message for gap in gaps)
        raise UnsupportedModelError(f"{words}. Register a rule with gradaudit.rule.")
    check_one_tensor_each(model)
    calls: list[WatchedCall] = []

    def note(application: Application, part: str, made: Tensor) -> Tensor:
        if part == "activation":
            calls.append(WatchedCall(**vars(application), z=None, y=made))
        return made

    forward(model, record, config, note)
    find_weight(model, Notation(calls, None, ""), text)


def find_weight(model: keras.Model, notation: Notation, text: str) -> tuple[str, tuple[int, ...]]:
    """Return the path and the index of the weight that a text names.

    Raises:
        UsageError: the text has another form, several weights have the name, or the index is out of
            range.
        UnknownNameError: there is no trainable weight of that name.
    """
    found = _NAMED.fullmatch(text.strip().translate(_SUBSCRIPTS))
    if found is None:
        raise UsageError(f"the weight is {text!r}. Expected a name and an index: W2[0,1].")
    name = found[1].replace("_", "") if re.fullmatch(r"[A-Za-z]_\d+", found[1]) else found[1]
    paths = {v.path: v for v in model.trainable_variables}
    symbols = {}
    for each in paths:
        symbol = notation.weight(each)
        symbols[symbol.letter + symbol.sub] = each
    path = symbols.get(name)
    if path is None:
        ends = [each for each in paths if f"/{each}".endswith(f"/{name}")]
        if len(ends) > 1:
            raise UsageError(
                f"the weight is {text!r}, which may be any of {', '.join(ends)}. Expected more of "
                "the path."
            )
        if not ends:
            raise UnknownNameError("trainable weight", name, [*symbols, *paths])
        (path,) = ends
    index = tuple(int(part) for part in found[2].split(",")) if found[2] else ()
    shape = tuple(paths[path].shape)
    if len(index) != len(shape) or any(i >= n for i, n in zip(index, shape, strict=True)):
        last = ",".join(str(n - 1) for n in shape)
        raise UsageError(
            f"the weight is {text!r}. Expected an index into the shape {shape} of {path}: "
            f"up to [{last}]."
        )
    return path, index
