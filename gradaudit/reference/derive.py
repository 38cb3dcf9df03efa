"""From a StepRecord to its Reference: three runs of the same rules, and κ."""

import functools
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from gradaudit.errors import UnsupportedModelError
from gradaudit.numerics import (
    PRECISIONS,
    Arithmetic,
    Plain,
    Rounded,
    Rounding,
    Simulated,
    Simulating,
)
from gradaudit.numerics.arithmetic import Array
from gradaudit.records import Estimate, Reference, StepRecord
from gradaudit.reference.gaps import model_gaps, update_gaps
from gradaudit.reference.losses import (
    Given,
    LossTerm,
    given_to_losses,
    loss_terms,
    takes_logits,
)
from gradaudit.reference.update import updated
from gradaudit.reference.walk import Replay, Tensor, Walk, in_order, packed
from gradaudit.rules import LossCall
from gradaudit.rules.losses.reduction import reduce_losses, same_rank

_FLOAT32 = Rounding(uniform=PRECISIONS["float32"])


class Derivation:
    """Derives the reference of each audited step of one model.

    Args:
        model: a built, compiled Keras model.
        replay: repeats a random draw, as `gradaudit.capture.replay` does.
        wanted: whether a weight is asked for, by its path.
    """

    def __init__(
        self, model: keras.Model, replay: Replay, wanted: Callable[[str], bool] = lambda path: True
    ) -> None:
        self._model = model
        self._wanted = wanted
        self._replay = replay
        self._gradient_gaps = model_gaps(model)
        self._update_gaps = update_gaps(model)
        self._dtypes = {layer.compute_dtype for layer in model._flatten_layers()}
        self._dtypes |= {v.dtype for v in model.trainable_variables}
        self._terms = loss_terms(model)
        self._dtypes |= {term.dtype for term in self._terms}

    def __call__(self, record: StepRecord) -> Reference:
        """Return the reference of one step."""
        start = time.perf_counter()
        variables = [v for v in self._model.trainable_variables if self._wanted(v.path)]
        loss, gradients, updates = None, {}, {}
        unjudged: dict[tuple[str, str], str] = {}
        with np.errstate(all="ignore"):  # what is not finite here is compared like the rest
            if self._gradient_gaps:
                reason = "; ".join(self._gradient_gaps)
                unjudged.update({("gradient", v.path): reason for v in variables})
            else:
                found = self._estimates(functools.partial(self._gradients, record), record)
                loss = found.pop("")
                gradients = {v.path: found.get(v.path) or _nothing(v) for v in variables}
            if self._update_gaps:
                reason = "; ".join(self._update_gaps)
                unjudged.update({("update", v.path): reason for v in variables})
            else:
                run = functools.partial(updated, self._model.optimizer, variables, record)
                before = record.variables | record.optimizer_variables
                updates = self._estimates(run, record, before)
        milliseconds = (time.perf_counter() - start) * 1e3
        return Reference(loss, gradients, updates, unjudged, milliseconds)

    def _gradients(self, record: StepRecord, arithmetic: Arithmetic) -> dict[str, Array]:
        """Return the gradient of each variable by path, and the loss under the empty path."""
        model = self._model
        walk = Walk(record.variables, arithmetic, self._replay)
        y_pred = packed(model, walk.model(model, _inputs(model, record.x, arithmetic)))
        given = given_to_losses(model, record.y, y_pred, record.sample_weight)
        losses = [
            self._loss(walk, term, part, record.replicas)
            for term, part in zip(self._terms, given, strict=False)
        ]
        walk.penalize_weights(model.trainable_variables)
        penalties = walk.penalties
        if record.replicas > 1:
            penalties = [walk.scale(penalty, 1.0 / record.replicas) for penalty in penalties]
        if losses:
            losses = [walk.total(losses)]
        loss = walk.total([*losses, *penalties])
        loss.add(arithmetic.array(self._loss_scale(record), loss.dtype))
        walk.backward()
        return {"": loss.value, **walk.cotangents}

    def _loss(self, walk: Walk, term: LossTerm, given: Given, replicas: int) -> Tensor:
        """Return one loss with its weight."""
        y_true, y = np.asarray(given.y_true), given.y_pred
        options = term.options
        # A last axis that the loss squeezes away takes the logits with it.
        squeezed = 1 < y_true.ndim == y.value.ndim - 1 and y.value.shape[-1] == 1
        if takes_logits(term) and y.logits is not None and y.dtype == term.dtype and not squeezed:
            y, options = y.logits, {**options, "from_logits": True}
        y = walk.cast(y, term.dtype)
        call = LossCall(term.loss, options, term.dtype, walk.arithmetic, keras.config.epsilon())
        true, ranked = same_rank(y_true, y.value)
        losses, loss_vjp = term.rule.function(call, true, ranked)
        loss, reduce_vjp = reduce_losses(
            call, losses, given.sample_weight, term.reduction, replicas
        )

        def vjp(dloss: Array) -> Array:
            dy = loss_vjp(reduce_vjp(dloss))
            if dy.size != y.value.size:
                raise UnsupportedModelError(
                    f"the targets {y_true.shape} are broadcast against the predictions "
                    f"{y.value.shape} by the loss {term.name!r}, which its rule does not do. "
                    "Expected one target each."
                )
            return dy.reshape(y.value.shape)

        total = walk.cast(walk.apply(y, (loss, vjp), term.dtype), self._model._compile_loss.dtype)
        return total if term.weight is None else walk.scale(total, term.weight)

    def _loss_scale(self, record: StepRecord) -> Any:
        optimizer = self._model.optimizer
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            return record.optimizer_variables[optimizer.dynamic_scale.path]
        return optimizer.loss_scale_factor or 1.0

    def _estimates(
        self,
        run: Callable[[Arithmetic], dict[str, Array]],
        record: StepRecord,
        before: dict[str, np.ndarray] | None = None,
    ) -> dict[str, Estimate]:
        """Run the rules with rounding errors and once as a twin, and combine the runs.

        before: where given, the estimates are of the changes since these values.
        """
        reference = run(Rounding(tensorfloat32=record.tensorfloat32))
        measured, twin, excess = reference, None, None
        if self._dtypes & {"float16", "bfloat16"}:
            twin = run(Simulating())
            # XLA may leave out casts to a half precision and back (xla_allow_excess_precision).
            excess = run(_FLOAT32) if record.jit else None
        else:
            twin = run(Plain(np.float32))
            if self._dtypes != {"float32"} or record.tensorfloat32:
                measured = run(_FLOAT32)
        estimates = {}
        for path, found in reference.items():
            kappa = _kappa(twin[path], measured[path])
            sigma = kappa * found.sigma
            if excess is not None:
                sigma = np.hypot(sigma, found.value - excess[path].value)
            start = 0.0 if before is None else np.asarray(before[path], np.float64)
            estimates[path] = Estimate(found.value - start, sigma, found.kink, kappa, "derived")
        return estimates


