"""What a rule is given besides its arrays: one call object for each kind of rule."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from gradaudit import keras_compat
from gradaudit.errors import GapCode, RuleDefinitionError, UnsupportedModelError
from gradaudit.numerics import Arithmetic, numbers
from gradaudit.numerics.arithmetic import Array
from gradaudit.records import Config, Passed, Provenance
from gradaudit.rules.registry import find_rule, rule_for

Vjp = Callable[[Array], Array]
Misleads = Callable[[str, str], None]
"""Notes where TensorFlow's gradient of an op is not the derivative: see `LayerCall.misleads`."""


def _not_noted(op_type: str, where: str) -> None:
    pass


class Step(Protocol):
    """What a rule may ask of the step that it is run in."""

    def draw(self, layer: Any, name: str, shape: tuple[int, ...], **options: Any) -> np.ndarray:
        """Repeat the next draw from a layer's seed generator.

        "dropout" is `keras.random.dropout` of ones; another name is that function of a shape.
        """

    def read(self, variable: Any, dtype: str) -> Array:
        """Return a variable's present value in the step, cast to a dtype."""

    def assign(self, variable: Any, value: Array) -> None:
        """Note a variable's new value."""


@dataclass(frozen=True)
class ActivationCall:
    """options: the keyword arguments bound to the function.

    misleads: that of the call of the layer that the activation is a part of.
    """

    options: Mapping[str, Any]
    misleads: Misleads = _not_noted


@dataclass(frozen=True)
class LayerCall:
    """One call of a Keras layer in the audited step, or of an operation.

    layer: the Keras layer, or the operation, for its configuration.
    weights: the layer's own variables by name, cast to its compute dtype where Keras casts them.
    arguments: what its call is given besides the tensors that it differentiates by: masks, as NumPy
        arrays, and options, by their names in the signature of `layer.call`; None is left out.
    training: whether the layer was called as in training.
    arithmetic: makes arrays. dtype: in which the layer computes.
    step: the step that the call is a part of. config: settings of Keras in that step.
    to_logits: `activate` returns the pre-activation: the caller of the rule applies the activation.
    passed: what `misleads` noted, of the layer and of its parts.
    """

    layer: Any
    weights: Mapping[str, Array]
    arguments: Mapping[str, Any]
    training: bool
    arithmetic: Arithmetic
    dtype: str
    step: Step
    config: Config
    to_logits: bool = False
    passed: set[Provenance] = field(default_factory=set)

    @property
    def epsilon(self) -> float:
        """`keras.config.epsilon()` in the step."""
        return self.config.epsilon

    def array(self, value: ArrayLike) -> Array:
        """Return a constant in the layer's compute dtype."""
        return self.arithmetic.array(value, self.dtype)

    def numbers(self, x: Array) -> np.ndarray:
        """Return bare numbers, for decisions that do not depend on rounding."""
        return numbers(x)

    def draw(self, layer: Any, name: str, shape: tuple[int, ...], **options: Any) -> np.ndarray:
        """Repeat the next random draw of the layer, or of a part of it."""
        return self.step.draw(layer, name, shape, **options)

    def assign(self, name: str, value: Array) -> None:
        """Note the new value of a variable of the layer.

        Raises:
            RuleDefinitionError: a gradient moves the variable, and the rule does not declare that
                it assigns to it.
        """
        variable, known = own_variables(self.layer)[name], find_rule(self.layer)
        if variable.trainable and known is not None and name not in known.assigns:
            raise RuleDefinitionError(
                f"the rule for {known.name} assigns to the trainable weight {name!r}, and does not "
                f"declare it. Add assigns=({name!r},) to its `rule(...)`."
            )
        self.step.assign(variable, value)

    def misleads(self, op_type: str, where: str) -> None:
        """Note that TensorFlow's gradient of an op of the layer is not the derivative.

        where: for which values, a clause such as "where x is 0".
        """
        self.passed.add(Provenance(Passed.MISLED, self.layer.name, op_type, detail=where))

    def activate(self, z: Array) -> tuple[Array, Vjp]:
        """Return the layer's activation of z and its VJP.

        Raises:
            UnsupportedModelError: the rule does not declare that it ends with the activation.
        """
        known = find_rule(self.layer)
        if known is not None and not known.ends_with_activation:
            raise UnsupportedModelError(
                f"the rule for {known.name} calls call.activate, and does not declare it. Add "
                "ends_with_activation=True to its `rule(...)` if that is the last thing that it "
                "does; elsewhere use gradaudit.rules.apply_activation.",
                GapCode.OPTION,
                getattr(self.layer, "name", ""),
            )
        if self.to_logits:
            return z, lambda dy: dy
        return apply_activation(self.layer.activation, z, self.misleads)

    def within(
        self, part: Any, x: Any, weights: Mapping[str, Array] | None = None, **arguments: Any
    ) -> tuple[Any, Callable[[Any], tuple[Any, dict[str, Array]]]]:
        """Run the rule of a layer that is a part of this one; its VJP keys cotangents by path.

        weights: arrays to use in place of the part's own weights, by name.
        """
        own = own_variables(part)
        held = {name: self.step.read(v, read_as(v, self.dtype)) for name, v in own.items()}
        call = replace(
            self,
            layer=part,
            weights={**held, **(weights or {})},
            arguments=arguments,
            to_logits=False,
        )
        y, rule_vjp = rule_for(part).function(call, x)

        def vjp(dy: Any) -> tuple[Any, dict[str, Array]]:
            dx, cotangents = rule_vjp(dy)
            return dx, {own[k].path if k in own else k: c for k, c in cotangents.items()}

        return y, vjp


