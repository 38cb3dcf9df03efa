"""Which loss a model was compiled with, and whether it takes logits behind its predictions."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from gradaudit.rules import Rule, find_rule

# keras/src/backend/tensorflow/nn.py, _get_logits: these three compute from the logits that softmax
# and sigmoid leave on their output, whichever of the two it was.
_UNWRAPPING = (
    keras.losses.categorical_crossentropy,
    keras.losses.sparse_categorical_crossentropy,
    keras.losses.binary_crossentropy,
)
_LEAVING_LOGITS = (keras.activations.softmax, keras.activations.sigmoid)


@dataclass(frozen=True)
class LossTerm:
    """A compiled loss: its rule (None where there is none), options, reduction and dtype."""

    name: str
    loss: Any
    rule: Rule | None
    options: Mapping[str, Any]
    reduction: str | None
    dtype: str


def loss_term(model: keras.Model) -> LossTerm | str:
    """Return the loss that a model with one output was compiled with, or why it has none."""
    loss = model.loss
    if isinstance(loss, dict) and len(loss) == 1:
        (loss,) = loss.values()
    if isinstance(loss, (list, tuple)) and len(loss) == 1:
        (loss,) = loss
    if loss is None:
        return "it was compiled without a loss"
    if isinstance(loss, (dict, list, tuple)) or (model.built and len(model.outputs) > 1):
        return "it has several outputs or losses"
    if isinstance(loss, str):
        if loss in ("crossentropy", "ce"):
            return f"its loss {loss!r} is chosen by the data: name the loss that is meant"
        loss = keras.losses.get(loss)
    if not isinstance(loss, keras.losses.Loss):
        return LossTerm(
            getattr(loss, "__name__", str(loss)),
            loss,
            find_rule(loss),
            {},
            "sum_over_batch_size",
            keras.config.floatx(),
        )
    # keras.losses.MeanSquaredError and its like wrap a function; a Loss of one's own does not.
    function = getattr(loss, "fn", None)
    wrapped = function is not None and type(loss).call is keras.losses.MeanSquaredError.call
    return LossTerm(
        loss.name,
        loss,
        find_rule(function if wrapped else loss),
        loss._fn_kwargs if wrapped else {},
        loss.reduction,
        loss.dtype,
    )


def takes_logits(term: LossTerm, last_layer: Any) -> bool:
    """Return whether Keras computes this loss from the pre-activation of the last layer.

    A cast between the two, as in mixed precision, hides the logits from the loss.
    """
    activation = getattr(last_layer, "activation", None)
    if isinstance(activation, functools.partial):
        activation = activation.func
    return (
        term.rule is not None
        and term.rule.target in _UNWRAPPING
        and activation in _LEAVING_LOGITS
        and last_layer.compute_dtype == term.dtype
    )
