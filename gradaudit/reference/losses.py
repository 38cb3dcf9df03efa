"""Which losses a model was compiled with, what each is given, and which of them take logits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras import tree

from gradaudit import keras_compat
from gradaudit.rules import Rule, find_rule
from gradaudit.rules.logits import used_logits


@dataclass(frozen=True)
class LossTerm:
    """One of the losses that a model was compiled with.

    output: the name that Keras gives it among several. rule: None where there is none.
    options: the keyword arguments of its function.
    dtype: in which it is computed. weight: its loss weight, None for none.
    path: of the output that it is for, within the structure of the outputs.
    """

    name: str
    output: str
    loss: Any
    rule: Rule | None
    options: Mapping[str, Any]
    reduction: str | None
    dtype: str
    weight: Any
    path: tuple[Any, ...]


def loss_terms(model: keras.Model) -> list[LossTerm]:
    """Return the losses that Keras made of those that a model was compiled with.

    They are there once Keras has computed the loss of a batch; before, there are none.
    """
    return [_term(*part) for part in keras_compat.compiled_losses(model)]


def _term(path: tuple[Any, ...], loss: Any, weight: Any, output: str) -> LossTerm:
    # keras.losses.MeanSquaredError and its like wrap a function; a Loss of one's own does not.
    function = getattr(loss, "fn", None)
    wrapped = function is not None and type(loss).call is keras.losses.MeanSquaredError.call
    options = getattr(function, "keywords", {})  # of a functools.partial
    return LossTerm(
        loss.name,
        output,
        loss,
        find_rule(function if wrapped else loss),
        {**options, **keras_compat.loss_options(loss)} if wrapped else {},
        loss.reduction,
        loss.dtype,
        weight,
        path,
    )


@dataclass(frozen=True)
class Given:
    """What one loss is given in a step: the leaves of the structures of the batch."""

    y_true: Any
    y_pred: Any
    sample_weight: Any


def given_to_losses(model: keras.Model, y: Any, y_pred: Any, sample_weight: Any) -> list[Given]:
    """Return what each of `loss_terms` is given, as Keras itself finds it; only those that count.

    Which targets belong to which output is Keras's decision, not ours.
    """
    given = keras_compat.given_to_losses(model, y, y_pred, sample_weight)
    found = [Given(*each) for each in given]
    # Of several losses on the single output of a model Keras counts the first, and no other.
    return found if tree.is_nested(y) or tree.is_nested(y_pred) else found[:1]


def takes_logits(term: LossTerm) -> bool:
    """Return whether Keras computes this loss from the logits, where its predictions have any."""
    return used_logits(term.rule, term.options) == "takes"


def reads_logits(term: LossTerm) -> bool:
    """Return whether Keras computes this loss from the predictions and from their logits."""
    return used_logits(term.rule, term.options) == "reads"
