"""The numbers of one step under the names that textbooks give them."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import tree

from gradaudit.errors import UnclearClaimError, UnknownNameError, UnsupportedModelError
from gradaudit.numerics import Rounded, Rounding, numbers
from gradaudit.numerics.arithmetic import Array
from gradaudit.records import Config, StepRecord
from gradaudit.reference.arguments import Tensor
from gradaudit.reference.backprop import backprop
from gradaudit.reference.gaps import check_one_tensor_each, model_gaps
from gradaudit.reference.quantity import (
    Quantity,
    WatchedCall,
    activation_name,
    activation_of,
    named_quantities,
)
from gradaudit.reference.update import updated
from gradaudit.reference.walk import Application, Replay, Walk
from gradaudit.rules import apply_activation

_INVERSES: dict[Any, Callable[[np.ndarray], np.ndarray]] = {
    keras.activations.softmax: np.log,  # up to a constant, which softmax does not see
    keras.activations.sigmoid: lambda y: np.log(y) - np.log1p(-y),
    keras.activations.tanh: np.arctanh,
    keras.activations.relu: lambda y: np.where(y <= 0, -1.0, y),  # any z below 0 makes y = 0
}
_ANY = 0.5
"""Stands in for a number that is not known, in a run that tells NaN from what is not known."""


class Quantities:
    """The numbers of one step of a model, by name.

    The layers that have weights are numbered from 1 in the order in which the model calls them. A
    name ends with the number (`_1`) or with the layer's name (`_hidden`); with neither where only
    one layer has weights. With S for that ending:

    - `input`, `target`, `loss`, `learning_rate`
    - `kernelS`, `biasS` and so on: the weights before the step; `updated_kernelS`: after it
    - `preactivationS`, `activationS`: what the layer makes before and after its activation
      function; `tanh_derivativeS`: the derivative of that function (here tanh) at that point
    - `logit`, `probability` and `output`: of the layer that makes the model's only output
    - with `d` before weights, pre-activations and activations: ∂loss/∂ it

    Arrays have the framework's shapes. Where the batch is one row, the batch axis is dropped.

    Args:
        model: a built Keras model, compiled with losses that have been computed once.
        record: of a step.
        replay: repeats the step's random draws.
        config: settings of Keras in the step.
        given: quantities that get other values than the step's; NaN keeps the step's value.
        unknown: masks of inputs, targets and weights that are not known, whatever the record has.

    Attributes:
        names: quantities by name.
        calls: the calls of layers in their order.
        rows: of the batch.
        unknown: masks of the numbers that are not known, and not given either.

    Raises:
        UnsupportedModelError: a part of the model has no rule, or the rules do not take data of
            this kind.
        UnclearClaimError: an activation is given, and its function has no known inverse.
    """

    def __init__(
        self,
        model: keras.Model,
        record: StepRecord,
        replay: Replay,
        config: Config,
        given: Mapping[Quantity, np.ndarray] | None = None,
        unknown: Mapping[Quantity, np.ndarray] | None = None,
    ) -> None:
        if gaps := model_gaps(model):
            words = "; ".join(gap.message for gap in gaps)
            raise UnsupportedModelError(
                f"{words}. Expected a model every part of which has a derived rule. "
                "Register one with gradaudit.rule."
            )
        check_one_tensor_each(model)
        self._arguments = (model, record, replay, config)
        self._model, self._config, self._given = model, config, given or {}
        self.unknown = {
            quantity: mask
            for quantity, each in (unknown or {}).items()
            if (mask := _left_open(each, self._given.get(quantity))).any()
        }
        self.rows = len(tree.flatten(record.x)[0])
        self._arithmetic = Rounding(tensorfloat32=record.tensorfloat32, half_sums=record.half_sums)
        self.calls: list[WatchedCall] = []
        self._z: Tensor | None = None
        self._variables = {
            path: self._overlaid(Quantity("weight", path=path), value)
            for path, value in record.variables.items()
        }
        self._record = replace(
            record,
            x=self._overlaid(Quantity("input"), record.x),
            y=self._overlaid(Quantity("target"), record.y),
        )
        self._walk = Walk(
            self._variables, self._arithmetic, replay, config=config, watch=self._watch
        )
        with np.errstate(all="ignore"):
            self._loss = backprop(model, self._record, self._walk)
        self.names = named_quantities(model, self.calls)

    @property
    def penalized(self) -> bool:
        """Whether regularizers add to the loss."""
        return bool(self._walk.penalties)

    def find(self, name: str) -> Quantity:
        """Return the quantity of a name.

        Raises:
            UnknownNameError: there is none.
        """
        if name not in self.names:
            raise UnknownNameError("quantity", name, self.names)
        return self.names[name]

    def __getitem__(self, quantity: Quantity) -> Rounded:
        """Return the values of a quantity, with their rounding errors; NaN where not known."""
        value = self.by_row(quantity)
        squeezed = self.rows == 1 and quantity.is_of_a_row and value.ndim
        return value[0] if squeezed else value

    @functools.cached_property
    def with_any(self) -> "Quantities":
        """The same step with some number in the place of each one that is not known."""
        given = {q: np.asarray(value, np.float64) for q, value in self._given.items()}
        for quantity, mask in self.unknown.items():
            own = given[quantity].reshape(mask.shape) if quantity in given else np.nan
            given[quantity] = np.where(mask, _ANY, own)
        return Quantities(*self._arguments, given)

    def by_row(self, quantity: Quantity) -> Rounded:
        """Return the values of a quantity with the batch axis, also where it has length 1."""
        value = self._computed(quantity)
        if value is None:
            return self._array(np.full(self.by_row(replace(quantity, d=False)).shape, np.nan))
        if self._needs_target(quantity) and Quantity("target") in self.unknown:
            return self._array(np.full(value.shape, np.nan))
        return value if isinstance(value, Rounded) else self._array(value)  # integers are bare

    def is_computed(self, quantity: Quantity) -> bool:
        """Return whether the step computes a quantity: a loss of logits sends y no cotangent."""
        return self._computed(quantity) is not None

    def _computed(self, quantity: Quantity) -> Array | None:
        with np.errstate(all="ignore"):
            return self._value(quantity)

    def _array(self, value: Any) -> Rounded:
        return self._arithmetic.array(value, self._config.floatx)

    def _needs_target(self, quantity: Quantity) -> bool:
        return quantity.part == "loss" or quantity.d or quantity.updated

    def _overlaid(self, quantity: Quantity, value: Any) -> Any:
        """Return values, replaced where other ones are given; NaN where they are not known."""
        given, unknown = self._given.get(quantity), self.unknown.get(quantity)
        if unknown is not None:
            value = np.where(unknown, np.nan, value)
        if given is None:
            return value
        given = np.asarray(given, np.float64).reshape(np.shape(value))
        return np.where(np.isnan(given), value, given)

    def _watch(self, application: Application, part: str, made: Tensor) -> Tensor:
        """Replace what a layer made by what is given, and note the call."""
        n = len(self.calls)
        if part == "preactivation":
            made = self._replaced(Quantity("preactivation", n), made)
            self._z = self._inverted(application.layer, Quantity("activation", n), made)
            return self._z
        z, self._z = self._z, None
        slope = Quantity("derivative", n)
        if z is not None and slope in self._given:
            made = self._with_slope(application.layer, slope, z, made)
        y = self._replaced(Quantity("activation", n), made)
        self.calls.append(WatchedCall(**vars(application), z=z, y=y))
        return y

    def _slope(self, layer: Any, z: Tensor) -> Array:
        """Return the derivative of a layer's elementwise activation function at z."""
        _, vjp = apply_activation(layer.activation, z.value)
        return vjp(self._arithmetic.array(np.ones(z.value.shape), z.dtype))

    def _with_slope(self, layer: Any, slope: Quantity, z: Tensor, made: Tensor) -> Tensor:
        """Return the output of an activation function whose derivative is given."""
        own = numbers(self._slope(layer, z))
        given = self._arithmetic.array(self._overlaid(slope, own), z.dtype)
        return self._walk.apply(z, (made.value, lambda dy: dy * given), made.dtype)

    def _replaced(self, quantity: Quantity, made: Tensor) -> Tensor:
        """Return a tensor with the value, and the cotangent, that are given for it."""
        value = made.value
        if quantity in self._given:
            given = self._overlaid(quantity, numbers(value))
            value = self._arithmetic.array(given, made.dtype)
        cotangent = self._given.get(replace(quantity, d=True))
        if value is made.value and cotangent is None:
            return made

        def vjp(dy: Array) -> Array:
            if cotangent is None:
                return dy
            given = self._overlaid(replace(quantity, d=True), numbers(dy))
            return self._arithmetic.array(given, made.dtype)

        replaced = self._walk.apply(made, (value, vjp), made.dtype)
        if cotangent is None:  # a loss that takes the logits sends none to this tensor
            replaced.logits = made.logits
        return replaced

    def _inverted(self, layer: Any, quantity: Quantity, z: Tensor) -> Tensor:
        """Return the pre-activation that makes the activation that is given, if one is."""
        if quantity not in self._given:
            return z
        inverse = _INVERSES.get(activation_of(layer))
        if inverse is None:
            raise UnclearClaimError(
                f"the output of {activation_name(layer)} is given, and its pre-activation cannot "
                "be computed from it: give the preactivation"
            )
        present, _ = apply_activation(layer.activation, z.value)
        given = self._overlaid(quantity, numbers(present))
        value = self._arithmetic.array(inverse(given), z.dtype)
        return self._walk.apply(z, (value, lambda dz: dz), z.dtype)

    def _value(self, quantity: Quantity) -> Array | None:
        """Return the values of a quantity; None for a cotangent that has not been computed."""
        record = self._record
        if quantity.updated:
            return self._after(quantity.path)
        if quantity.part in ("input", "target"):
            return self._array(record.x if quantity.part == "input" else record.y)
        if quantity.part == "loss":
            return self._loss.value
        if quantity.part == "learning_rate":
            return self._array(self._learning_rate())
        if quantity.part == "weight":
            return self._gradient(quantity.path) if quantity.d else self._weight(quantity.path)
        call = self.calls[quantity.call]
        if quantity.part == "derivative":
            return self._slope(call.layer, call.made)
        tensor = call.made if quantity.part == "preactivation" else call.y
        return tensor.cotangent if quantity.d else tensor.value

    def _weight(self, path: str) -> Rounded:
        return self._array(self._variables[path])

    def _gradient(self, path: str) -> Array:
        found = self._walk.cotangents.get(path)
        return self._array(np.zeros(np.shape(self._variables[path]))) if found is None else found

    def _learning_rate(self) -> float:
        given = self._given.get(Quantity("learning_rate"))
        return self._record.learning_rates[0] if given is None else float(given)

    def _after(self, path: str) -> Array:
        """Return a weight after the optimizer's update by the gradient of this run."""
        variables = self._model.trainable_variables
        gradients: dict[str, np.ndarray | None] = {
            v.path: self._overlaid(
                Quantity("weight", path=v.path, d=True), numbers(self._gradient(v.path))
            )
            for v in variables
        }
        after = updated(
            self._model.optimizer,
            variables,
            self._variables | self._record.optimizer_variables,
            (gradients,),
            (self._learning_rate(), *self._record.learning_rates[1:]),
            self._arithmetic,
            self._config.epsilon,
        )
        return next(new[path] for new in after if path in new)


def _left_open(mask: np.ndarray, given: np.ndarray | None) -> np.ndarray:
    """Return which of the numbers that are not known are not given either."""
    return mask if given is None else mask & np.isnan(np.reshape(given, mask.shape))
