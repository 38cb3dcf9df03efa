"""One run of a step: forward through the model, its losses and penalties, and back."""

import functools
from typing import Any

import keras
import numpy as np

from gradaudit import keras_compat
from gradaudit.errors import GapCode, UnsupportedModelError
from gradaudit.numerics import Arithmetic, Plain
from gradaudit.numerics.arithmetic import Array
from gradaudit.records import Config, StepRecord
from gradaudit.reference.arguments import Tensor, dense
from gradaudit.reference.graph import in_order, packed
from gradaudit.reference.losses import (
    Given,
    LossTerm,
    given_to_losses,
    loss_terms,
    reads_logits,
    takes_logits,
)
from gradaudit.reference.walk import Walk, Watch
from gradaudit.rules import LossCall
from gradaudit.rules.losses.reduction import reduce_losses, same_rank


def backprop(model: keras.Model, record: StepRecord, walk: Walk, traced: bool = False) -> Tensor:
    """Run a step of a compiled model; return its loss. `walk.cotangents` are then complete.

    traced: whether the whole step is traced, not only its parts without a derived rule.

    Raises:
        UnsupportedModelError: the rules do not cover the data of this step.
    """
    loss = walk.traced_step(record) if traced else _forward(model, record, walk)
    loss.add(walk.arithmetic.array(record.loss_scale, loss.dtype))
    walk.backward()
    return loss


def _forward(model: keras.Model, record: StepRecord, walk: Walk) -> Tensor:
    y_pred = packed(model, walk.model(model, _inputs(model, record.x, walk.arithmetic)))
    given = given_to_losses(model, record.y, y_pred, record.sample_weight)
    total_dtype: Any = keras_compat.loss_dtype(model)
    losses = [
        _loss(walk, term, part, record.replicas, total_dtype)
        for term, part in zip(loss_terms(model), given, strict=False)
    ]
    walk.penalize_weights(model.trainable_variables)
    penalties = walk.penalties
    if record.replicas > 1:
        penalties = [walk.scale(penalty, 1.0 / record.replicas) for penalty in penalties]
    if losses:
        losses = [walk.total(losses)]
    return walk.total([*losses, *penalties])


def _loss(walk: Walk, term: LossTerm, given: Given, replicas: int, total_dtype: str) -> Tensor:
    """Return one loss with its weight, in the dtype of the sum of all."""
    y_true = dense(given.y_true, f"what the loss {term.name!r} compares with", term.name)
    y, rule = given.y_pred, term.rule
    if rule is None:
        raise UnsupportedModelError(
            f"the loss {term.name!r} has no derived rule. Register one with gradaudit.rule.",
            GapCode.NO_RULE,
            term.name,
        )
    options, logits = term.options, y.logits
    # Where the loss squeezes or adds a last axis, or casts, Keras makes a tensor without logits.
    if y.dtype != term.dtype or same_rank(y_true, y.value)[1].ndim != y.value.ndim:
        logits = None
    elif y.hides_logits and (takes_logits(term) or reads_logits(term)):
        raise UnsupportedModelError(
            f"the loss {term.name!r} is computed from the logits that Keras keeps on its "
            "predictions, and the rule of the layer that makes those does not return them. "
            "Expected another loss, or predictions from another layer.",
            GapCode.LOSS,
            term.name,
        )
    if takes_logits(term) and logits is not None:
        y, options = logits, {**options, "from_logits": True}
    read = logits if reads_logits(term) else None
    y = walk.cast(y, term.dtype)
    call = LossCall(
        term.loss,
        options,
        term.dtype,
        walk.arithmetic,
        walk.config.epsilon,
        None if read is None else read.value,
    )
    true, ranked = same_rank(y_true, y.value)
    losses, loss_vjp = rule.function(call, true, ranked)
    masks = [given.y_pred.mask]
    if rule.mask is not None:
        masks.append(rule.mask(call, true, losses))
    masks = [mask for mask in masks if mask is not None]
    loss, reduce_vjp = reduce_losses(
        call,
        losses,
        given.sample_weight,
        term.reduction,
        replicas,
        functools.reduce(np.logical_and, masks) if masks else None,
    )

    def vjp(dloss: Array) -> list[Array]:
        dy, dlogits = loss_vjp(reduce_vjp(dloss)), []
        if read is not None:
            dy, *dlogits = dy
        if dy.size != y.value.size:
            raise UnsupportedModelError(
                f"the targets {y_true.shape} are broadcast against the predictions "
                f"{y.value.shape} by the loss {term.name!r}, which its rule does not cover. "
                "Expected one target each.",
                part=term.name,
            )
        return [dy.reshape(y.value.shape), *dlogits]

    inputs = [y] if read is None else [y, read]
    (made,) = walk.record(inputs, [loss], term.dtype, vjp, frozenset(call.passed))
    if walk.watch is not None:
        made.source = y
    total = walk.cast(made, total_dtype)
    return total if term.weight is None else walk.scale(total, term.weight)


def forward(
    model: keras.Model, record: StepRecord, config: Config, watch: Watch | None = None
) -> Walk:
    """Run only the model of a step, in plain float64; random draws are replaced by ones."""
    walk = Walk(
        record.variables,
        Plain(np.float64),
        lambda name, state, shape, *_, **__: np.ones(shape),
        watch=watch,
        config=config,
    )
    walk.model(model, _inputs(model, record.x, walk.arithmetic))
    return walk


def _inputs(model: keras.Model, x: Any, arithmetic: Arithmetic) -> list[Tensor]:
    """Return a batch's inputs in the order of the model's own."""
    inputs = []
    for part in in_order(model, x):
        part = dense(part, "an input of the model")
        dtype = str(part.dtype)
        inputs.append(
            Tensor(arithmetic.array(part, dtype) if part.dtype.kind == "f" else part, dtype)
        )
    return inputs
