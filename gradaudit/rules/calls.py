"""What a rule is given besides its arrays: one call object for each kind of rule."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from gradaudit.errors import UnsupportedModelError
from gradaudit.numerics import Arithmetic
from gradaudit.numerics.arithmetic import Array
from gradaudit.rules.registry import find_rule

Vjp = Callable[[Array], Array]


class Draw(Protocol):
    """Draws again what a layer drew from its seed generator in the audited step."""

    def __call__(self, layer: Any, name: str, shape: tuple[int, ...], **options: Any) -> np.ndarray:
        """Return `keras.random.<name>` of a layer's own seed, applied to ones of `shape`."""


@dataclass(frozen=True)
class ActivationCall:
    """options: the keyword arguments bound to the activation function."""

    options: Mapping[str, Any]


@dataclass(frozen=True)
class LayerCall:
    """One call of a Keras layer in the audited step.

    layer: the Keras layer, for its configuration.
    weights: its variables by name, cast to the layer's compute dtype.
    training: whether the layer was called as in training.
    arithmetic: makes arrays.
    draw: repeats the layer's random draws.
    to_logits: the pre-activation is asked for: whoever calls the rule applies the activation.
    """

    layer: Any
    weights: Mapping[str, Array]
    training: bool
    arithmetic: Arithmetic
    draw: Draw
    to_logits: bool = False

    def array(self, value: ArrayLike) -> Array:
        """Return a constant in the layer's compute dtype."""
        return self.arithmetic.array(value, self.layer.compute_dtype)

    def activate(self, z: Array) -> tuple[Array, Vjp]:
        """Return the layer's activation of z and its VJP."""
        if self.to_logits:
            return z, lambda dy: dy
        return apply_activation(self.layer.activation, z)


def apply_activation(activation: Any, z: Array) -> tuple[Array, Vjp]:
    """Return activation(z) and its VJP, by the activation's rule.

    Raises:
        UnsupportedModelError: the activation has no rule.
    """
    known = find_rule(activation)
    if known is None or known.kind != "activation":
        raise UnsupportedModelError(
            f"the activation {activation!r} has no derived rule. Expected a function of "
            "keras.activations. Register one with gradaudit.rule."
        )
    options = activation.keywords if isinstance(activation, functools.partial) else {}
    return known.function(ActivationCall(options), z)


@dataclass(frozen=True)
class LossCall:
    """One call of a Keras loss in the audited step.

    loss: the Keras loss. options: the keyword arguments bound to its function.
    dtype: in which the loss is computed.
    """

    loss: Any
    options: Mapping[str, Any]
    dtype: str
    arithmetic: Arithmetic
    epsilon: float

    def array(self, value: ArrayLike) -> Array:
        """Return targets or a constant as an array of the loss's dtype."""
        return self.arithmetic.array(value, self.dtype)


@dataclass(frozen=True)
class RegularizerCall:
    """One penalty of a Keras regularizer on a weight, or on the output of a layer.

    regularizer: for its factors. dtype: of what it penalizes, in which the penalty is computed.
    """

    regularizer: Any
    dtype: str
    arithmetic: Arithmetic
    epsilon: float

    def array(self, value: ArrayLike) -> Array:
        """Return a constant tensor of the regularizer, cast to the dtype."""
        return self.arithmetic.array(value, self.dtype)

    def number(self, factor: float) -> Array:
        """Return a Python number of the regularizer as `keras.ops.cast` makes it a constant."""
        return _cast_number(self.arithmetic, factor, self.dtype)


@dataclass(frozen=True)
class UpdateCall:
    """One update of one weight by a Keras optimizer.

    optimizer: for its hyperparameters. step: number of updates before this one (with
        `gradient_accumulation_steps`, not of steps).
    learning_rate: in this step, an array of shape (). dtype: of the weight.
    """

    optimizer: Any
    step: int
    learning_rate: Array
    dtype: str
    arithmetic: Arithmetic

    def number(self, hyperparameter: float) -> Array:
        """Return a hyperparameter as `keras.ops.cast` makes it a constant of the weight's dtype."""
        return _cast_number(self.arithmetic, hyperparameter, self.dtype)


def _cast_number(arithmetic: Arithmetic, number: float, dtype: str) -> Array:
    """Return what TensorFlow casts a Python number to: it makes it a float32 first."""
    return arithmetic.array(float(np.float32(number)), dtype)


@dataclass(frozen=True)
class ConstraintCall:
    """One application of a constraint to a weight after its update.

    constraint: the Keras constraint. epsilon: `keras.config.epsilon()`.
    """

    constraint: Any
    epsilon: float