def _inputs(model: keras.Model, x: Any, arithmetic: Arithmetic) -> list[Tensor]:
    """Return a batch's inputs in the order of the model's own; integers become floats."""
    inputs = []
    for part in map(np.asarray, in_order(model, x)):
        if part.dtype.kind not in "fiub":
            raise UnsupportedModelError(
                f"an input of the model is an array of {part.dtype}. Expected dense numbers. "
                "Convert it before fit."
            )
        dtype = str(part.dtype) if part.dtype.kind == "f" else keras.config.floatx()
        inputs.append(Tensor(arithmetic.array(part, dtype), dtype))
    return inputs


def _kappa(twin: np.ndarray | Simulated, reference: Rounded) -> float:
    """Return κ = max(1, rms(|twin − reference| / σ)) over the elements that no kink dominates.

    The twin is the same rules run once more, in float32, or in simulated half precision. For
    float64 both are float32: κ is a ratio.
    """
    value = np.asarray(getattr(twin, "value", twin), np.float64)
    usable = (reference.sigma > 0) & np.isfinite(value) & np.isfinite(reference.value)
    if reference.kink is not None:
        usable = usable & (reference.kink <= reference.sigma)
    if not usable.any():
        return 1.0
    ratio = (value - reference.value)[usable] / reference.sigma[usable]
    return max(1.0, float(np.sqrt(np.mean(ratio**2))))


def _nothing(variable: Any) -> Estimate:
    """Return the estimate for a weight that the loss does not depend on."""
    zero = np.zeros(tuple(variable.shape))
    return Estimate(zero, zero, None, 1.0, "derived")