def own_variables(layer: Any) -> dict[str, Any]:
    """Return the variables that a layer owns itself, and not by its parts, by name."""
    return {v.name: v for variables in keras_compat.own_variables(layer) for v in variables}


def assigned_weights(layer: Any) -> list[str]:
    """Return the paths of the weights of a layer to which its rule assigns before the optimizer."""
    known = find_rule(layer)
    names = () if known is None else known.assigns
    return [v.path for name, v in own_variables(layer).items() if name in names]


def read_as(variable: Any, dtype: str) -> str:
    """Return the dtype that a layer of some compute dtype reads a variable in."""
    return dtype if keras_compat.is_autocast(variable) else variable.dtype


def summed(*parts: Mapping[str, Array]) -> dict[str, Array]:
    """Return cotangents with those of the same key added."""
    found: dict[str, Array] = {}
    for part in parts:
        for key, cotangent in part.items():
            found[key] = found[key] + cotangent if key in found else cotangent
    return found


def apply_activation(
    activation: Any, z: Array, misleads: Misleads = _not_noted
) -> tuple[Array, Vjp]:
    """Return activation(z) and its VJP, by the activation's rule.

    misleads: that of the call which the activation is a part of.

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
    return known.function(ActivationCall(options, misleads), z)


@dataclass(frozen=True)
class LossCall:
    """One call of a Keras loss in the audited step.

    loss: the Keras loss. options: the keyword arguments bound to its function.
    dtype: in which the loss is computed.
    logits: what softmax or sigmoid made y_pred from, for a rule that reads both; its VJP then
        returns the cotangents of both.
    passed: what `misleads` noted.
    """

    loss: Any
    options: Mapping[str, Any]
    dtype: str
    arithmetic: Arithmetic
    epsilon: float
    logits: Array | None = None
    passed: set[Provenance] = field(default_factory=set)

    def misleads(self, op_type: str, where: str) -> None:
        """Note that TensorFlow's gradient of an op of the loss is not the derivative.

        where: for which values, a clause such as "where x is 0".
        """
        name = getattr(self.loss, "name", "")
        misled = Provenance(Passed.MISLED, name, op_type, layer="the loss", detail=where)
        self.passed.add(misled)

    def array(self, value: ArrayLike) -> Array:
        """Return targets or a constant as an array of the loss's dtype."""
        return self.arithmetic.array(value, self.dtype)

    def numbers(self, x: Array) -> np.ndarray:
        """Return bare numbers, for decisions that do not depend on rounding."""
        return numbers(x)


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
