"""From a StepRecord to its Reference: three runs of the same rules, and κ."""

import functools
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import tree

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
from gradaudit.reference.losses import loss_term, takes_logits
from gradaudit.reference.update import updated
from gradaudit.reference.walk import Replay, Walk, model_inputs, output_layer
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
        if not self._gradient_gaps:
            self._term = loss_term(model)
            self._dtypes.add(self._term.dtype)
            self._to_logits = takes_logits(self._term, output_layer(model))

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
        model, term = self._model, self._term
        walk = Walk(record.variables, arithmetic, self._replay)
        raw = model_inputs(model, record.x)
        dtypes = [str(x.dtype) if x.dtype.kind == "f" else keras.config.floatx() for x in raw]
        inputs = [arithmetic.array(x, dtype) for x, dtype in zip(raw, dtypes, strict=True)]
        (true,) = tree.flatten(record.y)
        # A last axis that the loss squeezes away takes the logits with it.
        squeezed = true.ndim > 1 and true.ndim == len(model.output_shape) - 1
        to_logits = self._to_logits and not (squeezed and model.output_shape[-1] == 1)
        (y_pred,), (dtype,), backward = walk.model(model, inputs, dtypes, to_logits)

        options = dict(term.options) | ({"from_logits": True} if to_logits else {})
        call = LossCall(term.loss, options, term.dtype, arithmetic, keras.config.epsilon())
        y_true, ranked = same_rank(true, arithmetic.cast(y_pred, term.dtype))
        weight = next(iter(tree.flatten(record.sample_weight)), None)
        losses, loss_vjp = term.rule.function(call, y_true, ranked)
        loss, reduce_vjp = reduce_losses(call, losses, weight, term.reduction)

        scale = call.array(self._loss_scale(record))
        dy = loss_vjp(reduce_vjp(scale))
        if dy.size != y_pred.size:
            raise UnsupportedModelError(
                f"the targets {true.shape} are broadcast against the predictions {y_pred.shape} by "
                f"the loss {term.name!r}, which its rule does not do. Expected one target each."
            )
        dy = dy.reshape(y_pred.shape)
        backward([arithmetic.cast(dy, dtype)])
        return {"": loss, **walk.cotangents}

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
