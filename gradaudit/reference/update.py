"""Runs an optimizer's step through its rules: from the captured gradients to the new variables."""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from gradaudit import keras_compat
from gradaudit.keras_compat import Slot
from gradaudit.numerics import Arithmetic, Rounded, numbers
from gradaudit.numerics.arithmetic import Array
from gradaudit.records import Arrays
from gradaudit.reference.bounds import Cut, Part, bounded
from gradaudit.rules import (
    ConstraintCall,
    UpdateCall,
    keyed,
    moved_by,
    rule_for,
    single_optimizers,
)
from gradaudit.rules.optimizers.base import (
    clipped,
    decayed,
    global_norm,
    moving_average,
    weight_decay,
)

Gradients = Mapping[str, np.ndarray | Rounded | None]


def updated(
    optimizer: Any,
    variables: Sequence[Any],
    before: Arrays,
    replica_gradients: Sequence[Gradients],
    learning_rates: Sequence[float],
    arithmetic: Arithmetic,
    epsilon: float,
    assigned: Mapping[str, Array] = MappingProxyType({}),
    taken: Arrays | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the value after the step of each variable: one weight with its slots at a time.

    Values are arrays of the arithmetic, or `Bounded`.

    variables: the model's trainable Keras variables.
    before: those and the optimizer's, by the keys of `keyed`. replica_gradients: for each replica,
        as `optimizer.apply` received them. learning_rates: one for each of `single_optimizers`.
        Those that carry rounding errors, and no arrays, hand them on.
    epsilon: `keras.config.epsilon()`, for constraints.
    assigned: what layers assigned to weights in the step, before the optimizer, by path.
    taken: where given, the framework's values after the step: what is near to these has only a
        lower bound of its error, if the optimizer moves each element by itself.
    As keras/src/optimizers/base_optimizer.py and loss_scale_optimizer.py: gradients g / s for a
    loss scale s; under a LossScaleOptimizer a step with a gradient that is not finite is skipped
    and halves s, and every `dynamic_growth_steps` finite ones in a row double it. A MultiOptimizer
    counts the step and leaves the rest to the optimizers in it.
    """
    keys = {id(v): key for key, v in keyed(optimizer.variables).items()}
    inner, scale, finite = optimizer, getattr(optimizer, "loss_scale_factor", None), True
    written: set[str] = set()
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        inner = optimizer.inner_optimizer
        # Keras asks the first replica.
        given = (g for g in replica_gradients[0].values() if g is not None)
        finite = all(np.isfinite(numbers(g)).all() for g in given)
        scale_key, count_key = keys[id(optimizer.dynamic_scale)], keys[id(optimizer.step_counter)]
        scale, count = before[scale_key], before[count_key]
        grow = finite and count == optimizer.dynamic_growth_steps - 1
        factor = 0.5 if not finite else 2.0 if grow else 1.0
        counted = count + 1 if finite and not grow else 0
        written |= {scale_key, count_key}
        yield {
            scale_key: arithmetic.array(scale * factor, "float32"),
            count_key: arithmetic.array(counted, "float64"),
        }
    if finite and isinstance(inner, keras.optimizers.MultiOptimizer):
        count_key = keys[id(inner.iterations)]
        written.add(count_key)
        yield {count_key: arithmetic.array(before[count_key] + 1, "float64")}
    for single, rate in zip(single_optimizers(inner), learning_rates, strict=True):
        own = [v for v in variables if moved_by(inner, v) is single]
        if not (finite and own):
            continue
        step = _Step(
            single,
            keys,
            before,
            tuple(replica_gradients),
            scale,
            rate,
            arithmetic,
            assigned,
            epsilon,
            taken,
        )
        for after in step.run(own):
            # What all weights share is derived with each of them.
            new = {key: value for key, value in after.items() if key not in written}
            written |= new.keys()
            yield new
    for key, variable in [*((v.path, v) for v in variables), *keyed(optimizer.variables).items()]:
        if key not in written:
            held = assigned.get(key)
            yield {key: arithmetic.array(before[key], _float(variable)) if held is None else held}


def takes_parts(optimizer: Any, variable: Any) -> bool:
    """Return whether a step with a sparse gradient depends on the parts that it comes in.

    Keras 3 does not add what `tf.IndexedSlices` hold for an index more than once: a² + b² is then
    the square of a + b, parts are clipped one by one, and each rounds by itself. Accumulators make
    the gradient dense first.
    """
    return not moved_by(optimizer, variable).gradient_accumulation_steps


def _float(variable: Any) -> str:
    """Return the dtype to compute a variable in: its own, and float64 for a counter."""
    return variable.dtype if "float" in variable.dtype else "float64"


@dataclass(frozen=True)
class _Step:
    """One step of an optimizer, which may only gather gradients (gradient_accumulation_steps)."""

    optimizer: Any
    keys: dict[int, str]
    before: Mapping[str, np.ndarray]
    replica_gradients: tuple[Gradients, ...]
    scale: Any
    learning_rate: float
    arithmetic: Arithmetic
    assigned: Mapping[str, Array]
    epsilon: float
    taken: Arrays | None

    @functools.cached_property
    def _count(self) -> int:
        return int(self.before[self.keys[id(keras_compat.step_count(self.optimizer))]])

    @functools.cached_property
    def _gathered(self) -> int:
        return self.optimizer.gradient_accumulation_steps or 1

    @property
    def _iterations(self) -> int:
        return self._count // self._gathered

    @property
    def _applies(self) -> bool:
        return (self._count + 1) % self._gathered == 0

    def run(self, variables: Sequence[Any]) -> Iterator[dict[str, Any]]:
        """Yield the count of steps, then each weight with what belongs to it."""
        key = self.keys[id(keras_compat.step_count(self.optimizer))]
        yield {key: self.arithmetic.array(self._count + 1, "float64")}
        moving = [v for v in variables if self.replica_gradients[0].get(v.path) is not None]
        norms = self._global_norms(moving) if self._applies else []
        for variable in variables:
            if self.taken is not None and self._is_elementwise(variable):
                at = functools.partial(self._at, variable)
                yield bounded(at, self.taken, tuple(variable.shape))
            else:
                yield self.weight(variable, norms)

    def _is_elementwise(self, variable: Any) -> bool:
        """Return whether each element of a weight moves by itself."""
        optimizer = self.optimizer
        clips = optimizer.clipnorm or optimizer.global_clipnorm
        alone = rule_for(optimizer).elementwise and variable.constraint is None and not clips
        return alone and math.prod(variable.shape) > 1

    def _at(self, variable: Any, arithmetic: Arithmetic | None, part: Part) -> dict[str, Array]:
        """Return what `weight` does for some elements of the flattened weight.

        arithmetic: None for that of the step.
        """
        shape = tuple(variable.shape)
        given = tuple(
            {variable.path: None if g is None else g.reshape(-1)[part]}
            for g in (gradients[variable.path] for gradients in self.replica_gradients)
        )
        assigned = self.assigned.get(variable.path)
        of_part = replace(
            self,
            before=Cut(self.before, shape, part),
            replica_gradients=given,
            arithmetic=arithmetic or self.arithmetic,
            assigned={} if assigned is None else {variable.path: assigned.reshape(-1)[part]},
        )
        return of_part.weight(variable, [])

    def _global_norms(self, moving: list[Any]) -> list[Array]:
        """Return for each replica the norm of all gradients; nothing without global_clipnorm."""
        if not (self.optimizer.global_clipnorm and self.optimizer.global_clipnorm > 0):
            return []
        squares = [[np.sum(np.square(g)) for g in self._received(v)] for v in moving]
        return [global_norm(of_replica) for of_replica in zip(*squares, strict=True)]

    def _received(self, variable: Any) -> list[Array]:
        """Return each replica's gradient, unscaled; the mean of those gathered where it applies.

        A graph divides by a constant in multiplying by its reciprocal, rounded for all alike.
        """
        received = []
        for gradients in self.replica_gradients:
            given = gradients[variable.path]
            assert given is not None  # as the first replica has one
            is_rounded = isinstance(given, Rounded)
            g = given if is_rounded else self.arithmetic.array(given, variable.dtype)
            if self.scale is not None:
                g = g * (1 / self.arithmetic.array(self.scale, variable.dtype))
            if self._gathered > 1:
                g = g + self._held(self._of(Slot.GATHERED_GRADIENTS, variable))
                if self._applies:
                    g = g * (1 / self.arithmetic.array(self._gathered, variable.dtype))
            received.append(g)
        return received

    def weight(self, variable: Any, norms: list[Array]) -> dict[str, Array]:
        """Return a weight and what the optimizer holds for it, after the step."""
        optimizer = self.optimizer
        weight = self.assigned.get(variable.path)
        if weight is None:
            weight = self.arithmetic.array(self.before[variable.path], variable.dtype)
        moves = self.replica_gradients[0].get(variable.path) is not None
        after: dict[str, Array] = {}
        if moves and self._applies:
            received = self._received(variable)
            each = [
                clipped(optimizer, g, norms[replica] if norms else None)
                for replica, g in enumerate(received)
            ]
            weight, after = self._moved(variable, weight, functools.reduce(np.add, each))
        if self._gathered > 1:
            accumulator = self._of(Slot.GATHERED_GRADIENTS, variable)
            if self._applies:
                after[self.keys[id(accumulator)]] = np.zeros_like(self._held(accumulator))
            elif moves:
                after[self.keys[id(accumulator)]] = self._received(variable)[0]
        if optimizer.use_ema:
            average = self._of(Slot.WEIGHT_AVERAGES, variable)
            momentum = self.arithmetic.array(
                optimizer.ema_momentum if self._iterations else 0.0, variable.dtype
            )
            mean = moving_average(self._held(average), weight, momentum)
            after[self.keys[id(average)]] = mean
            every = optimizer.ema_overwrite_frequency
            if every and (self._iterations + 1) % every == 0:
                weight = mean
        if moves and variable.constraint is not None:
            call = ConstraintCall(variable.constraint, self.epsilon)
            weight = rule_for(variable.constraint).function(call, weight)
        return {variable.path: weight, **after}

    def _moved(
        self, variable: Any, weight: Array, gradient: Array
    ) -> tuple[Array, dict[str, Array]]:
        """Decay a weight and run the optimizer's rule; return it with its new slots by key."""
        rate = self.arithmetic.array(self.learning_rate, variable.dtype)
        call = UpdateCall(self.optimizer, self._iterations, rate, variable.dtype, self.arithmetic)
        decay = weight_decay(self.optimizer, variable)
        if decay is not None:
            weight = decayed(weight, call.number(decay), rate)
        rule = rule_for(self.optimizer)
        slots = {}
        for name, attribute in rule.slots:
            slot = self._of(attribute, variable)
            if id(slot) in self.keys:
                slots[name] = slot
        held = {name: self._held(slot) for name, slot in slots.items()}
        weight, new = rule.function(call, weight, gradient, held)
        return weight, {self.keys[id(slots[name])]: value for name, value in new.items()}

    def _of(self, attribute: str, variable: Any) -> Any:
        """Return what the optimizer holds in an attribute for one weight, or for all; or None."""
        return keras_compat.slot_variable(self.optimizer, attribute, variable)

    def _held(self, variable: Any) -> Array:
        return self.arithmetic.array(self.before[self.keys[id(variable)]], _float(variable))
