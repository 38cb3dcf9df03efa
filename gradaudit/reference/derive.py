"""From a StepRecord to its Reference: three runs of the same rules, and κ."""

import time
from collections.abc import Iterator
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
from gradaudit.records import Arrays, Estimate, Reference, StepRecord
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
    """

    def __init__(self, model: keras.Model, replay: Replay) -> None:
        self._model = model
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
        """Return the reference of one step; its updates are derived as they are read."""
        start = time.perf_counter()
        variables = self._model.trainable_variables
        loss, gradients, updates = None, {}, ()
        unjudged: dict[tuple[str, str], str] = {}
        with np.errstate(all="ignore"):  # what is not finite here is compared like the rest
            if self._gradient_gaps:
                reason = "; ".join(self._gradient_gaps)
                unjudged.update({("gradient", v.path): reason for v in variables})
            else:
                runs = [self._gradients(record, a) for a in self._arithmetics(record)]
                found = self._combined(record, runs)
                loss = found.pop("")
                gradients = {v.path: found.get(v.path) or _nothing(v) for v in variables}
            if self._update_gaps:
                reason = "; ".join(self._update_gaps)
                unjudged.update({("update", v.path): reason for v in variables})
            else:
                updates = self._updates(record)
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

    def _updates(self, record: StepRecord) -> Iterator[tuple[str, Estimate]]:
        """Yield the change of each variable; the runs go side by side, weight by weight."""
        optimizer, variables = self._model.optimizer, self._model.trainable_variables
        before = record.variables | record.optimizer_variables
        given = optimizer, variables, before, record.replica_gradients, record.learning_rate
        runs = [updated(*given, arithmetic) for arithmetic in self._arithmetics(record)]
        while True:
            with np.errstate(all="ignore"):
                after = [next(run, None) for run in runs]
                if after[0] is None:
                    return
                found = self._combined(record, after, before)
            del after  # so that the next weight does not begin beside it
            yield from found.items()

    def _arithmetics(self, record: StepRecord) -> list[Arithmetic]:
        """Return the arithmetics to run rules in: with rounding errors, as a twin, and in float32.

        The third is there where κ, or what XLA may leave out, is measured by it.
        """
        reference = Rounding(tensorfloat32=record.tensorfloat32)
        if self._halves:
            return [reference, Simulating(), *([_FLOAT32] if record.jit else [])]
        differs = self._dtypes != {"float32"} or record.tensorfloat32
        return [reference, Plain(np.float32), *([_FLOAT32] if differs else [])]

    def _combined(
        self,
        record: StepRecord,
        runs: list[dict[str, Array]],
        before: Arrays | None = None,
    ) -> dict[str, Estimate]:
        """Combine the runs in the `_arithmetics`.

        before: where given, the estimates are of the changes since these values.
        """
        reference, twin, single = runs[0], runs[1], runs[-1] if len(runs) == 3 else runs[0]
        measured = reference if self._halves else single
        estimates = {}
        for path, found in reference.items():
            kappa = _kappa(twin[path], measured[path])
            sigma = kappa * found.sigma
            if self._halves and record.jit:
                # XLA may leave out casts to a half precision and back (xla_allow_excess_precision).
                sigma = np.hypot(sigma, found.value - single[path].value)
            start = 0.0 if before is None else np.asarray(before[path], np.float64)
            estimates[path] = Estimate(found.value - start, sigma, found.kink, kappa, "derived")
        return estimates

    @property
    def _halves(self) -> bool:
        return bool(self._dtypes & {"float16", "bfloat16"})


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
